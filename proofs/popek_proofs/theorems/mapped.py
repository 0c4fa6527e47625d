"""An instruction twice: on S and on f(S), for every guest state S and every state of the control program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from popek.checks.classify import Classifier
from popek.checks.runs import Run, conjunction, handed_over, probe
from popek.kernel.instruction import Instruction
from popek.kernel.state import Role, State
from popek.kernel.technique import Technique
from popek.kernel.words import Word, any_of

S = TypeVar("S", bound=State)


@attrs.frozen(eq=False)
class Mapped(Generic[S]):
    """Two runs of one instruction.

    Attributes:
        guest: S.
        private: what the control program has put into the hardware.
        image: f(S).
        here: the run on S.
        completions: the ways in which the run on f(S) completes: the condition (width 1), and the final
            state.
        assumed: conditions (width 1) under which there are such states.
    """

    guest: S
    private: S
    image: S
    here: Run[S]
    completions: tuple[tuple[Word, S], ...]
    assumed: tuple[Word, ...]

    @property
    def completes_there(self) -> Word:
        """It completes on f(S) (width 1)."""
        return any_of(when for when, _ in self.completions)

    @property
    def traps_here(self) -> Word:
        """It traps on S (width 1)."""
        return ~self.here.completes & ~self.here.not_modelled


def mapped(classifier: Classifier[S], instruction: Instruction, general: Run[S]) -> Mapped[S]:
    """The two runs, by substitution in the run from the state that may be anything."""
    machine, technique = classifier.machine, classifier.technique
    guest = classifier.state
    private = machine.state.symbolic(" of the control program")
    image = technique.map(guest, private)
    # A run that hands control to the control program counts as a trap.
    completions = tuple(
        (conjunction(when) & ~handed_over(machine, technique, image, after, private), after)
        for when, after in general.at(image).completions()
    )
    assumed = (
        classifier.subject.holds(guest),
        machine.invariant(guest),
        machine.invariant(image),
        technique.guest(guest),
        technique.private(guest, private),
        instruction.valid(general.operands),
        technique.deprivileged(image),
    )
    return Mapped(guest, private, image, general.at(guest), completions, assumed)


def owned_in(name: str) -> str:
    """The name of the address at which `changes_owned` probes a memory."""
    return f"owned address in {name}"


def changes_owned(
    technique: Technique[S],
    guest: S,
    private: S,
    before: S,
    after: S,
    addresses: Mapping[str, Sequence[int]] | None = None,
) -> Word:
    """Something that the control program owns changed (width 1): a leaf, or a cell at a probed or given
    address."""
    changed = [before[name] != after[name] for name in technique.owned if name not in before.memories()]
    for slot in before.layout:
        if not slot.address:
            continue
        old, new = before.memories()[slot.name], after.memories()[slot.name]
        if new is old:
            continue
        where = probe(old, owned_in(slot.name))
        if addresses is not None:
            where = Word(old.address_width, next(iter(addresses.get(slot.name, ())), 0))
        differs = old.load(where) != new.load(where)
        if slot.name in technique.owned:
            changed.append(differs)
        elif slot.role is Role.MEMORY and technique.owns_address is not None:
            changed.append(technique.owns_address(guest, private, where) & differs)
    return any_of(changed)
