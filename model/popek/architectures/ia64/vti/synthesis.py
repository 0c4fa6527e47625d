"""The configuration with the fewest intercepts among those that are faithful and safe."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from .configuration import UNNUMBERED
from .fidelity import ACCELERATIONS, DISABLES
from .requirements import Requirement

REFUSED: Final = (("a_int", "d_extint"),)  # V1


@attrs.frozen
class Synthesis:
    """A choice of every control bit.

    Attributes:
        bits: the value of every bit.
        intercepted: forms that may take a Virtualization fault.
        native: forms that the guest's kernel may complete without the VMM, although some bit governs them.
        open: forms that no choice of bits makes faithful and safe.
    """

    bits: Mapping[str, int]
    intercepted: tuple[str, ...]
    native: tuple[str, ...]
    open: tuple[str, ...]


def synthesize(
    requirements: Sequence[Requirement],
    fixed: Mapping[str, int],
    *,
    weights: Mapping[str, float] | None = None,
    later: bool = False,
) -> Synthesis | None:
    """The faithful and safe choice of bits with the fewest intercepts; None where there is none.

    Args:
        fixed: values of settings that are not to be chosen (`promotion_pages`, `si`, or a control bit).
        weights: how often an instruction runs, by mnemonic; 1 when missing.
        later: also choose the bits of later processors; they are 0 otherwise.
    """
    chosen = dict(fixed)
    if not later:
        chosen = {**dict.fromkeys(UNNUMBERED, 0), **chosen}
    possible = [r for r in requirements if _satisfiable(r, chosen)]
    free = [name for name in (*ACCELERATIONS, *DISABLES) if name not in chosen]
    for group in _groups(free, possible):
        concerned = [r for r in possible if set(r.knobs) & set(group)]
        best = _best(group, concerned, chosen, weights or {})
        if best is None:
            return None
        chosen.update(best)
    values = {r.form: _at(r, chosen) for r in requirements}
    return Synthesis(
        {name: chosen[name] for name in (*ACCELERATIONS, *DISABLES)},
        tuple(r.form for r in requirements if values[r.form] in r.intercepts),
        tuple(r.form for r in requirements if r.knobs and values[r.form] in r.completes),
        tuple(r.form for r in requirements if r not in possible),
    )


def _at(requirement: Requirement, chosen: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(chosen[name] for name in requirement.knobs)


def _satisfiable(requirement: Requirement, chosen: Mapping[str, int]) -> bool:
    return any(
        all(chosen.get(name, value) == value for name, value in zip(requirement.knobs, values, strict=True))
        for values in requirement.sound
    )


def _groups(names: Sequence[str], requirements: Iterable[Requirement]) -> list[list[str]]:
    """The names in groups that no requirement, and no pair PAL refuses, joins to one another."""
    group = {name: {name} for name in names}
    for joined in (*(r.knobs for r in requirements), *REFUSED):
        together: set[str] = set().union(*(group[name] for name in joined if name in group))
        for name in together:
            group[name] = together
    return [
        [name for name in names if name in members]
        for first, members in group.items()
        if first == next(name for name in names if name in members)
    ]


def _best(
    group: Sequence[str],
    requirements: Sequence[Requirement],
    chosen: Mapping[str, int],
    weights: Mapping[str, float],
) -> dict[str, int] | None:
    """The cheapest sound choice: fewest intercepts, then most done natively, then fewest bits set."""
    best: tuple[tuple[float, float, int], dict[str, int]] | None = None
    for values in itertools.product((0, 1), repeat=len(group)):
        choice = {**chosen, **dict(zip(group, values, strict=True))}
        refused = any(choice.get(a) and choice.get(b) for a, b in REFUSED)
        if refused or not all(r.allows(choice) for r in requirements):
            continue
        cost = sum(weights.get(r.mnemonic, 1.0) for r in requirements if _at(r, choice) in r.intercepts)
        gain = sum(weights.get(r.mnemonic, 1.0) for r in requirements if _at(r, choice) in r.completes)
        score = (cost, -gain, sum(values))
        if best is None or score < best[0]:
            best = score, dict(zip(group, values, strict=True))
    return best[1] if best else None
