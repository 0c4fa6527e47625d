"""A PC as a device sees it: storage in quadwords, a bus-master device, the fabric, a remapping unit.

The processor's side is a second stage that moves the guest's pages (what EPT does for a guest without holes): two
references stand for all of its instructions, which are asked with the machines that have them.
"""

from __future__ import annotations

from popek.kernel.instruction import OperandKind
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import MemoryFault, Vector
from popek.kernel.state import Role, State, memory, word
from popek.kernel.technique import Technique
from popek.kernel.words import Word, concat, ite

HOST_WIDTH = 39
CELL = HOST_WIDTH - 3  # an address of a quadword
PAGE = HOST_WIDTH - 12  # the number of a page
IN_PAGE = 9  # quadwords, as a power of two

VIOLATION = Vector("EPT violation", 48)


class Pc(State):
    """A guest's machine, or the hardware under one."""

    mode = word(1, role=Role.MODE)  # 1: a guest runs
    rax = word(64)
    start = word(PAGE, role=Role.RESOURCE)  # where the second stage puts page 0
    last = word(PAGE, role=Role.HIDDEN, reset=(1 << PAGE) - 1)  # the last page that exists
    memory = memory(address=CELL, cell=64)

    def cell(self, address: Word) -> Word:
        """Where a reference of the processor goes.

        Raises:
            MemoryFault: the page is not the guest's.
        """
        page = address[CELL - 1 : IN_PAGE]
        if page > self.last:
            raise MemoryFault(VIOLATION)
        return concat(page + self.start, address[IN_PAGE - 1 : 0])


def build() -> Machine[Pc]:
    """Storage and the two references to it."""
    machine: Machine[Pc] = Machine(
        "x86-platform",
        "a PC's storage under a second stage of translation",
        Pc,
        supervisor=lambda state: state.mode == 0,
        user=lambda state: state.mode == 1,
        source="Intel SDM vol. 3, EPT",
        operands={"m64": OperandKind("m64", {"": CELL})},
        techniques={"second-stage": _technique()},
    )

    @machine.instruction("MOV RAX, m64")
    def load(cpu: Pc, m64: Word) -> None:
        """RAX := the quadword."""
        cpu.rax = cpu.memory.load(cpu.cell(m64))

    @machine.instruction("MOV m64, RAX")
    def store(cpu: Pc, m64: Word) -> None:
        """The quadword := RAX."""
        cpu.memory = cpu.memory.store(cpu.cell(m64), cpu.rax)

    return machine


def inside(guest: Pc, private: Pc, cell: Word) -> Word:
    """A quadword of the hardware's is the guest's (width 1)."""
    return cell[CELL - 1 : IN_PAGE] - private.start <= guest.last


def moved(cell: Word, pages: Word) -> Word:
    """The same quadword so many pages further on."""
    return concat(cell[CELL - 1 : IN_PAGE] + pages, cell[IN_PAGE - 1 : 0])


def _map(guest: Pc, private: Pc) -> Pc:
    hardware, ours, others = private.copy(), guest.memory, private.memory
    hardware.mode, hardware.rax, hardware.last = Word(1, 1), guest.rax, guest.last
    hardware.start = guest.start + private.start

    def view(cell: Word) -> Word:
        mine = inside(guest, private, cell)
        return ite(mine, ours.load(moved(cell, -private.start)), others.load(cell))

    hardware.memory = Memory(CELL, 64, view)
    return hardware


def _fits(guest: Pc, private: Pc) -> Word:
    """The guest's pages do not go round the end of storage, and page 0 is the monitor's."""
    wide = PAGE + 1
    end = private.start.zero_extend(wide) + guest.last.zero_extend(wide)
    return (private.start >= 1) & ~end[PAGE]


def _technique() -> Technique[Pc]:
    return Technique(
        "second-stage",
        "the guest behind a second stage of translation that moves its pages",
        map=_map,
        owned=("mode", "start", "last"),
        shadowed=("mode",),
        guest=lambda guest: guest.start == 0,
        deprivileged=lambda state: state.mode == 1,
        private=_fits,
        owns_address=lambda guest, private, cell: ~inside(guest, private, cell),
        guest_address=lambda private, cell: moved(cell, private.start),
        source="Intel SDM vol. 3, EPT",
    )
