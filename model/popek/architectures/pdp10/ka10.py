"""The KA10 with the KT10 relocation option: one protection and one relocation register.

A user address is checked and relocated by its high 8 bits, blocks of 1024 words.  An executive address
goes to storage as it is.  Here both modes relocate through `bound` and `base`, which in executive mode
are 255 and 0: so two states that differ only in mode see the same storage.
"""

from __future__ import annotations

from collections.abc import Mapping

from popek.architectures.listing import listing
from popek.kernel.machine import Machine, leaf_setting
from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault, NotModelledError, Trap, Vector
from popek.kernel.state import Register, Role, bit, bits, memory, register, word
from popek.kernel.words import FALSE, Word, concat, ite

from . import innocuous, ka10_io, ka10_jumps
from .operands import operands
from .relocated_user_mode import ka10_techniques
from .state import ADDRESS, MANUAL_KA, WORD, Pdp10, is_accumulator, right, shifted

BLOCK = 8
WHOLE = 0xFF

PROTECTION = Vector("memory protection violation", 0)
NONEXISTENT = Vector("nonexistent memory", 0)


class ProcessorConditions(Register):
    """What CONO APR and CONI APR set and read, besides the flags (bits of the right half)."""

    channel = bits(2, 0)
    overflow_enabled = bit(3)
    floating_overflow_enabled = bit(4)
    clock = bit(5)
    clock_enabled = bit(6)
    nonexistent_memory = bit(7)
    memory_protection = bit(8)
    address_break = bit(9)


class Ka10(Pdp10):
    """The whole machine; its devices are one that stands for the device an instruction selects."""

    bound = word(BLOCK, role=Role.RESOURCE, reset=WHOLE)
    base = word(BLOCK, role=Role.RESOURCE)
    # What user mode will find: the protection and relocation registers.  Stale in user mode.
    user_bound = word(BLOCK, role=Role.RESOURCE)
    user_base = word(BLOCK, role=Role.RESOURCE)
    apr = register(ProcessorConditions, 10, role=Role.RESOURCE)
    pushdown_overflow = word(1)
    switches = word(WORD, role=Role.RESOURCE)  # the console's data switches
    device_data = word(WORD, role=Role.RESOURCE)
    device_conditions = word(WORD, role=Role.RESOURCE)
    last = word(BLOCK, role=Role.HIDDEN, reset=WHOLE)  # the last block of core that exists
    memory = memory(address=ADDRESS, cell=WORD)

    def _cell(self, reference: Word) -> Word:
        """Where a reference goes (manual, time sharing).

        Raises:
            Fault: protection violation, nonexistent memory; the processor reports these through the
                interrupt system, to the monitor.
        """
        block = reference[17:10]
        if block > self.bound:
            raise Fault(PROTECTION, memory=True)
        real = block + self.base
        if real > self.last:
            raise Fault(NONEXISTENT, memory=True)
        return concat(real, reference[9:0])

    def load(self, reference: Word) -> Word:
        """Accumulator or core."""
        if is_accumulator(reference):
            return self.ac[reference[3:0]]
        return self.memory.load(self._cell(reference))

    def store(self, reference: Word, value: Word) -> None:
        """Accumulator or core := value."""
        if is_accumulator(reference):
            self.ac[reference[3:0]] = value
        else:
            self.memory = self.memory.store(self._cell(reference), value)

    def count_up(self, pointer: Word) -> tuple[Word, Word]:
        """One addition of 1,,1: a carry runs from the right half into the left."""
        wide = pointer.zero_extend(WORD + 1) + 0o1000001
        return wide[35:0], wide[36]

    def count_down(self, pointer: Word) -> tuple[Word, Word]:
        """One subtraction of 1,,1."""
        return pointer - 0o1000001, pointer < 0o1000001

    def stack_overflow(self, condition: Word) -> None:
        """A flag of the processor, which may interrupt."""
        self.pushdown_overflow = self.pushdown_overflow | condition

    def enter_user(self, condition: Word) -> None:
        """User := 1 and the user's relocation, if the condition holds."""
        now = condition & ~self.flags.user
        self.bound = ite(now, self.user_bound, self.bound)
        self.base = ite(now, self.user_base, self.base)
        self.flags.user = self.flags.user | condition


