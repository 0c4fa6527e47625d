"""VMRUN on numbers: `vmrun_rows.toml` says from the manual which checks fail, and it misses no mistake in a rule."""

from __future__ import annotations

import ast
import functools
import inspect
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

import number_rows
from mutation import run
from mutation.literals import Mistake, mistakes
from number_rows import Row
from popek.architectures.svm import checks
from popek.architectures.svm.baselines import MODES, baseline
from popek.architectures.svm.checks import CHECKS, NotGiven, VmcbCheck, VmcbView
from popek.architectures.svm.verdict import judge
from popek.architectures.svm.vmcb import FIELDS, SvmProcessor, Vmcb

FILE = Path(__file__).with_name("vmrun_rows.toml")
PROCESSOR = SvmProcessor(
    maxphyaddr=48, flush_by_asid=True, cet=True, vnmi=True, sev=True, ibt=True, gmet=True, sss=True
)
PROCESSOR = attrs.evolve(PROCESSOR, bus_lock_threshold=True, efer=(1 << 64) - 1, cr4=(1 << 64) - 1)
START = ("64-bit", "protected", "real")


@functools.cache
def vmcb_of(text: str) -> tuple[Vmcb, SvmProcessor]:
    """The state and its processor."""
    first, _, rest = text.partition(" ")
    mode, text = (first, rest) if first in MODES else ("64-bit", text)
    base, processor = baseline(mode), PROCESSOR
    fields, memory = dict(base.fields), dict.fromkeys(range(0x20_0000, 0x20_0020, 8), 0)
    for name, how, value in number_rows.words(text):
        if name.startswith("cpu."):
            processor = attrs.evolve(processor, **{name[4:]: number_rows.number(value)})
        elif name.startswith("mem."):
            memory[int(name[4:], 16)] = number_rows.number(value)
        else:
            fields[name] = number_rows.changed(fields[name], how, value)
    return attrs.evolve(base, fields=fields, memory=memory), processor


@functools.cache
def rows() -> tuple[Row, ...]:
    """All of them."""
    return number_rows.rows(
        FILE, lambda text, name: (vmcb_of(text)[0].fields[name], FIELDS[name].width), START
    )


def _state(row: Row) -> tuple[Vmcb, SvmProcessor]:
    vmcb, processor = vmcb_of(row.text)
    if row.bit is not None:
        vmcb = attrs.evolve(vmcb, fields=number_rows.flipped(vmcb.fields, row.bit))
    return vmcb, processor


@pytest.mark.parametrize("check_id", list(CHECKS))
def test_the_checks_that_fail_are_those_of_the_manual(check_id: str) -> None:
    here = [row for row in rows() if row.check == check_id]
    assert {"passes"} < {row.says for row in here}, "rows on both sides"
    for row in here:
        if row.exact and row.says != "unknown":
            vmcb, processor = _state(row)
            verdict = judge(vmcb, processor)
            unsure = {item.id for item in verdict.undecided if CHECKS[item.id].certainty == "unsure"}
            told = {item.id for item in (*verdict.failed, *verdict.warnings)} | unsure
            assert told == row.also | ({check_id} if row.says == "fails" else set()), row
        else:
            assert _say(CHECKS[check_id], _look(row)) == row.says, row


def _look(row: Row) -> VmcbView:
    vmcb, processor = _state(row)
    return VmcbView(vmcb.fields, processor, vmcb.memory)


def _say(check: VmcbCheck, look: Any) -> str:
    try:
        gates = [gate(look) for gate in check.gates]
        return "passes" if not all(gates) or check.holds(look) else "fails"
    except Exception as error:
        return "unknown" if type(error).__name__ == NotGiven.__name__ else repr(error)  # a class made anew


def _noticed(changed: Mapping[str, VmcbCheck], view: Any) -> bool:
    if changed.keys() != CHECKS.keys():
        return True
    for row in rows():
        check = changed[row.check]
        vmcb, processor = _state(row)
        if (
            check.certainty != CHECKS[row.check].certainty
            or _say(check, view(vmcb.fields, processor, vmcb.memory)) != row.says
        ):
            return True
    return False


def _tried() -> Iterator[tuple[Mistake, bool]]:
    body = ast.parse(inspect.getsource(checks)).body
    codes = [compile(ast.Module([one], []), "checks", "exec") for one in body]
    for place, statement in enumerate(body):
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue
        for mistake in mistakes(statement):
            space = {"__name__": checks.__name__, "__package__": checks.__package__}
            try:
                changed = compile(ast.Module([statement], []), "checks", "exec")
                for code in (*codes[:place], changed, *codes[place + 1 :]):
                    exec(code, space)
                noticed = _noticed(space["CHECKS"], space["VmcbView"])  # type: ignore[arg-type]
            except Exception:
                noticed = True
            yield mistake, noticed


def test_a_row_notices_every_mistake_in_a_rule() -> None:
    path = Path(run.__file__).with_name("equivalent.toml")
    explained = [
        one for one in tomllib.loads(path.read_text("utf-8"))["expression"] if one["module"] == "svm.checks"
    ]
    lost = [
        str(mistake)
        for mistake, noticed in _tried()
        if not noticed
        and not any(
            one["where"] == mistake.where
            and one.get("was", mistake.was) == mistake.was
            and mistake.becomes in one.get("becomes", [mistake.becomes])
            for one in explained
        )
    ]
    assert lost == []
