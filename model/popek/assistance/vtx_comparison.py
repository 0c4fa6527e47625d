"""Before and after: IA-32 under ring deprivileging, under VT-x of 2005, and under VT-x with synthesized controls.

By the letter of Theorem 1's premise, an instruction that works on a read shadow is still critical; what VT-x
restores is what the premise is for: every instruction exits, or does to the guest's state what it should.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.operation.fidelity import CONTROLS, COVERS
from popek.architectures.vtx.operation.ownership import EVERYTHING, FEATURES, Profile, profile
from popek.architectures.vtx.operation.technique import PRESETS
from popek.checks.survey import Request, Surveyor
from popek.checks.verdict import Truth
from popek.kernel.configuration import Configuration
from popek.solving.asking import assume

from .vtx_judgement import ALWAYS, NEVER, SOMETIMES, failure_of
from .vtx_requirements import duty, governed_forms, machine, representatives
from .vtx_synthesis import synthesize

PROBLEMS: Final[Mapping[str, tuple[str, ...]]] = {
    "ring aliasing": ("MOV r32, Sreg", "PUSH CS", "CALL ptr16:32", "RETF", "IRETD"),
    "non-faulting access to privileged state": (
        "SGDT m", "SIDT m", "SLDT r32", "STR r32", "SMSW r32", "LAR r32, r16", "LSL r32, r16", "VERR r16", "VERW r16",
    ),
    "adverse impact on guest system calls": ("SYSENTER", "SYSEXIT", "INT imm8"),
    "interrupt virtualization": ("CLI", "STI", "PUSHFD", "POPFD"),
    "access to hidden state": ("MOV Sreg, r16", "POP ES"),
}  # fmt: skip
"""Which problem of Uhlig et al. 2005 a form stands for in the table: stored, after the paper's text, to sort the rows.

Nothing else in the table is stored: whether the form is critical under ring deprivileging, and whether it exits, is
faithful and is safe under VT-x, is derived, for these forms as for all others, and may come out either way (CLI and
STI trap at IOPL 0, so they are not critical).  `popek problems` derives which problems a technique has.
"""

PROCESSOR: Final = "intel-skylake"


@attrs.frozen
class Under:
    """One instruction under VT-x: how it exits, and whether it is faithful and safe where it does not."""

    exits: str
    failure: str | None


@attrs.frozen
class Compared:
    """One instruction before and after.

    Attributes:
        problem: of Uhlig et al., if it shows one.
        critical: under ring deprivileging.
        first, best: under VT-x of 2005, and with synthesized controls.
    """

    form: str
    mnemonic: str
    problem: str
    critical: Truth
    first: Under
    best: Under


@attrs.frozen
class Comparison:
    """The table."""

    rows: tuple[Compared, ...]

    @property
    def critical(self) -> tuple[str, ...]:
        """The mnemonics that are critical before."""
        return tuple(dict.fromkeys(row.mnemonic for row in self.rows if row.critical is Truth.YES))

    @property
    def as_claimed(self) -> bool:
        """Something is critical before, and nothing fails after."""
        failing = [row for row in self.rows if row.first.failure or row.best.failure]
        return bool(self.critical) and not failing

    def to_json(self) -> dict[str, Any]:
        """`popek/vtx-comparison/1`."""
        return {
            "schema": "popek/vtx-comparison/1",
            "instructions": [
                {
                    "form": row.form,
                    "mnemonic": row.mnemonic,
                    "problem": row.problem,
                    "ring_deprivileging": {"critical": row.critical.value},
                    "vt-x-2005": _json(row.first),
                    "vt-x": _json(row.best),
                }
                for row in self.rows
            ],
            "critical_before": list(self.critical),
            "failing_after": [r.form for r in self.rows if r.first.failure or r.best.failure],
        }


def _json(under: Under) -> dict[str, Any]:
    return {"exits": under.exits, "failure": under.failure}


def compare(
    forms: Sequence[str] | None = None, *, progress: Callable[[int, int], None] | None = None
) -> Comparison:
    """The table, for one form of each instruction that VMX decides about and those that show a problem."""
    problem = {form: name for name, shown in PROBLEMS.items() for form in shown}
    wanted = list(forms) if forms is not None else [*problem, *representatives(governed_forms())]
    known = machine().instructions
    wanted = [form for form in dict.fromkeys(wanted) if form in known]
    before = Surveyor(
        Request("ia32", "ring-deprivileging-0/1/3", _configuration(), components=False), _ring_machine()
    )
    first, controls = _first()
    best, synthesized = _best()
    rows = []
    for number, form in enumerate(wanted):
        rows.append(
            Compared(
                form,
                known[form].mnemonic,
                problem.get(form, ""),
                before.row(form).classes["critical"],
                under(form, first, controls),
                under(form, best, synthesized),
            )
        )
        if progress is not None:
            progress(number + 1, len(wanted))
    return Comparison(tuple(rows))


def _ring_machine() -> Any:
    from popek.architectures import machine as find_machine

    return find_machine("ia32")


def _configuration() -> Configuration:
    from popek.kernel.configuration import default_configuration

    return default_configuration(_ring_machine())


def _first() -> tuple[Profile, Mapping[str, int]]:
    owned, on = PRESETS["vt-x-2005"]
    setting = {name: int(name in on) for name in CONTROLS} | dict.fromkeys(COVERS, 1)
    return attrs.evolve(owned, hidden=frozenset(FEATURES)), setting


def _best() -> tuple[Profile, Mapping[str, int]]:
    found = synthesize(load_capabilities(PROCESSOR), profile(EVERYTHING))
    return found.owned, {**found.controls, **found.covers}


def under(form: str, owned: Profile, setting: Mapping[str, int]) -> Under:
    """One form under VT-x with these settings."""
    due = duty(form, owned, setting)
    ask = assume(due.assumed)
    can_exit = due.exits.value != 0 and ask([due.exits]) is not False
    can_run = due.completes.value != 0 and ask([due.completes]) is not False
    exits = ALWAYS if can_exit and not can_run else SOMETIMES if can_exit else NEVER
    return Under(exits, failure_of(due))


__all__ = ["PROBLEMS", "Compared", "Comparison", "Under", "compare", "under"]
