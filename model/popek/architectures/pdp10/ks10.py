"""The KS10 with TOPS-10 paging.

A virtual address has 9 bits of page and 9 of word.  Page tables are taken to map the pages from 0 up to
consecutive pages of core: what the user process table in core page u says is `process_map` at u, the
number of its last page and the core page of its first.  The executive's tables are taken to map each page
to itself.  So, as on the KA10, both modes translate through `bound` and `base`, and two states that differ
only in mode see the same storage.
"""

from __future__ import annotations

from collections.abc import Mapping

from popek.architectures.listing import listing
from popek.kernel.machine import Machine, Setting, leaf_setting
from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault, NotModelledError, Trap, Vector
from popek.kernel.state import Role, memory, word
from popek.kernel.words import FALSE, Word, concat, ite

from . import innocuous, ks10_io, ks10_jumps
from .operands import operands
from .relocated_user_mode import ks10_techniques
from .state import MANUAL_KS, MUUO, WORD, Pdp10, halves, is_accumulator, left, right, shifted

PHYSICAL, CORE_PAGE, PAGE = 20, 11, 9
WHOLE = 0o777

PAGE_FAIL = Vector("page failure", 0o500)
# Places in the user process table (TOPS-10 paging).
UPT_MUUO, UPT_MUUO_PC, UPT_CONTEXT, UPT_EXECUTIVE_PC, UPT_USER_PC = 0o424, 0o425, 0o426, 0o430, 0o434


class Ks10(Pdp10):
    """The whole machine but for its Unibus devices, its console and its timer."""

    bound = word(PAGE, role=Role.RESOURCE, reset=WHOLE)
    base = word(CORE_PAGE, role=Role.RESOURCE)
    # By core page of a user process table: bound (9 bits), base (11 bits).
    process_map = memory(address=CORE_PAGE, cell=PAGE + CORE_PAGE, role=Role.RESOURCE)
    ubr = word(CORE_PAGE, role=Role.RESOURCE)  # core page of the user process table
    ebr = word(CORE_PAGE, role=Role.RESOURCE)  # and of the executive's
    paging = word(1, role=Role.RESOURCE)
    pxct = word(4, role=Role.HIDDEN)  # which references of the next instruction are to the previous context
    context = word(4, role=Role.HIDDEN)  # and which of this one's
    apr_enabled = word(8, role=Role.RESOURCE)
    apr_flags = word(8, role=Role.RESOURCE)
    apr_channel = word(3, role=Role.RESOURCE)
    apr_id = word(WORD, role=Role.RESOURCE, reset=0o470130010001)  # microcode and processor numbers
    halt_status = word(PHYSICAL, role=Role.RESOURCE, reset=0o376000)
    map_in_user = word(1, role=Role.HIDDEN, reset=1)  # whether MAP is legal in user mode; fixed
    last = word(CORE_PAGE, role=Role.HIDDEN, reset=0o3777)  # the last page of core that exists
    memory = memory(address=PHYSICAL, cell=WORD)

    def translated(self, reference: Word, previous: Word) -> Word:
        """Where a reference goes, in the previous context if `previous` (width 1).

        Raises:
            Fault: page failure.
        """
        page = reference[17:9]
        # The flag User In-out of executive mode says that the previous context is the user's.
        other = previous & ~self.flags.user & self.flags.user_io
        process = self.process_map.load(self.ubr)
        bound = ite(other, process[19:11], self.bound)
        base = ite(other, process[10:0], self.base)
        real = ite(self.paging, base + page.zero_extend(CORE_PAGE), page.zero_extend(CORE_PAGE))
        if (self.paging & (page > bound)) | (real > self.last):
            raise Fault(PAGE_FAIL, memory=True)
        return concat(real, reference[8:0])

    def _load(self, reference: Word, previous: Word) -> Word:
        if is_accumulator(reference):
            return self.ac[reference[3:0]]
        return self.memory.load(self.translated(reference, previous))

    def _store(self, reference: Word, value: Word, previous: Word) -> None:
        if is_accumulator(reference):
            self.ac[reference[3:0]] = value
        else:
            self.memory = self.memory.store(self.translated(reference, previous), value)

    def load(self, reference: Word) -> Word:
        """Accumulator or core, in the context of operands."""
        return self._load(reference, self.context[2])

    def store(self, reference: Word, value: Word) -> None:
        """Accumulator or core := value, in the context of operands."""
        self._store(reference, value, self.context[2])

    def load_stack(self, reference: Word) -> Word:
        """As `load`, in the context of stacks."""
        return self._load(reference, self.context[0])

    def store_stack(self, reference: Word, value: Word) -> None:
        """As `store`, in the context of stacks."""
        self._store(reference, value, self.context[0])

    def load_previous(self, reference: Word) -> Word:
        """Accumulator or core, in the previous context."""
        return self._load(reference, Word(1, 1))

    def store_previous(self, reference: Word, value: Word) -> None:
        """Accumulator or core := value, in the previous context."""
        self._store(reference, value, Word(1, 1))

    def count_up(self, pointer: Word) -> tuple[Word, Word]:
        """The halves are counted by themselves; the count ran out when the left one is 0."""
        upper = left(pointer) + 1
        return halves(upper, right(pointer) + 1), upper == 0

    def count_down(self, pointer: Word) -> tuple[Word, Word]:
        """The halves are counted by themselves; the count ran out when the left one is all 1s."""
        upper = left(pointer) - 1
        return halves(upper, right(pointer) - 1), upper == 0o777777

    def stack_overflow(self, condition: Word) -> None:
        """Trap 2."""
        self.flags.trap_2 = self.flags.trap_2 | condition

    def arithmetic_overflow(self, condition: Word) -> None:
        """Overflow and Trap 1."""
        self.flags.overflow = self.flags.overflow | condition
        self.flags.trap_1 = self.flags.trap_1 | condition

    def enter_user(self, condition: Word) -> None:
        """User := 1 and the user's map, if the condition holds."""
        now, process = condition & ~self.flags.user, self.process_map.load(self.ubr)
        self.bound = ite(now, process[19:11], self.bound)
        self.base = ite(now, process[10:0], self.base)
        self.flags.user = self.flags.user | condition

    @property
    def context_word(self) -> Word:
        """What RDUBR reads: load bits set, accumulator blocks 0, user base."""
        return concat(Word(25, 0o500000 << 7), self.ubr)


