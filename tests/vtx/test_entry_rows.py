"""VM entry on numbers: `entry_rows.toml` says from the manual which checks fail, and it misses no mistake in a rule.

The second test makes every small mistake in the rules (each number, each bit of a mask, each comparison, each
condition dropped) and asks whether a row notices. Whoever adds a number to a rule adds rows on both sides of it.
"""

from __future__ import annotations
import __future__

import ast
import functools
import importlib
import inspect
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import entry_rows
import pytest

from mutation import run
from mutation.literals import Mistake, mistakes
from number_rows import Row
from popek.architectures.vtx import view
from popek.architectures.vtx.capabilities import Capabilities, CapabilityView
from popek.architectures.vtx.entry_checks import CHECKS, Check, registry
from popek.architectures.vtx.verdict import judge
from popek.architectures.vtx.view import View, view_of
from popek.architectures.vtx.vmcs import MissingField, Vmcs

MODULES = (
    "basic",
    "controls",
    "event_injection",
    "guest_control_registers",
    "guest_descriptor_tables",
    "guest_non_register",
    "guest_rip_rflags",
    "guest_segments",
    "host_state",
    "msr_areas",
    "pdptes",
)
STAGES = {"PRE": 0, "SMM": 0, "CTL": 1, "EXIT": 1, "ENTRY": 1, "INJ": 1, "HOST": 1, "GUEST": 2, "LOAD": 3}
USUAL = {
    "PRE-01": "fault",
    "PRE-02": "fault",
    "PRE-03": "vmfail-invalid",
    "PRE-04": "vmfail-invalid",
    "PRE-05": "vmfail-valid 26",
    "PRE-06": "vmfail-valid 4",
    "PRE-07": "vmfail-valid 5",
    "CTL": "vmfail-valid 7",
    "EXIT": "vmfail-valid 7",
    "ENTRY": "vmfail-valid 7",
    "INJ": "vmfail-valid 7",
    "HOST": "vmfail-valid 8",
    "GUEST": "entry-failure 33 0",
}


@pytest.mark.parametrize("check_id", list(CHECKS))
def test_the_checks_that_fail_are_those_of_the_manual(check_id: str) -> None:
    rows = [row for row in entry_rows.rows() if row.check == check_id]
    assert {"passes"} < {row.says for row in rows}, "rows on both sides"
    for row in rows:
        verdict = judge(*entry_rows.state(row))
        told = {item.id for item in verdict.failed} | {item.id for item in verdict.warnings}
        own = set() if row.says in ("passes", "unknown") else {check_id}
        assert told & {check_id} == own, row
        assert (check_id in {item.id for item in verdict.undecided}) == (row.says == "unknown"), row
        if row.exact:
            assert told == row.also | own, row
        if row.says == "fails" and check_id.startswith("LOAD"):
            number = next((int(word[6:]) for word in row.text.split() if word.startswith("entry:")), 1)
            assert CHECKS[check_id].numbers(view_of(*entry_rows.state(row)))[-1] == number, row  # type: ignore[misc]
        if row.says in ("doubts", "tolerates"):
            assert any(outcome.kind == "enters" for outcome in verdict.admissible), row


def _outcome(check: Check) -> str:
    one = check.outcome
    if check.certainty == "warning":
        return "warning"
    numbers = [
        ",".join(map(str, one.errors)),
        *(str(n) for n in (one.reason, one.qualification) if n is not None),
    ]
    return " ".join(
        [one.kind, *filter(None, numbers), *([check.certainty] if check.certainty != "must" else [])]
    )


@pytest.mark.parametrize("check_id", list(CHECKS))
def test_a_check_ends_the_entry_as_the_manual_says(check_id: str) -> None:
    told = {
        told["outcome"] for name, told, _ in entry_rows.checks() if name == check_id and "outcome" in told
    }
    usual = USUAL.get(check_id) or USUAL.get(check_id.partition("-")[0], "")
    assert _outcome(CHECKS[check_id]) == (told.pop() if told else usual)
    if CHECKS[check_id].certainty != "warning":
        assert CHECKS[check_id].group.stage == STAGES[check_id.partition("-")[0]]


