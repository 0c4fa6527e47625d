"""PDP-10 instructions that work with data, jump and call.

One of each kind.  The effective address is an operand: its calculation is the same for all.
"""

from __future__ import annotations

from typing import TypeVar

from popek.kernel.machine import Machine
from popek.kernel.words import FALSE, Word, ite

from .state import WORD, Pdp10, halves, left, right

P = TypeVar("P", bound=Pdp10)

MINUS_ONE = (1 << WORD) - 1


def add(machine: Machine[P], manual: str) -> None:
    """Declare them; `manual` is the document they are described in."""
    _moves(machine, manual)
    _arithmetic(machine, manual)
    _tests(machine, manual)
    _stack(machine, manual)
    _calls(machine, manual)


def add_with_flags(cpu: Pdp10, a: Word, b: Word, carry: int = 0) -> Word:
    """a + b + carry, with the flags Carry 0, Carry 1 and Overflow."""
    wide = a.zero_extend(37) + b.zero_extend(37) + carry
    low = a[34:0].zero_extend(36) + b[34:0].zero_extend(36) + carry
    cpu.flags.carry_0 = cpu.flags.carry_0 | wide[36]
    cpu.flags.carry_1 = cpu.flags.carry_1 | low[35]
    cpu.arithmetic_overflow(wide[36] ^ low[35])
    return wide[35:0]


