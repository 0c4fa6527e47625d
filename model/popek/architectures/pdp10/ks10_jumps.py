"""KS10: JRST, XCT and PXCT, MAP and the unimplemented operations.

The accumulator field of JRST is a function code.  JRST 1 (PORTAL) concerned the public mode of the KI10 and
is a plain jump here.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from .encoding import JRST, OPCODES
from .ks10_state import Ks10
from .state import ADDRESS, MANUAL_KS, MUUO, WORD, instruction_word, right

# Which functions are illegal where; those not listed are illegal everywhere.
ANYWHERE: Final = (0, 1, 2, 5)
EXECUTIVE: Final = (4, 6, 7, 0o14)
IN_OUT: Final = (0o10, 0o12)
SOURCE: Final = f"{MANUAL_KS}, program control, JRST"


def add(machine: Machine[Ks10]) -> None:
    """Declare them."""
    _jumps(machine)
    _flag_jumps(machine)
    _execute(machine)


def _check(cpu: Ks10, function: int, effective: Word) -> None:
    """A monitor call where the function is illegal."""
    if function in ANYWHERE:
        return
    illegal = TRUE
    if function in EXECUTIVE:
        illegal = cpu.flags.user
    elif function in IN_OUT:
        illegal = cpu.restricted
    if illegal:
        raise Fault(MUUO, instruction_word(Word(13, JRST << 4 | function), effective), keeps=True)


def _jumps(machine: Machine[Ks10]) -> None:
    @machine.instruction("JRST E", source=SOURCE, function=0)
    @machine.instruction("JRST 1, E", source=SOURCE, mnemonic="JRST 1", function=1)
    @machine.instruction("JRST 10, E", source=SOURCE, mnemonic="JRST 10", function=0o10)
    def jump(cpu: Ks10, e: Word, function: int) -> None:
        """PC := E; JRST 10 also dismisses the interrupt."""
        _check(cpu, function, e)
        if function == 0o10:
            cpu.dismiss()
        cpu.pc = e

    @machine.instruction("JRST 4, E", source=SOURCE, mnemonic="JRST 4")
    def halt(cpu: Ks10, e: Word) -> None:
        """PC := E and halt."""
        _check(cpu, 4, e)
        cpu.pc = e
        cpu.running = FALSE

    for number in (3, 0o11, 0o13, 0o15, 0o16, 0o17):
        name = f"JRST {number:o}"

        @machine.instruction(f"{name}, E", source=SOURCE, mnemonic=name, function=number)
        def illegal(cpu: Ks10, e: Word, function: int) -> None:
            """A monitor call in every mode."""
            _check(cpu, function, e)


def _flag_jumps(machine: Machine[Ks10]) -> None:
    @machine.instruction("JRST 2, (X)", source=SOURCE, mnemonic="JRST 2", function=2)
    @machine.instruction("JRST 12, (X)", source=SOURCE, mnemonic="JRST 12", function=0o12)
    def jrstf(cpu: Ks10, index: Word, function: int) -> None:
        """PC := right half of the index register, flags := its left half; JRST 12 dismisses the interrupt."""
        word = cpu.ac[index]
        _check(cpu, function, right(word))
        cpu.pc = right(word)
        _restore(cpu, word)
        if function == 0o12:
            cpu.dismiss()

    @machine.instruction("JRST 5, E", source=SOURCE, mnemonic="JRST 5")
    def xjrstf(cpu: Ks10, e: Word) -> None:
        """Flags := left half of C(E), PC := C(E + 1)."""
        flags, pc = cpu.load(e), cpu.load(e + 1)
        cpu.pc = right(pc)
        _restore(cpu, flags)

    @machine.instruction("JRST 6, E", source=SOURCE, mnemonic="JRST 6")
    def xjen(cpu: Ks10, e: Word) -> None:
        """As JRST 5, and dismiss the interrupt."""
        _check(cpu, 6, e)
        flags, pc = cpu.load(e), cpu.load(e + 1)
        cpu.dismiss()
        cpu.pc = right(pc)
        _restore(cpu, flags)

    @machine.instruction("JRST 7, E", source=SOURCE, mnemonic="JRST 7")
    def xpcw(cpu: Ks10, e: Word) -> None:
        """Flags and PC to E and E + 1, new ones from E + 2 and E + 3."""
        _check(cpu, 7, e)
        flags, pc = cpu.load(e + 2), cpu.load(e + 3)
        cpu.load(e + 1)  # fails before anything is stored
        cpu.store(e, concat(cpu.flags.value, Word(WORD - 13, 0)))
        cpu.store(e + 1, cpu.pc.zero_extend(WORD))
        cpu.pc = right(pc)
        _restore(cpu, flags)

    @machine.instruction("JRST 14, E", source=SOURCE, mnemonic="JRST 14")
    def sfm(cpu: Ks10, e: Word) -> None:
        """C(E) := flags,,0."""
        _check(cpu, 0o14, e)
        cpu.store(e, concat(cpu.flags.value, Word(WORD - 13, 0)))


def _restore(cpu: Ks10, word: Word) -> None:
    """Flags := left half; in user mode User stays set, and User In-out cannot be set."""
    new, user = word[35:23], cpu.flags.user
    user_io = new[6] & (~user | cpu.flags.user_io)
    cpu.flags = new.replace(7, 7, user).replace(6, 6, user_io)
    cpu.enter_user(new[7])


def _execute(machine: Machine[Ks10]) -> None:
    source = f"{MANUAL_KS}, program control and previous context"

    def execute(cpu: Ks10, e: Word) -> None:
        cpu.ir = cpu.load(e)
        cpu.executing = TRUE

    @machine.instruction("XCT E", source=source)
    def xct(cpu: Ks10, e: Word) -> None:
        """The next instruction is C(E), as if it stood here."""
        previous = cpu.context
        execute(cpu, e)
        cpu.pxct = previous

    @machine.instruction("PXCT P, E", source=source)
    def pxct(cpu: Ks10, references: Word, e: Word) -> None:
        """As XCT, with the selected references in the previous context; in user mode as XCT."""
        previous = cpu.context
        execute(cpu, e)
        cpu.pxct = ite(cpu.flags.user, Word(4, 0), previous | references)

    @machine.instruction("MAP AC, E", source=f"{MANUAL_KS}, KS10 paging")
    def map_(cpu: Ks10, ac: Word, e: Word) -> None:
        """AC := what E translates to, or that it does not."""
        if cpu.restricted & ~cpu.map_in_user:
            code = concat(Word(9, OPCODES["MAP"]), ac)
            raise Fault(MUUO, instruction_word(code, e), keeps=True)
        page = e[17:9]
        real = ite(cpu.paging, cpu.base + page.zero_extend(11), page.zero_extend(11))
        there = ~cpu.paging | (page <= cpu.bound)
        user = cpu.flags.user
        # Bit 0 user, 2 valid, 3 writable, 4 cacheable, 8 paged; then the address.
        found = concat(user, Word(3, 3), ~cpu.paging, Word(3, 0), cpu.paging, Word(7, 0), real, e[8:0])
        missing = concat(user, Word(7, 0), Word(1, 1), Word(9, 0), e)
        cpu.ac[ac] = ite(there, found, missing)

    @machine.instruction("LUUO L, AC, E", source=f"{MANUAL_KS}, unimplemented operations")
    def luuo(cpu: Ks10, low: Word, ac: Word, e: Word) -> None:
        """Opcodes 001 to 037: the word to location 40 of the program, and the next instruction is C(41)."""
        cpu.store(Word(ADDRESS, 0o40), instruction_word(concat(Word(4, 0), low, ac), e))
        cpu.ir = cpu.load(Word(ADDRESS, 0o41))
        cpu.executing = TRUE

    @machine.instruction("MUUO U, AC, E", source=f"{MANUAL_KS}, unimplemented operations")
    def muuo(cpu: Ks10, low: Word, ac: Word, e: Word) -> None:
        """Opcodes 040 to 077: trap to the monitor, in both modes."""
        raise Fault(MUUO, instruction_word(concat(Word(4, 1), low, ac), e), keeps=True)

    @machine.instruction("UNASSIGNED N, AC, E", source=f"{MANUAL_KS}, unimplemented operations")
    def unassigned(cpu: Ks10, opcode: Word, ac: Word, e: Word) -> None:
        """Opcodes 000 and those above 077 that the processor has no instruction for: as MUUO."""
        raise Fault(MUUO, instruction_word(concat(Word(2, 0), opcode, ac), e), keeps=True)
