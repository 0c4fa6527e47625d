"""What a VM-entry check is, and the register of all of them.

A check is a predicate over a `View` (see `popek.architectures.vtx.view`) with the conditions under which it
applies. The statement, the manual's section and the sources of a check are data, in
``popek_specs/vtx/entry-checks.csv``, under the same id.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Final, Literal

import attrs

from popek.architectures.vtx.view import Decision, View
from popek_specs.vtx import rows

OutcomeKind = Literal["enters", "vmfail-invalid", "vmfail-valid", "entry-failure", "undecided", "fault"]

Certainty = Literal["must", "may", "warning"]
"""Whether a violation fails the entry on all processors, on some, or is only a suspect."""


@attrs.frozen
class Outcome:
    """How a VM entry ends.

    Attributes:
        kind: ``fault`` is an exception of the instruction; the others as their names say.
        errors: admissible VM-instruction errors, for ``vmfail-valid``.
        reason: basic exit reason, for ``entry-failure``.
        qualification: exit qualification, for ``entry-failure``; None if it depends on the state (the number
            of an MSR-load entry).
    """

    kind: OutcomeKind
    errors: tuple[int, ...] = ()
    reason: int | None = None
    qualification: int | None = None


FAULT: Final = Outcome("fault")
INVALID: Final = Outcome("vmfail-invalid")
ENTERS: Final = Outcome("enters")
UNDECIDED: Final = Outcome("undecided")


def fails(error: int) -> Outcome:
    """VMfailValid with a VM-instruction error."""
    return Outcome("vmfail-valid", errors=(error,))


def refuses(qualification: int | None, reason: int = 33) -> Outcome:
    """A VM-entry failure with an exit reason (bit 31 set in the field) and a qualification."""
    return Outcome("entry-failure", reason=reason, qualification=qualification)


@attrs.frozen(eq=False)
class Condition:
    """Something that must hold for a check to apply."""

    text: str
    test: Callable[[View], Decision]


@attrs.frozen(eq=False)
class CheckGroup:
    """Checks that the manual lists together; `stage` orders the groups as the processor does."""

    name: str
    title: str
    outcome: Outcome
    stage: int


@attrs.frozen(eq=False)
class Check:
    """One row of the ledger as a predicate.

    Attributes:
        id: of the ledger's row.
        group: the manual's list that it belongs to.
        gates: conditions, in order, all of which must hold for the check to apply.
        holds: the predicate; true if the state passes.
        message: one line; ``{NAME}`` stands for a field or an answer of the capabilities, with its value.
        outcome: of an entry that violates it.
        certainty: see `Certainty`.
        doubt: a further predicate; a state that passes `holds` and not this one fails on some processors.
        tolerated: where a state that violates `holds` enters on some processors.
        numbers: of the MSR-load entries that may be the one that fails, which is the exit qualification: those
            before the first that fails for certain of which something is unknown, then that one.
        note: what the message goes on with, such as which entry fails; empty if there is nothing to say.
    """

    id: str
    group: CheckGroup
    gates: tuple[Condition, ...]
    holds: Callable[[View], Decision]
    message: str
    outcome: Outcome
    certainty: Certainty
    doubt: Callable[[View], Decision] | None = None
    tolerated: Callable[[View], Decision] | None = None
    numbers: Callable[[View], tuple[int, ...]] | None = None
    note: Callable[[View], str] | None = None

    @property
    def section(self) -> str:
        """The manual's section; ``E`` stands for the chapter on VM entries."""
        return ledger()[self.id]["section"]

    @property
    def statement(self) -> str:
        """The condition in words."""
        return ledger()[self.id]["statement"]

    @property
    def gate_text(self) -> str:
        """The conditions under which it applies, in words."""
        return " and ".join(gate.text for gate in self.gates) or "always"

    @property
    def confidence(self) -> str:
        """``sure`` or ``uncertain``."""
        return ledger()[self.id]["confidence"]


@functools.cache
def ledger() -> Mapping[str, Mapping[str, str]]:
    """The rows of the ledger by id."""
    return {row["id"]: row for row in rows("entry-checks.csv")}


_checks: dict[str, Check] = {}
_not_checked: dict[str, str] = {}
_not_modelled: dict[str, str] = {}


def registered() -> tuple[Mapping[str, Check], Mapping[str, str], Mapping[str, str]]:
    """The checks, the rows that say "no check", and those that are not modelled, each by id."""
    return _checks, _not_checked, _not_modelled


def _new(check_id: str) -> str:
    if check_id in _checks or check_id in _not_checked or check_id in _not_modelled:
        raise ValueError(f"{check_id} is registered twice")
    return check_id


def no_check(check_id: str, reason: str) -> None:
    """Register a row that says that nothing is checked, or that the entry succeeds."""
    _not_checked[_new(check_id)] = reason


def not_modelled(check_id: str, reason: str) -> None:
    """Register a row without a predicate."""
    _not_modelled[_new(check_id)] = reason


def checker(group: CheckGroup) -> Callable[..., None]:
    """The function that registers the checks of a group."""

    def check(
        check_id: str,
        gates: tuple[Condition, ...],
        holds: Callable[[View], Decision],
        message: str,
        *,
        outcome: Outcome = group.outcome,
        certainty: Certainty = "must",
        doubt: Callable[[View], Decision] | None = None,
        tolerated: Callable[[View], Decision] | None = None,
        numbers: Callable[[View], tuple[int, ...]] | None = None,
        note: Callable[[View], str] | None = None,
    ) -> None:
        _checks[_new(check_id)] = Check(
            check_id, group, gates, holds, message, outcome, certainty, doubt, tolerated, numbers, note
        )

    return check


# -- conditions --------------------------------------------------------------------------


@functools.cache
def _control_titles() -> Mapping[tuple[str, int], str]:
    return {(row["control"], int(row["bit"])): row["title"] for row in rows("controls.csv")}


_VIEW_NAMES: Final = {
    "pin": "pin",
    "pri": "primary",
    "sec": "secondary",
    "ter": "tertiary",
    "exit": "exit",
    "exit2": "exit2",
    "entry": "entry",
}


@functools.cache
def control(word: str, bit: int, value: int = 1) -> Condition:
    """The condition that a bit of an effective control (pin, pri, sec, ter, exit, …) has a value."""
    title = _control_titles().get((_VIEW_NAMES[word], bit), "reserved")
    mask = 1 << bit
    wanted = mask if value else 0

    def test(v: View) -> Decision:
        return getattr(v, word) & mask == wanted

    return Condition(f"{_VIEW_NAMES[word]}[{bit}] ({title}) = {value}", test)


INTEL64: Final = Condition("the processor supports Intel 64", lambda v: v.cap.intel64)
V8086: Final = Condition("RFLAGS.VM = 1", lambda v: v.v8086)
NOT_V8086: Final = Condition("RFLAGS.VM = 0", lambda v: v.GUEST_RFLAGS & 0x2_0000 == 0)
IA32E: Final = control("entry", 9)
NOT_IA32E: Final = control("entry", 9, 0)
UNRESTRICTED: Final = control("sec", 7)
NOT_UNRESTRICTED: Final = control("sec", 7, 0)
EPT: Final = control("sec", 1)
INJECTION: Final = Condition("ENTRY_INTR_INFO is valid", lambda v: v.ENTRY_INTR_INFO & 0x8000_0000 != 0)
FRED: Final = Condition("guest CR4.FRED = 1", lambda v: v.GUEST_CR4 & 1 << 32 != 0)
