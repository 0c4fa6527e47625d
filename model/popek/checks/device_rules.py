"""What a rule of the unit decides where no promise rests on it: a request that it alone refuses.

A rule whose loss breaks nothing is either never what decides, or decides what becomes of requests whose outcome the
promises do not mind: which are recorded as faults.  The same steps are taken with the rule and without it, from the
monitor's first state; where they end differently, that is shown on numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from popek.kernel.agents import World
from popek.kernel.words import TRUE, Word, any_of, symbol

from .counterexample import ReplayError
from .device_traces import (
    REPAIRS,
    DeviceTrace,
    Taken,
    first_parties,
    numbers_of,
    run_steps,
    shortest,
    shown,
    unkept_at,
)
from .devices import Attached
from .verdict import Question

DECIDED = "decided"


def decided(attached: Attached) -> DeviceTrace | None:
    """The shortest way to a request that is refused with the dropped rules alone; None where they decide nothing.

    Args:
        attached: without rules, and serving.
    """
    whole = attached.with_rules()

    def tried(registers: Sequence[str], steps: Sequence[str]) -> DeviceTrace | None:
        places: list[Word] = []
        for _ in range(REPAIRS):
            found = _tried(attached, whole, registers, steps, places)
            if not isinstance(found, Word):
                return found
            places.append(found)
        return None

    return shortest(attached, tried)


def _tried(
    attached: Attached,
    whole: Attached,
    registers: Sequence[str],
    steps: Sequence[str],
    places: Sequence[Word],
) -> DeviceTrace | Word | None:
    """The trace; or a place at which what was found does not keep a duty; or None."""
    start = first_parties(attached, "")
    values = {name: symbol(f"{name}@new", start.device[name].width) for name in registers}
    programmed = attrs.evolve(start, device=start.device.with_changes(values))
    promised = attached.attachment.promised(start.guest, start.private, start.unit, places, attached.dropped)
    assumed = [*attached.assumed(start, programmed), *(holds for _, holds in promised)]
    runs, others = (
        one.explored(lambda one=one: run_steps(one, start, registers, steps, values))  # type: ignore[misc]
        for one in (attached, whole)
    )
    for path in runs:
        for twin in others:
            unlike = _unlike(path.result, twin.result)
            conditions = [*assumed, path.condition, twin.condition, unlike]
            question = Question(f"{DECIDED} by {', '.join(steps)}", conditions)
            solved = numbers_of(attached, question, (start,), values, attached.probe())
            if solved is None:
                continue
            (numbers,), given, _ = solved
            unkept = unkept_at(attached, numbers)
            if unkept is not None:
                return unkept
            here, there = (run_steps(one, numbers, registers, steps, given) for one in (attached, whole))
            if _unlike(here, there).value != 1:
                raise ReplayError(f"{attached.devices.name}: the rule does not decide this on numbers")
            words = f"with it {_outcome(there.after)}; without it {_outcome(here.after)}"
            states = (numbers.guest, numbers.private, numbers.unit)
            return DeviceTrace(DECIDED, here.steps, words, *(shown(state) for state in states))
    return None


def _unlike(here: Taken, there: Taken) -> Word:
    """The last step reaches or sends something else (width 1)."""
    one, two = here.after, there.after
    if len(one.accesses) != len(two.accesses) or len(one.sent) != len(two.sent):
        return TRUE
    pairs = zip(one.accesses, two.accesses, strict=True)
    if any(a.kind != b.kind for a, b in pairs):
        return TRUE
    return any_of(a.cell != b.cell for a, b in zip(one.accesses, two.accesses, strict=True))


def _outcome(world: World) -> str:  # type: ignore[type-arg]
    """What became of the last step's requests, on numbers."""
    did = [
        f"the processor is given {int(one.cell):#x}"
        if one.kind == "message"
        else f"{one.kind} at {int(one.cell):#x}"
        for one in world.accesses
    ]
    return ", ".join(did) or world.refused or "nothing"
