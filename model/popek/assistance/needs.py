"""What instructions ask of the controls, and why: the requirement of each, with a witness for each need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from .desk import Desk, Duty
from .requirements import Requirement, cover, prime_cubes
from .witness import Witness, witness


@attrs.frozen
class Need:
    """A control that an instruction needs at a value: with the other one and all else as required, it fails."""

    knob: str
    value: int
    witness: Witness


@attrs.frozen
class NeedRow:
    """One instruction form: what it asks of the controls, and why."""

    requirement: Requirement
    needs: tuple[Need, ...] = ()

    @property
    def always(self) -> bool:
        """It is faithful and safe under every setting."""
        return self.requirement.always


def derive(
    desk: Desk[Any],
    forms: Sequence[str],
    profile: Any,
    *,
    mode: str = "",
    witnesses: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[NeedRow]:
    """The requirement of each form in an operating mode, with a witness for each control that it needs."""
    for done, form in enumerate(forms, 1):
        found = desk.required(form, profile, mode)
        yield NeedRow(found, tuple(needs(desk.duty(form, profile, mode=mode), found)) if witnesses else ())
        if progress is not None:
            progress(done, len(forms))


def needs(due: Duty[Any], found: Requirement) -> Iterator[Need]:
    """Each literal of the weakest condition, dropped alone."""
    shown = set()
    for cube in prime_cubes(len(found.knobs), found.sound):
        inside = cover(cube)
        for place, value in enumerate(cube):
            if value is None or (found.knobs[place], value) in shown:
                continue
            for setting in sorted(inside):
                other = (*setting[:place], 1 - value, *setting[place + 1 :])
                if other in found.sound or other in found.undecided:
                    continue
                shown.add((found.knobs[place], value))
                failing = witness(due, dict(zip(found.knobs, other, strict=True)))
                yield Need(found.knobs[place], value, failing)
                break
