"""Techniques: ways to put a guest on the hardware, as a map from guest state to hardware state.

The guest believes in a state S; the hardware is in `map(S, P)`, where P is what the VMM itself has put
there (its tables, its control bits).  What the guest believes about the components that the VMM owns is
kept in the VMM's memory, and an instruction that does not trap cannot change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs

from .declaration import MISTAKES, defined_at, in_semantics
from .outcome import DeclarationError, Target, Trap
from .state import State
from .words import FALSE, TRUE, Word

S = TypeVar("S", bound=State)


def TRAPS_ONLY(before: State, after: State) -> Word:  # noqa: N802 - a value of `Technique.entries`
    """No entry but by a trap."""
    return FALSE


@attrs.frozen
class Hypothesis:
    """Something that a VMM sees to, and without which its guest gets out.

    Attributes:
        name: as the command line spells it.
        summary: what the VMM sees to.
        setting: the setting of the machine that is left open without it, where that is all there is to it.
        examples: forms to look at first for a way out.
    """

    name: str
    summary: str
    setting: str = ""
    examples: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class Technique(Generic[S]):
    """One way of virtualizing a machine.

    Attributes:
        name: as the command line spells it.
        title: for people.
        map: `map(guest, private)`, the hardware state; `private` is a state of the machine that
            supplies every component the VMM owns.
        owned: leaves that belong to the VMM: a guest's run without trap must leave them alone.
        replaced: those of them that hold a value of the VMM's own, unrelated to the guest's; two states
            that differ only here look the same to the guest.  A register that relocates the guest is
            owned and not replaced: the location-sensitive class asks about it.
        shadowed: leaves whose guest value the VMM keeps in its own memory.
        shadowed_when: of which guests (width 1) it keeps one of these, by name, where not of all: the hardware has it
            of the others.
        guest: which guest states exist (width 1).
        deprivileged: the hardware state is one in which the guest's kernel runs (width 1): the user
            mode of Theorem 1.
        private: what the VMM promises about what it owns (width 1), given guest and private state.
        owns_address: where given, `owns_address(guest, private, address)` says that a cell of hardware
            storage is the VMM's (width 1).
        guest_address: where the guest's storage cell `address` is in the hardware's, given the private state.
        guest_cell: the same for a memory that is no storage, by its name: by default the number is the same.
        has_cell: which cells of such a memory a guest has, by its name (width 1).
        shadows_address: where given, `shadows_address(guest, address)` says that the VMM keeps a copy of
            the guest's cell (width 1), so that it must learn of every change.
        entries: `entries(before, after)` says that a run from one hardware state that ended in another without a trap
            went in at an entry that the VMM owns, for its tables and registers in `before` lead there (width 1).
            The run has handed over control, and counts as a trap; that the hardware goes on in a cell of the VMM's is
            asked of every such run.  `TRAPS_ONLY`, the default: there is none.
        delivered: owned leaves in which the hardware tells the VMM of a trap, or leaves what was the guest's: what a
            trap leaves there is its business.
        target: whose handler a trap on the hardware goes to: the VMM's by default.
        guest_level: a level of the hardware as the guest knows it, where a trap goes to a handler that is not the
            VMM's; the level itself by default.
        entered: where given, `entered(private, after)` says it exactly, where it is known what the VMM keeps.
        hypotheses: what the VMM sees to so that its guest does not get out.
        without: the technique without some of them, by name.
        keeps_hidden: switching to the VMM and back saves and loads hidden leaves as they are; otherwise they are
            what loading what an instruction can save gives.
        guests_own: mode and resource leaves and memories that hold the guest's values and that the VMM does not
            own: changing them is the guest's own affair, and does not make an instruction control-sensitive.
        owns_cell: where given, `owns_cell(memory, address)` says which cells of an owned memory are the VMM's
            (width 1); all of them otherwise.
        settled: fidelity compares with the map of what the VMM has *after* the run, so that a change of the VMM's
            things breaks safety alone; otherwise with what it had before.
        uncompared: leaves and memories that fidelity leaves aside; clocks where nobody says.
        guest_settings: settings of the guest's own machine where it is not set up as the hardware is, by name; None
            where it may be set up in any way.
        hardware_settings: settings that the VMM makes on the hardware, while the guest's own machine may have any other
            value of them.
        source: who describes the technique.
    """

    name: str
    title: str
    map: Callable[[S, S], S]
    owned: tuple[str, ...]
    shadowed: tuple[str, ...]
    deprivileged: Callable[[S], Word]
    replaced: tuple[str, ...] = ()
    guest: Callable[[S], Word] = lambda state: TRUE
    private: Callable[[S, S], Word] = lambda guest, private: TRUE
    owns_address: Callable[[S, S, Word], Word] | None = None
    guest_address: Callable[[S, Word], Word] = lambda private, address: address
    guest_cell: Callable[[S, str, Word], Word] = lambda private, name, address: address
    has_cell: Callable[[S, str, Word], Word] = lambda guest, name, address: TRUE
    shadows_address: Callable[[S, Word], Word] | None = None
    entries: Callable[[S, S], Word] = TRAPS_ONLY
    delivered: tuple[str, ...] = ()
    target: Callable[[Trap[S]], Target] = lambda trap: Target.VMM
    guest_level: Callable[[str], str] = lambda level: level
    entered: Callable[[S, S], Word] | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    without: Callable[[frozenset[str]], Technique[S]] | None = None
    keeps_hidden: bool = False
    guests_own: tuple[str, ...] = ()
    owns_cell: Callable[[str, Word], Word] | None = None
    settled: bool = False
    uncompared: tuple[str, ...] | None = None
    guest_settings: Mapping[str, int | None] = attrs.field(factory=dict)
    hardware_settings: tuple[str, ...] = ()
    shadowed_when: Mapping[str, Callable[[S], Word]] = attrs.field(factory=dict)
    source: str = ""

    def keeps(self, name: str, guest: S) -> Word:
        """Whether the VMM keeps a shadowed leaf of a guest (width 1)."""
        return self.shadowed_when[name](guest) if name in self.shadowed_when else TRUE

    def goes_to(self, trap: Trap[S]) -> Target:
        """Whose handler a trap on the hardware goes to.

        Raises:
            DeclarationError: `target` gives something else.
        """
        try:
            found: object = self.target(trap)
        except MISTAKES as error:
            raise in_semantics(error, self.name, f"target of {trap.vector}") from error
        if not isinstance(found, Target):
            where = defined_at(self.target)
            raise DeclarationError(
                f"{where + ': ' if where else ''}{self.name}: target of {trap.vector} gives {found!r}: expected one of "
                f"{', '.join(f'Target.{one.name}' for one in Target)}"
            )
        return found
