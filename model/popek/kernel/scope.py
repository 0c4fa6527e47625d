"""What a verdict speaks of: the modelled forms, and which of the architecture's instructions are left out.

A machine's forms are a choice of its authors; the manual's list of instructions is not.  `scope_of` lays one
beside the other, so that "holds" can say for what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .left_open import LeftOpen

if TYPE_CHECKING:
    from .machine import Machine


@attrs.frozen
class Listed:
    """An instruction of the architecture, as its manual lists it.

    Attributes:
        name: the manual's mnemonic, or the name of a family that is listed as one.
        section: where the manual lists it.
        mnemonics: ours, whose forms model it; none where it is left out.
        why: why it is left out, or what of it is; empty where all of it is modelled.
    """

    name: str
    section: str
    mnemonics: tuple[str, ...] = ()
    why: str = ""


@attrs.frozen
class Architecture:
    """The instructions of an architecture.

    Attributes:
        name: as a verdict says it: `S/370`.
        source: the document and its list.
        instructions: in the manual's order.
    """

    name: str
    source: str
    instructions: tuple[Listed, ...]


@attrs.frozen
class Part:
    """Instructions with forms that do not cover them, and what of all of these is covered or missing."""

    instructions: tuple[str, ...]
    why: str


@attrs.frozen
class Scope:
    """Over what a verdict about every instruction of a machine is given.

    Attributes:
        forms: how many forms are modelled.
        architecture: its name; empty where the machine has no list to be compared with.
        left_out: the listed instructions without a form, in the list's order.
        parts: those with forms that do not cover them, by what the forms cover or lack.
        source: where the list is from.
        left_open: what the architecture leaves to the processor.
    """

    forms: int
    architecture: str = ""
    left_out: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    source: str = ""
    left_open: tuple[LeftOpen, ...] = ()

    @property
    def listed(self) -> bool:
        """Whether there is a list of the architecture's instructions at all."""
        return bool(self.architecture)

    @property
    def partly(self) -> tuple[str, ...]:
        """The instructions of `parts`, each with the reason: `MVC (lengths 1 and 2)`."""
        return tuple(f"{name} ({part.why})" for part in self.parts for name in part.instructions)


def scope_of(machine: Machine[Any]) -> Scope:
    """The scope of a machine's verdicts.

    An instruction that the architecture's list gives as modelled, and of which this machine has no form (a
    variant with fewer), is left out of this machine.
    """
    forms = len(machine.instructions)
    if machine.architecture is None:
        return Scope(forms, left_open=machine.left_open)
    architecture = machine.architecture()
    ours = {instruction.mnemonic for instruction in machine.instructions.values()}
    modelled = {listed.name: not ours.isdisjoint(listed.mnemonics) for listed in architecture.instructions}
    parts: dict[str, list[str]] = {}
    for listed in architecture.instructions:
        if modelled[listed.name] and listed.why:
            parts.setdefault(listed.why, []).append(listed.name)
    return Scope(
        forms,
        architecture.name,
        tuple(listed.name for listed in architecture.instructions if not modelled[listed.name]),
        tuple(Part(tuple(names), why) for why, names in parts.items()),
        architecture.source,
        machine.left_open,
    )