# -- every mistake -------------------------------------------------------------------------


@attrs.frozen
class Prepared:
    """A state as the rules get it, and what they say of it where nothing is wrong."""

    row: Row
    vmcs: Vmcs
    processor: Capabilities
    fields: Mapping[str, Any]
    memory: Mapping[int, int]
    answer: str


def _say(check: Check, look: View) -> str:
    """What a check says of a state, in a word."""
    try:
        gates = [gate.test(look) for gate in check.gates]
        if not all(gates):
            return "passes"
        if not check.holds(look):
            if check.tolerated is not None and check.tolerated(look):
                return "tolerates"
            return f"fails {check.numbers(look)[-1:]}" if check.numbers is not None else "fails"
        return "passes" if check.doubt is None or check.doubt(look) else "doubts"
    except MissingField as error:
        return f"lacks {error.what}"
    except Exception as error:
        return repr(error)


@functools.cache
def _prepared() -> Mapping[str, tuple[Prepared, ...]]:
    found: dict[str, list[Prepared]] = {}
    for row in entry_rows.rows():
        vmcs, processor = entry_rows.state(row)
        look = view_of(vmcs, _processor_view(processor))
        answer = _say(CHECKS[row.check], look)
        found.setdefault(row.check, []).append(
            Prepared(row, vmcs, processor, vmcs.fields, look._memory, answer)
        )
    return {name: tuple(rows) for name, rows in found.items()}


@functools.cache
def _view_by_id(number: int) -> CapabilityView:
    return CapabilityView(_KEPT[number])


_KEPT: dict[int, Capabilities] = {}


def _processor_view(
    processor: Capabilities, fresh: dict[int, CapabilityView] | None = None
) -> CapabilityView:
    """One view per processor, which remembers its answers; a mistake in the answers needs `fresh` ones."""
    number = id(processor)
    _KEPT[number] = processor
    if fresh is None:
        return _view_by_id(number)
    if number not in fresh:
        fresh[number] = CapabilityView(processor)
    return fresh[number]


def _noticed(
    checks: Mapping[str, Check], wanted: frozenset[str], fresh: dict[int, CapabilityView] | None = None
) -> bool:
    """Whether a row tells these checks from those that are right; `wanted` are the ids that there must be."""
    if checks.keys() != wanted:
        return True
    for name, check in checks.items():
        right = CHECKS[name]
        if _outcome(check) != _outcome(right) or check.group.stage != right.group.stage:
            return True
        for one in _prepared()[name]:
            look = View(one.fields, _processor_view(one.processor, fresh), one.vmcs.launch, one.memory)
            if _say(check, look) != one.answer:
                return True
    return False


