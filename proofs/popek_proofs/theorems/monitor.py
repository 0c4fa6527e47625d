"""Virtual machine monitors to run: trap and emulate, and hybrid, on the concrete semantics of a machine.

The construction of Theorem 1: the hardware is in f(S), where S is what the guest believes.  An instruction is
given to the hardware.  If it completes, S is read back from the hardware (except M, R and whatever else
the monitor keeps for the guest).  If it traps, the monitor interprets it: i(S), a trap of the guest's own
included.  The hybrid monitor of Theorem 3 does not ask the hardware where S is in supervisor mode: it
interprets everything there.

Nothing here knows any instruction.  Where the premises of the theorems hold, guest and bare machine stay in
step; where they do not, `red_pill` finds a program that tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Trap
from popek.kernel.state import Role, State
from popek.kernel.technique import Technique
from popek.kernel.words import Word

S = TypeVar("S", bound=State)


class StoppedError(Exception):
    """The model does not say what happens next."""


@attrs.frozen(eq=False)
class MonitorStep(Generic[S]):
    """One step of a virtual machine.

    Attributes:
        guest: what the guest believes in afterwards.
        how: "direct" where the hardware ran it, "interpreted" where the monitor did.
        escape: what the guest did to the monitor's resources; empty where it kept out of them.
    """

    guest: S
    how: str
    escape: str = ""


def bare_step(machine: Machine[S], state: S, instruction: Instruction, operands: Mapping[str, Word]) -> S:
    """i(S) on the bare machine; a trap is delivered as the hardware does.

    Raises:
        StoppedError: the model does not say.
    """
    outcome = machine.step(instruction, state, operands)
    match outcome:
        case Next(after):
            return after
        case Trap() if machine.deliver is not None:
            return machine.delivered(state, outcome)
    raise StoppedError(f"{machine.name}: {instruction.form} stops the model")


@attrs.frozen(eq=False)
class Monitor(Generic[S]):
    """A virtual machine monitor for one guest.

    Attributes:
        machine: whose semantics the hardware and the interpreter routines have.
        technique: the map f and what belongs to the monitor.
        private: the state that supplies what belongs to the monitor.
        cells: per memory, how many cells the guest has, from address 0.
        hybrid: interpret everything in virtual supervisor mode (Theorem 3).
    """

    machine: Machine[S]
    technique: Technique[S]
    private: S
    cells: Mapping[str, int]
    hybrid: bool = False

    def step(self, guest: S, instruction: Instruction, operands: Mapping[str, Word]) -> MonitorStep[S]:
        """Run one instruction in the virtual machine.

        Raises:
            StoppedError: the model does not say what happens.
        """
        if self.hybrid and bool(self.machine.supervisor(guest)):
            return MonitorStep(bare_step(self.machine, guest, instruction, operands), "interpreted")
        before = self.technique.map(guest, self.private)
        outcome = self.machine.step(instruction, before, operands)
        match outcome:
            case Next(after):
                return MonitorStep(
                    self._read_back(guest, after), "direct", self._escape(guest, before, after)
                )
            case Trap():
                return MonitorStep(bare_step(self.machine, guest, instruction, operands), "interpreted")
        raise StoppedError(f"{self.machine.name}: {instruction.form} stops the model")

    def _read_back(self, guest: S, hardware: S) -> S:
        """S again: the hardware's values, but for what the monitor keeps for the guest."""
        technique = self.technique
        kept = {*technique.owned, *technique.shadowed, *technique.replaced}
        changes = {leaf.name: hardware[leaf.name] for leaf in guest.leaves if leaf.name not in kept}
        # Leaves that say what machine it is, such as the size of storage, are the guest's own.
        changes = {n: v for n, v in changes.items() if guest.leaf(n).role is not Role.HIDDEN}
        after = guest.with_changes(changes)
        for name, size in self.cells.items():
            old, real = guest.memories()[name], hardware.memories()[name]
            width = old.address_width
            where = (technique.guest_address(self.private, Word(width, a)) for a in range(size))
            contents = {a: int(real.load(address)) for a, address in enumerate(where)}
            setattr(after, name, Memory(width, old.cell_width, contents))
        return after

    def _escape(self, guest: S, before: S, after: S) -> str:
        """What of the monitor's the run changed."""
        if not bool(self.technique.deprivileged(after)):
            return "the guest runs in supervisor mode"
        for name in self.technique.owned:
            if int(before[name]) != int(after[name]):
                return f"the guest changed {name}"
        for name, size in self.cells.items():
            old, new = before.memories()[name], after.memories()[name]
            width = old.address_width
            own = {int(self.technique.guest_address(self.private, Word(width, a))) for a in range(size)}
            for entry in new.stores[len(old.stores) :]:
                if isinstance(entry, tuple) and int(entry[0]) not in own:
                    return f"the guest changed {name}[{int(entry[0])}] of the monitor"
        return ""


def shown(machine: Machine[S], state: S, cells: Mapping[str, int]) -> dict[str, int]:
    """What a program can find out by looking: storage, registers and where it is; neither mode nor
    resources."""
    visible = (Role.PC, Role.GENERAL)
    found = {leaf.name: int(state[leaf.name]) for leaf in state.leaves if leaf.role in visible}
    for name, size in cells.items():
        content = state.memories()[name]
        for address in range(size):
            found[f"{name}[{address}]"] = int(content.load(Word(content.address_width, address)))
    return found