def build() -> Machine[Ks10]:
    """The machine with User In-out clear and paging on, unless a setting says otherwise."""
    paging = Setting(
        "PAGING",
        "trap and paging enable",
        (0, 1),
        lambda state, value: state.paging == value,
        1,
        "paging",
        labels={0: "off", 1: "on"},
    )
    legal = Setting(
        "MAP",
        "MAP in user mode",
        (0, 1),
        lambda state, value: state.map_in_user == value,
        1,
        "map_in_user",
        labels={0: "traps", 1: "legal"},
    )
    machine: Machine[Ks10] = Machine(
        "pdp10-ks10",
        "DEC PDP-10, KS10 processor with TOPS-10 paging",
        Ks10,
        supervisor=lambda state: state.flags.user == 0,
        user=lambda state: state.flags.user == 1,
        source=MANUAL_KS,
        operands=operands(),
        settings=(leaf_setting("USERIO", "flags.user_io", 1, "the flag User In-out", 0), paging, legal),
        invariant=_exists,
        advance=_advance,
        relocate=_relocate,
        relocation_width=CORE_PAGE,
        deliver=_deliver,
        techniques=ks10_techniques(),
        notes=(
            "page tables map to consecutive pages of core, the executive's to the same; all are writable",
            "accumulator blocks other than 0; the stored page fail word; the traps that the trap flags cause",
            "interrupts, Unibus input and output, console, timer, TOPS-20 paging",
            "address calculation is not part of an instruction: E is an operand",
            "BLT, byte, string, double and floating point instructions",
            "the flag in bit 7, which the KS10 does not use, is kept as the simulator keeps it",
            "that MAP is legal in user mode is taken from an emulator: see the setting MAP",
        ),
        interrupt_masks=("pi_on", "pi_enabled"),
        architecture=listing("pdp10", "instructions-ks10"),
    )
    innocuous.add(machine, MANUAL_KS)
    ks10_jumps.add(machine)
    ks10_io.add(machine)
    return machine


def _exists(state: Ks10) -> Word:
    """The executive's map is what it is taken to be; a user has no previous context."""
    plain = (state.bound == WHOLE) & (state.base == 0)
    return (state.flags.user | plain) & (~state.flags.user | (state.pxct == 0)) & state.running


def _advance(cpu: Ks10, parts: Mapping[str, Word]) -> None:
    cpu.pc = ite(cpu.executing, cpu.pc, cpu.pc + 1)
    cpu.executing = FALSE
    cpu.context, cpu.pxct = cpu.pxct, Word(4, 0)


def _relocate(state: Ks10, offset: Word) -> Ks10:
    """The same user program `offset` pages further on in core; an executive program cannot be moved."""
    moved, core, maps = state.copy(), state.memory, state.process_map
    by = ite(state.paging, offset, Word(CORE_PAGE, 0))
    moved.base = state.base + by

    def process(table: Word) -> Word:
        old = maps.load(table)
        return concat(old[19:11], old[10:0] + by)

    moved.process_map = Memory(CORE_PAGE, PAGE + CORE_PAGE, process)
    moved.memory = Memory(PHYSICAL, WORD, lambda address: core.load(shifted(address, -by)))
    return moved


def _deliver(before: Ks10, trap: Trap[Ks10]) -> Ks10:
    """A monitor call: word, PC word and context to the user process table, new PC word from there.

    Raises:
        NotModelledError: a page failure, whose page fail word is not modelled.
    """
    if trap.vector != MUUO or trap.error_code is None:
        raise NotModelledError(f"{trap.vector} is not delivered")
    cpu = trap.state.copy()

    def place(number: int) -> Word:
        return concat(cpu.ubr, Word(9, number))

    user = cpu.flags.user
    old = concat(cpu.flags.value.replace(3, 2, 0), Word(5, 0), cpu.pc)
    for number, value in ((UPT_MUUO, trap.error_code), (UPT_MUUO_PC, old), (UPT_CONTEXT, cpu.context_word)):
        cpu.memory = cpu.memory.store(place(number), value)
    vector = ite(user, place(UPT_USER_PC), place(UPT_EXECUTIVE_PC))
    new = cpu.memory.load(vector)
    cpu.pc = right(new)
    flags = new[35:23]
    cpu.flags = flags.replace(6, 6, flags[6] | user)
    process = cpu.process_map.load(cpu.ubr)
    cpu.bound = ite(flags[7], process[19:11], Word(PAGE, WHOLE))
    cpu.base = ite(flags[7], process[10:0], Word(CORE_PAGE, 0))
    return cpu
