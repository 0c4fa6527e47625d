"""The weakest condition on the control bits, instruction by instruction.

For every setting of the bits that an instruction depends on, the questions of `fidelity` are asked; the
weakest condition is the disjunction of the settings that fail neither.  Who answers is passed in.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import attrs

from popek.kernel.words import Word

from .fidelity import KNOBS, Obligation

Ask = Callable[[Sequence[Word]], bool | None]
"""Whether conditions (width 1) can hold together; None when that was not decided."""

Assume = Callable[[Sequence[Word]], Ask]
"""Someone to ask, who takes these conditions for granted."""


@attrs.frozen
class Requirement:
    """What one instruction asks of the settings.

    Attributes:
        form: the instruction.
        knobs: the settings it depends on, in declared order.
        faithful, safe: the settings (one value per knob) under which it is.
        intercepts: the settings under which it may take a Virtualization fault (asked where there are knobs).
        completes: the settings under which the guest's kernel may complete it (likewise).
        undecided: settings for which a question was not decided.
    """

    form: str
    mnemonic: str
    knobs: tuple[str, ...]
    faithful: frozenset[tuple[int, ...]]
    safe: frozenset[tuple[int, ...]]
    intercepts: frozenset[tuple[int, ...]]
    completes: frozenset[tuple[int, ...]]
    undecided: frozenset[tuple[int, ...]]

    @property
    def sound(self) -> frozenset[tuple[int, ...]]:
        """Faithful and safe."""
        return self.faithful & self.safe

    def condition(self, settings: frozenset[tuple[int, ...]]) -> str:
        """A set of settings as the shortest disjunction, `always` or `never`."""
        return disjunction(self.knobs, settings)

    def allows(self, chosen: Mapping[str, int]) -> bool:
        """Faithful and safe under a choice of every knob."""
        return tuple(chosen[name] for name in self.knobs) in self.sound


def requirement(duty: Obligation, assume: Assume) -> Requirement:
    """Both questions for every setting of the knobs."""
    ask = assume(duty.assumed)
    names = tuple(name for name in KNOBS if name in duty.knobs)
    questions = {"unfaithful": duty.unfaithful, "unsafe": duty.unsafe}
    if names:  # where no setting matters, nobody chooses between intercepts
        questions["intercepted"] = duty.intercepted
        questions["completes"] = duty.completes & (duty.hardware.before.psr.cpl == 0)
    found: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for values in itertools.product((0, 1), repeat=len(names)):
        setting = duty.under(dict(zip(names, values, strict=True)))
        for name, condition in questions.items():
            answer = False if condition.value == 0 else ask([*setting, condition])
            if answer is not False:
                found[name].add(values)
            if answer is None:
                found["undecided"].add(values)
    every = frozenset(itertools.product((0, 1), repeat=len(names)))
    return Requirement(
        duty.instruction.form,
        duty.instruction.mnemonic,
        names,
        faithful=every - found["unfaithful"],
        safe=every - found["unsafe"],
        intercepts=frozenset(found["intercepted"]),
        completes=frozenset(found["completes"]),
        undecided=frozenset(found["undecided"]),
    )


def disjunction(names: Sequence[str], settings: frozenset[tuple[int, ...]]) -> str:
    """The settings as a shortest disjunction of conjunctions.

    >>> disjunction(("d_vmsw", "promotion_pages"), frozenset({(0, 0), (1, 0), (1, 1)}))
    'd_vmsw = 1 or promotion_pages = 0'
    """
    if not settings:
        return "never"
    if len(settings) == 1 << len(names):
        return "always"
    cubes = [c for c in itertools.product((0, 1, None), repeat=len(names)) if _cover(c) <= settings]
    primes = [c for c in cubes if not any(_cover(c) < _cover(other) for other in cubes)]
    for count in range(1, len(primes) + 1):
        for chosen in itertools.combinations(primes, count):
            if frozenset(itertools.chain.from_iterable(map(_cover, chosen))) == settings:
                return " or ".join(sorted(_conjunction(names, c) for c in chosen))
    raise AssertionError("the prime implicants cover the settings")


def _cover(cube: Sequence[int | None]) -> frozenset[tuple[int, ...]]:
    return frozenset(itertools.product(*((0, 1) if value is None else (value,) for value in cube)))


def _conjunction(names: Sequence[str], cube: Sequence[int | None]) -> str:
    return " and ".join(f"{n} = {v}" for n, v in zip(names, cube, strict=True) if v is not None)
