"""What may be the cause where nothing is known to fail: undecided checks, by how much of their condition holds.

A near miss is a check whose predicate is broken by what is given, so that only its conditions are open. Of other checks
those are named of whose conditions some hold and which one more fact decides. What holds of every VMCS, such as that
the processor has Intel 64, tells little and does not count.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

import attrs

from popek.architectures.vtx.entry_checks import CHECKS, Check, Condition, Outcome
from popek.architectures.vtx.entry_checks.registry import FRED

from ..capabilities import Capabilities
from ..evaluation import order
from ..findings import Undecided
from ..verdict import explain
from ..view import View, view_of
from ..vmcs import MissingField, Vmcs


@attrs.frozen
class NearMiss:
    """A check that fails if it applies: what would be wrong, when, what of that is known, and what would tell.

    Attributes:
        id: of the check.
        message: what would be wrong.
        condition: what is not known to hold.
        missing: what would tell.
        holds: of its conditions, those that are known to hold and need not.
        rare: whether it is about what hardly any guest has.
    """

    id: str
    message: str
    condition: str
    missing: tuple[str, ...]
    holds: tuple[str, ...] = ()
    rare: bool = False


@attrs.frozen
class OneAway:
    """An undecided check that one more fact decides: what must hold, where that is known to be asked, and the fact."""

    id: str
    statement: str
    holds: tuple[str, ...]
    missing: str


def could_cause(check_id: str, report: Outcome) -> bool:
    """Whether a violation of a check ends as it is reported."""
    check = CHECKS[check_id]
    outcome = check.outcome
    if check.certainty == "warning":
        return False  # about what comes after the entry
    if report.kind == "vmfail-valid":
        return bool(set(outcome.errors) & set(report.errors))
    return (
        report.kind == outcome.kind == "entry-failure"
        and report.reason == outcome.reason
        and (report.qualification is None or outcome.qualification in (None, report.qualification))
    )


def near_misses(
    vmcs: Vmcs, capabilities: Capabilities, undecided: Iterable[Undecided]
) -> tuple[NearMiss, ...]:
    """The undecided checks whose predicate is known to fail; the likeliest first.

    Those with the fewest open questions come first, of these those of whose conditions the greatest part holds; what
    only a guest with FRED can miss comes last.
    """
    view, nothing = _views(vmcs, capabilities)
    found: list[tuple[tuple[bool, int, float, int], NearMiss]] = []
    for item in undecided:
        check = CHECKS[item.id]
        try:
            if check.holds(view):
                continue
        except MissingField:
            continue
        open_ = [gate.text for gate in check.gates if _unknown(gate, view)]
        if open_:
            holds = tuple(_telling(check, view, nothing))
            rare = FRED.text in open_
            miss = NearMiss(check.id, explain(check, view), " and ".join(open_), item.missing, holds, rare)
            part = len(holds) / (len(holds) + len(open_))
            found.append(((rare, len(item.missing), -part, order(check)), miss))
    return tuple(miss for _, miss in sorted(found, key=lambda pair: pair[0]))


def one_away(
    vmcs: Vmcs, capabilities: Capabilities, undecided: Iterable[Undecided], known: Container[str]
) -> tuple[OneAway, ...]:
    """Checks some of whose conditions hold and that lack one input, but those of `known`; the most conditions first."""
    view, nothing = _views(vmcs, capabilities)
    found: list[OneAway] = []
    for item in undecided:
        check = CHECKS[item.id]
        if (
            len(item.missing) == 1
            and item.id not in known
            and (holds := tuple(_telling(check, view, nothing)))
        ):
            found.append(OneAway(item.id, check.statement, holds, item.missing[0]))
    return tuple(sorted(found, key=lambda away: -len(away.holds)))


def questions(
    undecided: Iterable[Undecided], near: Sequence[NearMiss], away: Sequence[OneAway]
) -> list[tuple[str, int]]:
    """What undecided checks lack, with the number that wait for each; what may decide the case comes first.

    What decides whether a near miss applies comes before what decides a check of whose conditions some hold, and that
    before what decides most of the others. Where others must be answered, too, a question decides a part.
    """
    waiting: dict[str, int] = {}
    worth: dict[str, float] = {}
    nearest: dict[str, float] = {}
    for item in undecided:
        for what in item.missing:
            waiting[what] = waiting.get(what, 0) + 1
            worth[what] = worth.get(what, 0) + 1 / len(item.missing)
    for miss in near:
        for what in () if miss.rare else miss.missing:
            nearest[what] = max(nearest.get(what, 0), 1 + 1 / len(miss.missing) + len(miss.holds) / 100)
    for other in away:
        nearest.setdefault(other.missing, len(other.holds) / 100)
    return sorted(
        waiting.items(), key=lambda pair: (-nearest.get(pair[0], 0), -worth[pair[0]], -pair[1], pair[0])
    )


def _views(vmcs: Vmcs, capabilities: Capabilities) -> tuple[View, View]:
    """What is known, and what is known of every VMCS on this processor."""
    return view_of(vmcs, capabilities), view_of(attrs.evolve(vmcs, fields={}), capabilities)


def _telling(check: Check, view: View, nothing: View) -> Iterator[str]:
    """The conditions that are known to hold because of a field."""
    for gate in check.gates:
        if _unknown(gate, nothing) and not _unknown(gate, view):
            yield gate.text


def _unknown(gate: Condition, view: View) -> bool:
    try:
        gate.test(view)
    except MissingField:
        return True
    return False


__all__ = ["NearMiss", "OneAway", "could_cause", "near_misses", "one_away", "questions"]