def build() -> Machine[Ka10]:
    """The machine with User In-out clear, unless a setting says otherwise."""
    machine: Machine[Ka10] = Machine(
        "pdp10-ka10",
        "DEC PDP-10, KA10 processor with KT10",
        Ka10,
        supervisor=lambda state: state.flags.user == 0,
        user=lambda state: state.flags.user == 1,
        source=MANUAL_KA,
        operands=operands(),
        settings=(leaf_setting("USERIO", "flags.user_io", 1, "the flag User In-out", 0),),
        invariant=_exists,
        advance=_advance,
        relocate=_relocate,
        relocation_width=BLOCK,
        deliver=_deliver,
        techniques=ka10_techniques(),
        notes=(
            "interrupts: memory violations are traps on storage, as if the processor's channel were on",
            "address calculation is not part of an instruction: E is an operand",
            "BLT, byte, floating point and half-word instructions but for HRRZ",
            "second relocation register pair (KT10A), and the maintenance devices",
            "all devices but APR and PI are one, with a word of data and a word of conditions",
            "no manual was at hand: the layout of the APR conditions is from general knowledge",
            "that User In-out lifts the traps of HALT and JEN too is as in SIMH's later KA10 simulator",
        ),
        interrupt_masks=("pi_on", "pi_enabled"),
        architecture=listing("pdp10", "instructions-ka10"),
    )
    innocuous.add(machine, MANUAL_KA)
    ka10_jumps.add(machine)
    ka10_io.add(machine)
    return machine


def _exists(state: Ka10) -> Word:
    """Executive mode does not relocate; the flags of later processors are 0."""
    plain = (state.bound == WHOLE) & (state.base == 0)
    return (state.flags.user | plain) & (state.flags.value[5:2] == 0) & state.running


def _advance(cpu: Ka10, parts: Mapping[str, Word]) -> None:
    cpu.pc = ite(cpu.executing, cpu.pc, cpu.pc + 1)
    cpu.executing = FALSE


def _relocate(state: Ka10, offset: Word) -> Ka10:
    """The same user program `offset` blocks further on in core; an executive program cannot be moved."""
    moved, core = state.copy(), state.memory
    moved.base, moved.user_base = state.base + offset, state.user_base + offset
    moved.memory = Memory(ADDRESS, WORD, lambda address: core.load(shifted(address, -offset)))
    return moved


def _deliver(before: Ka10, trap: Trap[Ka10]) -> Ka10:
    """Store the word in 40 and do what 41 says, both in executive storage; JSR leaves user mode.

    Raises:
        NotModelledError: 41 holds something else than JSR, or the trap is an interrupt.
    """
    if trap.memory or trap.error_code is None:
        raise NotModelledError(f"{trap.vector} interrupts")
    cpu = trap.state.copy()
    leaves = cpu.flags.user
    cpu.user_bound = ite(leaves, cpu.bound, cpu.user_bound)
    cpu.user_base = ite(leaves, cpu.base, cpu.user_base)
    cpu.bound, cpu.base = Word(BLOCK, WHOLE), Word(BLOCK, 0)
    cpu.store(Word(ADDRESS, 0o40), trap.error_code)
    call = cpu.load(Word(ADDRESS, 0o41))
    if call[35:18] != 0o264000:
        raise NotModelledError("location 41 holds no plain JSR")
    cpu.store(right(call), cpu.pc_word)
    cpu.flags.user = cpu.flags.first_part_done = FALSE
    cpu.pc = right(call) + 1
    return cpu