def _tree(module: types.ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


@functools.cache
def _compiled(module: types.ModuleType) -> tuple[types.CodeType, ...]:
    return tuple(_code(statement, module) for statement in _tree(module).body)


def _code(statement: ast.stmt, module: types.ModuleType) -> types.CodeType:
    if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
        statement = ast.Pass(lineno=1, col_offset=0)
    code: types.CodeType = compile(
        ast.Module([statement], []), module.__name__, "exec", dont_inherit=True, flags=_ANNOTATIONS
    )
    return code


_ANNOTATIONS: int = __future__.annotations.compiler_flag


def _run(module: types.ModuleType, codes: Sequence[types.CodeType]) -> dict[str, Check]:
    """The checks that a module registers."""
    before = registry._checks, registry._not_checked, registry._not_modelled
    registry._checks, registry._not_checked, registry._not_modelled = {}, {}, {}
    try:
        space = {"__name__": module.__name__, "__package__": module.__package__, "__file__": module.__file__}
        for code in codes:
            exec(code, space)
        return registry._checks
    finally:
        registry._checks, registry._not_checked, registry._not_modelled = before


def _rules() -> Iterator[tuple[str, Mistake, bool]]:
    """Each mistake in the modules of rules, and whether a row notices."""
    for name in MODULES:
        module = importlib.import_module(f"{registry.__package__}.{name}")
        codes = _compiled(module)
        wanted = frozenset(_run(module, codes))
        for place, statement in enumerate(_tree(module).body):
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                continue
            for mistake in mistakes(statement):
                try:
                    changed = _run(module, (*codes[:place], _code(statement, module), *codes[place + 1 :]))
                except Exception:
                    yield name, mistake, True
                else:
                    yield name, mistake, _noticed(changed, wanted)


WORDS = (
    (
        view,
        (
            "on",
            "off",
            "select",
            "either",
            "both",
            "_usable",
            "_injects",
            "_DERIVED",
            "implies",
            "one_of",
            "placed",
        ),
    ),
    (view, ("canonical", "extended", "fixed", "last_byte", "memory_types")),
    (
        registry,
        (
            "control",
            "INTEL64",
            "V8086",
            "NOT_V8086",
            "IA32E",
            "NOT_IA32E",
            "UNRESTRICTED",
            "NOT_UNRESTRICTED",
        ),
    ),
    (registry, ("EPT", "INJECTION", "FRED", "FAULT", "INVALID", "fails", "refuses")),
)
"""What rules are made of."""


def _words(module: types.ModuleType, names: Sequence[str]) -> Iterator[tuple[str, Mistake, bool]]:
    """The same of the words that rules are made of: a changed definition, and every rule made anew with it."""
    rooms = [importlib.import_module(f"{registry.__package__}.{name}") for name in MODULES]
    ids = {room: frozenset(_run(room, _compiled(room))) for room in rooms}
    body, codes = _tree(module).body, _compiled(module)
    for place, statement in enumerate(body):
        for mistake in mistakes(statement):
            if mistake.where not in names:
                break
            before = dict(vars(module))
            registry.control.cache_clear()
            try:
                exec(_code(statement, module), vars(module))
                for later, code in zip(body[place + 1 :], codes[place + 1 :], strict=True):
                    if isinstance(later, (ast.Assign, ast.AnnAssign)) and vars(module).get("_checks") is None:
                        exec(code, vars(module))  # what is built of it
                noticed = any(_noticed(_run(room, _compiled(room)), ids[room]) for room in rooms)
            except Exception:
                noticed = True
            finally:
                vars(module).clear()
                vars(module).update(before)
                registry.control.cache_clear()
            yield module.__name__.rpartition(".")[2], mistake, noticed


@functools.cache
def _explained() -> tuple[tuple[str, str, str, frozenset[str]], ...]:
    """Module, statement, and what it was and becomes, of what no row can notice; see `equivalent.toml`."""
    path = Path(run.__file__).with_name("equivalent.toml")
    listed = tomllib.loads(path.read_text("utf-8"))["expression"]
    return tuple(
        (one["module"], one["where"], one.get("was", ""), frozenset(one.get("becomes", ()))) for one in listed
    )


def _unnoticed(found: Iterator[tuple[str, Mistake, bool]]) -> list[str]:
    lost: list[str] = []
    for name, mistake, noticed in found:
        if noticed:
            continue
        if not any(
            (name, mistake.where) == (module, where)
            and was in ("", mistake.was)
            and (not becomes or mistake.becomes in becomes)
            for module, where, was, becomes in _explained()
        ):
            lost.append(f"{name} {mistake}")
    return lost


def test_a_row_notices_every_mistake_in_a_rule() -> None:
    assert _unnoticed(_rules()) == []


@pytest.mark.parametrize(("module", "names"), WORDS)
def test_a_row_notices_every_mistake_in_a_word_of_rules(
    module: types.ModuleType, names: Sequence[str]
) -> None:
    assert _unnoticed(_words(module, names)) == []
