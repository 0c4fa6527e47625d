"""KA10: JRST, XCT and the unimplemented operations (manual, program control and time sharing).

The accumulator field of JRST is four bits that each ask for something: 10 dismiss the interrupt, 4 halt,
2 restore the flags from the left half of the word that gave the address, 1 enter user mode.
"""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, TRUE, Word, concat

from .encoding import JRST
from .ka10_state import Ka10
from .state import ADDRESS, MANUAL_KA, MUUO, instruction_word, right

EXISTING = 0o17603  # Overflow to User In-out, Floating Underflow, No Divide
MODES = 0o00300  # User, User In-out


def add(machine: Machine[Ka10]) -> None:
    """Declare them."""
    _jrst(machine)
    _execute(machine)


def _jrst(machine: Machine[Ka10]) -> None:
    source = f"{MANUAL_KA}, program control, JRST"

    def jump(cpu: Ka10, function: int, target: Word, word: Word | None) -> None:
        if function & 0o14 and cpu.restricted:
            code = Word(13, JRST << 4 | function)
            raise Fault(MUUO, instruction_word(code, target), keeps=True)
        if function & 0o10:
            cpu.dismiss()
        if function & 4:
            cpu.running = FALSE
        cpu.pc = target
        if word is not None:
            _restore(cpu, word)
        if function & 1:
            cpu.enter_user(TRUE)

    def plain(cpu: Ka10, target: Word, function: int) -> None:
        """PC := E, and what the function's bits ask for."""
        jump(cpu, function, target, None)

    def restoring(cpu: Ka10, index: Word, function: int) -> None:
        """PC := right half of the index register, flags := its left half, and what the other bits ask for.

        In user mode User cannot be cleared, nor User In-out set; nothing tells.
        """
        word = cpu.ac[index]
        jump(cpu, function, right(word), word)

    for function in range(16):
        name = f"JRST {function:o}" if function else "JRST"
        form = f"{name}, (X)" if function & 2 else f"{name}, E" if function else "JRST E"
        semantics = restoring if function & 2 else plain
        machine.instruction(form, source=source, mnemonic=name, function=function)(semantics)


def _restore(cpu: Ka10, word: Word) -> None:
    """Flags := left half of a PC word, as far as the mode allows."""
    new, user = word[35:23], cpu.flags.user
    user_io = new[6] & (~user | cpu.flags.user_io)
    old_modes = cpu.flags.value & MODES
    cpu.flags = new & (EXISTING ^ MODES) | old_modes
    cpu.flags.user_io = user_io
    cpu.enter_user(new[7])


def _execute(machine: Machine[Ka10]) -> None:
    @machine.instruction("XCT E", source=f"{MANUAL_KA}, program control, XCT")
    def xct(cpu: Ka10, e: Word) -> None:
        """The next instruction is C(E), as if it stood here."""
        cpu.ir = cpu.load(e)
        cpu.executing = TRUE

    @machine.instruction("LUUO L, AC, E", source=f"{MANUAL_KA}, unimplemented operations")
    def luuo(cpu: Ka10, low: Word, ac: Word, e: Word) -> None:
        """Opcodes 001 to 037: the word to location 40 of the program, and the next instruction is C(41)."""
        cpu.store(Word(ADDRESS, 0o40), instruction_word(concat(Word(4, 0), low, ac), e))
        cpu.ir = cpu.load(Word(ADDRESS, 0o41))
        cpu.executing = TRUE

    @machine.instruction("MUUO U, AC, E", source=f"{MANUAL_KA}, unimplemented operations")
    def muuo(cpu: Ka10, low: Word, ac: Word, e: Word) -> None:
        """Opcodes 040 to 077: trap to the monitor, in both modes."""
        raise Fault(MUUO, instruction_word(concat(Word(4, 1), low, ac), e), keeps=True)