def _moves(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, full word data transmission"

    @machine.instruction("MOVE AC, E", source=source)
    def move(cpu: P, ac: Word, e: Word) -> None:
        """AC := C(E)."""
        cpu.ac[ac] = cpu.load(e)

    @machine.instruction("MOVEI AC, E", source=source)
    def movei(cpu: P, ac: Word, e: Word) -> None:
        """AC := 0,,E."""
        cpu.ac[ac] = e.zero_extend(WORD)

    @machine.instruction("MOVEM AC, E", source=source)
    def movem(cpu: P, ac: Word, e: Word) -> None:
        """C(E) := AC."""
        cpu.store(e, cpu.ac[ac])

    @machine.instruction("EXCH AC, E", source=source)
    def exch(cpu: P, ac: Word, e: Word) -> None:
        """AC and C(E) change places."""
        value, mine = cpu.load(e), cpu.ac[ac]
        cpu.store(e, mine)
        cpu.ac[ac] = value

    @machine.instruction("HRRZ AC, E", source=f"{manual}, half word data transmission")
    def hrrz(cpu: P, ac: Word, e: Word) -> None:
        """AC := 0,,right half of C(E)."""
        cpu.ac[ac] = right(cpu.load(e)).zero_extend(WORD)

    @machine.instruction("SETZM E", source=f"{manual}, logic")
    def setzm(cpu: P, e: Word) -> None:
        """C(E) := 0."""
        cpu.store(e, Word(WORD, 0))

    @machine.instruction("AND AC, E", source=f"{manual}, logic")
    def and_(cpu: P, ac: Word, e: Word) -> None:
        """AC := AC and C(E)."""
        cpu.ac[ac] = cpu.ac[ac] & cpu.load(e)


def _arithmetic(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, fixed point arithmetic"

    @machine.instruction("ADD AC, E", source=source)
    def add_(cpu: P, ac: Word, e: Word) -> None:
        """AC := AC + C(E)."""
        value = cpu.load(e)
        cpu.ac[ac] = add_with_flags(cpu, cpu.ac[ac], value)

    @machine.instruction("SUB AC, E", source=source)
    def sub(cpu: P, ac: Word, e: Word) -> None:
        """AC := AC - C(E)."""
        value = cpu.load(e)
        cpu.ac[ac] = add_with_flags(cpu, cpu.ac[ac], ~value, 1)

    @machine.instruction("AOJ AC, E", source=f"{manual}, arithmetic testing", jumps=False)
    @machine.instruction("AOJN AC, E", source=f"{manual}, arithmetic testing", jumps=True)
    def aoj(cpu: P, ac: Word, e: Word, jumps: bool) -> None:
        """AC := AC + 1; AOJN jumps if the result is not zero."""
        result = add_with_flags(cpu, cpu.ac[ac], Word(WORD, 1))
        cpu.ac[ac] = result
        if jumps:
            cpu.pc = ite(result != 0, e, cpu.pc)

    @machine.instruction("SOJG AC, E", source=f"{manual}, arithmetic testing")
    def sojg(cpu: P, ac: Word, e: Word) -> None:
        """AC := AC - 1, and jump if the result is above zero."""
        result = add_with_flags(cpu, cpu.ac[ac], Word(WORD, MINUS_ONE))
        cpu.ac[ac] = result
        cpu.pc = ite(~result[35] & (result != 0), e, cpu.pc)

    @machine.instruction("AOS AC, E", source=f"{manual}, arithmetic testing")
    def aos(cpu: P, ac: Word, e: Word) -> None:
        """C(E) := C(E) + 1, also to AC unless that is 0."""
        value = cpu.load(e)
        before = cpu.flags.value
        result = add_with_flags(cpu, value, Word(WORD, 1))
        after = cpu.flags.value
        cpu.flags = before
        cpu.store(e, result)
        cpu.flags = after
        cpu.ac[ac] = ite(ac == 0, cpu.ac[ac], result)


def _tests(machine: Machine[P], manual: str) -> None:
    @machine.instruction("CAIE AC, E", source=f"{manual}, arithmetic testing")
    def caie(cpu: P, ac: Word, e: Word) -> None:
        """Skip if AC = 0,,E."""
        cpu.pc = ite(cpu.ac[ac] == e.zero_extend(WORD), cpu.pc + 1, cpu.pc)

    @machine.instruction("JUMPE AC, E", source=f"{manual}, arithmetic testing")
    def jumpe(cpu: P, ac: Word, e: Word) -> None:
        """Jump if AC = 0."""
        cpu.pc = ite(cpu.ac[ac] == 0, e, cpu.pc)

    @machine.instruction("SKIPE AC, E", source=f"{manual}, arithmetic testing")
    def skipe(cpu: P, ac: Word, e: Word) -> None:
        """Skip if C(E) = 0; C(E) also to AC unless that is 0."""
        value = cpu.load(e)
        cpu.ac[ac] = ite(ac == 0, cpu.ac[ac], value)
        cpu.pc = ite(value == 0, cpu.pc + 1, cpu.pc)

    @machine.instruction("TLNE AC, E", source=f"{manual}, logical testing and modification")
    def tlne(cpu: P, ac: Word, e: Word) -> None:
        """Skip if the bits of AC left that E selects are all 0."""
        cpu.pc = ite((left(cpu.ac[ac]) & e) == 0, cpu.pc + 1, cpu.pc)

    @machine.instruction("JFCL F, E", source=f"{manual}, program control")
    def jfcl(cpu: P, selected: Word, e: Word) -> None:
        """Jump if a selected one of Overflow, Carry 0, Carry 1, Floating Overflow is set; clear them."""
        flags = cpu.flags.value
        cpu.pc = ite((flags[12:9] & selected) != 0, e, cpu.pc)
        cpu.flags = flags.replace(12, 9, flags[12:9] & ~selected)


def _stack(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, pushdown lists"

    @machine.instruction("PUSH AC, E", source=source)
    def push(cpu: P, ac: Word, e: Word) -> None:
        """Count AC up; the place it points to := C(E)."""
        value = cpu.load(e)
        pointer, over = cpu.count_up(cpu.ac[ac])
        cpu.store_stack(right(pointer), value)
        cpu.ac[ac] = pointer
        cpu.stack_overflow(over)

    @machine.instruction("POP AC, E", source=source)
    def pop(cpu: P, ac: Word, e: Word) -> None:
        """C(E) := the place AC points to; count AC down."""
        value = cpu.load_stack(right(cpu.ac[ac]))
        cpu.store(e, value)
        pointer, over = cpu.count_down(cpu.ac[ac])
        cpu.ac[ac] = pointer
        cpu.stack_overflow(over)

    @machine.instruction("POPJ AC, E", source=source)
    def popj(cpu: P, ac: Word, e: Word) -> None:
        """PC := right half of the place AC points to; count AC down.  The flags stay."""
        value = cpu.load_stack(right(cpu.ac[ac]))
        pointer, over = cpu.count_down(cpu.ac[ac])
        cpu.pc = right(value)
        cpu.ac[ac] = pointer
        cpu.stack_overflow(over)

    @machine.instruction("PUSHJ AC, E", source=source)
    def pushj(cpu: P, ac: Word, e: Word) -> None:
        """Push the PC word, User flag and all; PC := E."""
        pointer, over = cpu.count_up(cpu.ac[ac])
        cpu.store_stack(right(pointer), cpu.pc_word)
        cpu.ac[ac] = pointer
        _leave_sequence(cpu)
        cpu.pc = e
        cpu.stack_overflow(over)


def _leave_sequence(cpu: Pdp10) -> None:
    """The flags that belong to an interrupted instruction end with a call."""
    cpu.flags.first_part_done = FALSE
    cpu.flags.address_failure_inhibit = FALSE
    cpu.flags.trap_1 = cpu.flags.trap_2 = FALSE


def _calls(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, program control"

    @machine.instruction("JSR E", source=source)
    def jsr(cpu: P, e: Word) -> None:
        """C(E) := PC word, User flag and all; PC := E + 1."""
        cpu.store(e, cpu.pc_word)
        _leave_sequence(cpu)
        cpu.pc = e + 1

    @machine.instruction("JSP AC, E", source=source)
    def jsp(cpu: P, ac: Word, e: Word) -> None:
        """AC := PC word, User flag and all; PC := E."""
        cpu.ac[ac] = cpu.pc_word
        _leave_sequence(cpu)
        cpu.pc = e

    @machine.instruction("JSA AC, E", source=source)
    def jsa(cpu: P, ac: Word, e: Word) -> None:
        """C(E) := AC; AC := E,,PC; PC := E + 1.  No flags are stored."""
        cpu.store(e, cpu.ac[ac])
        cpu.ac[ac] = halves(e, cpu.pc)
        cpu.pc = e + 1

    @machine.instruction("JRA AC, E", source=source)
    def jra(cpu: P, ac: Word, e: Word) -> None:
        """AC := C(left half of AC); PC := E."""
        cpu.ac[ac] = cpu.load(left(cpu.ac[ac]))
        cpu.pc = e
