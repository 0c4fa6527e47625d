"""The weakest condition on the controls, instruction by instruction, for any kind of hardware assistance.

For every setting of the controls that an instruction depends on, it is asked whether the instruction can
fail fidelity or safety; the weakest condition is the disjunction of the settings that fail neither.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.words import Word
from popek.solving.asking import Ask

FAILURES = ("unfaithful", "unsafe")
QUESTIONS = (*FAILURES, "exits", "completes", "undecided")


@attrs.frozen
class Requirement:
    """What one instruction asks of the settings.

    Attributes:
        form: the instruction.
        knobs: the controls it depends on, in declared order.
        faithful, safe: the settings (one value per knob) under which it is.
        exits: the settings under which it may exit.
        completes: the settings under which the guest's kernel may complete it.
        undecided: settings for which a question was not decided.
    """

    form: str
    mnemonic: str
    knobs: tuple[str, ...]
    faithful: frozenset[tuple[int, ...]]
    safe: frozenset[tuple[int, ...]]
    exits: frozenset[tuple[int, ...]]
    completes: frozenset[tuple[int, ...]]
    undecided: frozenset[tuple[int, ...]]

    @property
    def sound(self) -> frozenset[tuple[int, ...]]:
        """Faithful and safe."""
        return self.faithful & self.safe

    def condition(self, settings: frozenset[tuple[int, ...]]) -> str:
        """A set of settings as the shortest disjunction, `always` or `never`."""
        return disjunction(self.knobs, settings)

    @property
    def always(self) -> bool:
        """It is faithful and safe under every setting."""
        return self.condition(self.sound) == "always"

    def at(self, chosen: Mapping[str, int]) -> tuple[int, ...]:
        """The setting that a choice of every knob means."""
        return tuple(chosen[name] for name in self.knobs)

    def allows(self, chosen: Mapping[str, int]) -> bool:
        """Faithful and safe under a choice of every knob."""
        return self.at(chosen) in self.sound

    def possible(self, fixed: Mapping[str, int]) -> bool:
        """Some setting with these values is faithful and safe."""
        return any(
            all(fixed.get(name, value) == value for name, value in zip(self.knobs, values, strict=True))
            for values in self.sound
        )


def weakest(
    instruction: Instruction, knobs: Mapping[str, Word], questions: Mapping[str, Word], ask: Ask
) -> Requirement:
    """Every question for every setting of the knobs.

    Args:
        knobs: the conditions (width 1) that say a setting is 1, in declared order.
        questions: a condition (width 1) for each of `QUESTIONS`; `undecided` is that the model does not say what
            happens.
    """
    names = tuple(knobs)
    found: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for name, condition in questions.items():
        if condition.value != 0:
            for values, answer in possible(condition, tuple(knobs.values()), ask):
                found[name].add(values)
                if answer is None:
                    found["undecided"].add(values)
    every = frozenset(itertools.product((0, 1), repeat=len(names)))
    return Requirement(
        instruction.form,
        instruction.mnemonic,
        names,
        faithful=every - found["unfaithful"],
        safe=every - found["unsafe"],
        exits=frozenset(found["exits"]),
        completes=frozenset(found["completes"]),
        undecided=frozenset(found["undecided"]),
    )


def possible(
    condition: Word, knobs: Sequence[Word], ask: Ask
) -> Iterator[tuple[tuple[int, ...], bool | None]]:
    """The settings under which a condition can hold; None beside one for which that was not decided.

    Knob by knob: where it cannot hold with some of them set, nobody asks about the others.
    """

    def below(values: tuple[int, ...], answer: bool | None) -> Iterator[tuple[tuple[int, ...], bool | None]]:
        if answer is False:
            return
        if len(values) == len(knobs):
            yield values, answer
            return
        setting = [knob == value for knob, value in zip(knobs, (*values, 0), strict=False)]
        zero = ask([*setting, condition])
        yield from below((*values, 0), zero)
        if zero is False:  # then it holds with a 1, if it does at all
            yield from below((*values, 1), answer)
        else:
            yield from below((*values, 1), ask([*setting[:-1], knobs[len(values)] == 1, condition]))

    yield from below((), ask([condition]))


def disjunction(names: Sequence[str], settings: frozenset[tuple[int, ...]]) -> str:
    """The settings as a shortest disjunction of conjunctions.

    >>> disjunction(("d_vmsw", "promotion_pages"), frozenset({(0, 0), (1, 0), (1, 1)}))
    'd_vmsw = 1 or promotion_pages = 0'
    """
    cubes = prime_cubes(len(names), settings)
    if not cubes:
        return "never"
    if cubes == ((None,) * len(names),):
        return "always"
    return " or ".join(sorted(_conjunction(names, cube) for cube in cubes))


Cube = tuple[int | None, ...]
"""A value per knob, None where either will do."""


def prime_cubes(count: int, settings: frozenset[tuple[int, ...]]) -> tuple[Cube, ...]:
    """The fewest cubes whose union is the settings; none of them can be made wider."""
    if not settings:
        return ()
    cubes = [c for c in itertools.product((0, 1, None), repeat=count) if cover(c) <= settings]
    covers = {cube: cover(cube) for cube in cubes}
    primes = [c for c in cubes if not any(wider in covers for wider in _wider(c))]
    alone = {c for s in settings if len(by := [c for c in primes if s in covers[c]]) == 1 for c in by}
    left = settings.difference(*(covers[c] for c in alone))
    others = [c for c in primes if c not in alone and covers[c] & left]
    for number in range(len(others) + 1):
        for chosen in itertools.combinations(others, number):
            if left <= frozenset(itertools.chain.from_iterable(covers[c] for c in chosen)):
                return tuple(c for c in primes if c in alone or c in chosen)
    raise AssertionError("the prime implicants cover the settings")


def _wider(cube: Cube) -> Iterator[Cube]:
    """The cubes with one value less."""
    for place, value in enumerate(cube):
        if value is not None:
            yield (*cube[:place], None, *cube[place + 1 :])


def cover(cube: Cube) -> frozenset[tuple[int, ...]]:
    """The settings of a cube."""
    return frozenset(itertools.product(*((0, 1) if value is None else (value,) for value in cube)))


def _conjunction(names: Sequence[str], cube: Cube) -> str:
    return " and ".join(f"{n} = {v}" for n, v in zip(names, cube, strict=True) if v is not None)
