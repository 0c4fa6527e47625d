"""Which control decides about which exit: derived, for a VMM that owns everything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from popek.kernel.outcome import Trap
from popek.kernel.state import substitution
from popek.kernel.words import Word, any_of

from .desk import Desk, Duty
from .requirements import Requirement


@attrs.frozen
class Governed:
    """What decides whether an instruction exits for one reason.

    Attributes:
        reason: the number of the exit's reason; None where it never exits.
        title: the reason's name.
        controls: those on which exiting depends, where it passes the checks before the exit.
    """

    form: str
    mnemonic: str
    reason: int | None
    title: str
    controls: tuple[str, ...]


def governs(desk: Desk[Any], form: str) -> tuple[Governed, ...]:
    """The exit reasons of a form, and the controls that decide about each: derived from its paths.

    A control decides where some case exits for this reason with one value of it and not with the other.  A form that
    never exits has one row, too.
    """
    due = desk.duty(form, desk.owner_of_all)
    is_exit, report = desk.assistance.is_exit, desk.assistance.report
    reasons: dict[tuple[int, str], list[Word]] = {}
    for path in due.obligation.hardware.paths:
        if isinstance(path.result, Trap) and is_exit(path.result):
            reasons.setdefault(report(path.result), []).append(path.condition)
    mnemonic = due.instruction.mnemonic
    if not reasons:
        return (Governed(form, mnemonic, None, "", ()),)
    return tuple(
        Governed(form, mnemonic, number, title, tuple(_decides(due, any_of(exits))))
        for (number, title), exits in sorted(reasons.items())
    )


def _decides(due: Duty[Any], exits: Word) -> Iterator[str]:
    """The controls that a condition (width 1) depends on."""
    for name, knob in due.knobs.items():
        if due.desk.assistance.control(name).holds is not None:
            sides = [[exits, knob == value] for value in (0, 1)]
            answers = [exits.value != 0 and due.ask(side) is not False for side in sides]
            if answers[0] != answers[1]:
                yield name
            continue
        symbol = str(knob.term.data)
        one, other = (Word(1, substitution({symbol: Word(1, value)}, {})(exits.term)) for value in (0, 1))
        differ = one ^ other
        if differ.value != 0 and due.ask([differ]) is not False:
            yield name


def groupings(found: Iterable[Governed]) -> dict[str, list[tuple[str, Sequence[str]]]]:
    """Where the reasons are coarser than the controls, and where the controls are coarser: name and what it has."""
    by_reason: dict[tuple[int, str], set[tuple[str, ...]]] = {}
    by_control: dict[str, set[int]] = {}
    for item in found:
        if item.reason is not None:
            by_reason.setdefault((item.reason, item.title), set()).add(item.controls)
            for control in item.controls:
                by_control.setdefault(control, set()).add(item.reason)
    return {
        "one exit reason, several controls": [
            (f"{reason} {title}", [", ".join(s) or "unconditional" for s in sorted(sets)])
            for (reason, title), sets in sorted(by_reason.items())
            if len(sets) > 1
        ],
        "one control, several exit reasons": [
            (control, [str(reason) for reason in sorted(reasons)])
            for control, reasons in by_control.items()
            if len(reasons) > 1
        ],
    }


def excess(
    due: Duty[Any], found: Requirement, fixed: Mapping[str, int] | None = None
) -> frozenset[tuple[int, ...]]:
    """The sound settings that exit in some case in which another does not that is decided to be sound.

    Bits of masks and tables that nothing asks for are 0.

    Args:
        fixed: controls that nobody can set otherwise: what is not chosen, what something else asks for.
    """
    desk, private = due.desk, due.obligation.private
    memories = private.memories()
    zero = {
        str(private.memories()[name].load(Word(memories[name].address_width, 0)).term.data): (
            lambda place: Word(1, 0)
        )
        for name in desk.assistance.zero
        if name in memories
    }
    plain = {
        str(private[name].term.data): Word(private[name].width, 0)
        for name in desk.assistance.zero
        if name not in memories
    }
    known = fixed or {}
    sound = [
        values
        for values in sorted(found.sound)
        if all(known.get(name, value) == value for name, value in zip(found.knobs, values, strict=True))
    ]
    decided = [values for values in sound if values not in found.undecided]
    exits = {}
    for setting in sound:
        chosen = {
            str(due.knobs[knob].term.data): Word(1, value)
            for knob, value in zip(found.knobs, setting, strict=True)
            if desk.assistance.control(knob).holds is None
        }
        exits[setting] = Word(1, substitution({**plain, **chosen}, zero)(due.exits.term))
    return frozenset(
        a
        for a in sound
        if any(exits[a].value != 0 and due.ask([exits[a], ~exits[b]]) for b in decided if a != b)
    )
