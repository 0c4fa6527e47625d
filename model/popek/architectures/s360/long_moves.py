"""MVCL and CLCL, and EXECUTE (GA22-7000, "General Instructions").

MVCL and CLCL are interruptible: they proceed in units of operation, of a size that the manual leaves to
the model, after each of which the PSW may point to the instruction itself, for it to go on.  Here a step is a
unit of one byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from popek.kernel.machine import Machine
from popek.kernel.words import Word, concat, ite

from . import interruptions as program
from .arithmetic import even
from .general import SOURCE, compared
from .operands import declare
from .state import ADDRESS, Address, Cpu

if TYPE_CHECKING:
    from .s370_state import S370

C = TypeVar("C", bound=Cpu)


def declare_long(machine: Machine[S370]) -> None:
    """MVCL and CLCL."""

    @declare(machine, "MVCL R1,R2", source=SOURCE)
    def move_long(cpu: S370, r1: Word, r2: Word) -> None:
        """One more byte of the first operand := one of the second, or the padding byte.

        Where the first operand's place would be read after it was written, nothing is moved.
        """
        even(r1)
        even(r2)
        to, source = cpu.gr[r1].truncate(ADDRESS), cpu.gr[r2].truncate(ADDRESS)
        room, left = cpu.gr[r1 + 1].truncate(ADDRESS), cpu.gr[r2 + 1].truncate(ADDRESS)
        padding = cpu.gr[r2 + 1][31:24]
        moved = ite(left < room, left, room)
        distance = to - source
        destructive = (distance != 0) & (distance < moved)
        cc = ite(destructive, Word(2, 3), compared(room < left, room == left))
        if (room != 0) & ~destructive:
            pads = left == 0
            byte = padding
            if ~pads:
                (there,) = cpu.locate(source, 1, store=False)
                byte = cpu.load(there)
            (here,) = cpu.locate(to, 1, store=True)
            cpu.write((here,), byte)
            to, room = to + 1, room - 1
            step = (~pads).zero_extend(ADDRESS)
            source, left = source + step, left - step
            if room != 0:
                cc = _again(cpu)
        cpu.psw.cc = cc
        _advance(cpu, r1, r2, to, room, source, left)

    @declare(machine, "CLCL R1,R2", source=SOURCE)
    def compare_long(cpu: S370, r1: Word, r2: Word) -> None:
        """One more byte of either operand is compared, the shorter one padded, until two differ."""
        even(r1)
        even(r2)
        first, second = cpu.gr[r1].truncate(ADDRESS), cpu.gr[r2].truncate(ADDRESS)
        left, right = cpu.gr[r1 + 1].truncate(ADDRESS), cpu.gr[r2 + 1].truncate(ADDRESS)
        padding = cpu.gr[r2 + 1][31:24]
        cc = Word(2, 0)
        if (left | right) != 0:
            one = other = padding
            if left != 0:
                one = cpu.load(cpu.locate(first, 1, store=False)[0])
            if right != 0:
                other = cpu.load(cpu.locate(second, 1, store=False)[0])
            if one == other:
                forth, back = (left != 0).zero_extend(ADDRESS), (right != 0).zero_extend(ADDRESS)
                first, left, second, right = first + forth, left - forth, second + back, right - back
                if (left | right) != 0:
                    cc = _again(cpu)
            else:
                cc = ite(one < other, Word(2, 1), Word(2, 2))
        cpu.psw.cc = cc
        _advance(cpu, r1, r2, first, left, second, right)


def _again(cpu: Cpu) -> Word:
    """The PSW points to the instruction, which is to go on (to the EXECUTE that it is the target of).

    The manual leaves the condition code open until the instruction has ended: it is what it was.
    """
    cpu.psw.address = cpu.psw.address - cpu.ilc.zero_extend(ADDRESS) * 2
    return cpu.psw.cc


def _advance(cpu: Cpu, r1: Word, r2: Word, to: Word, room: Word, source: Word, left: Word) -> None:
    """Addresses and counts; bits 0-7 of the address registers become zeros, those of the others stay."""
    lengths = cpu.gr[r1 + 1][31:24], cpu.gr[r2 + 1][31:24]
    cpu.gr[r1], cpu.gr[r2] = to.zero_extend(32), source.zero_extend(32)
    cpu.gr[r1 + 1], cpu.gr[r2 + 1] = concat(lengths[0], room), concat(lengths[1], left)


def declare_execute(machine: Machine[C]) -> None:
    """EXECUTE."""

    @declare(machine, "EX R1,D2(X2,B2)", source=SOURCE)
    def execute(cpu: C, r1: Word, second: Address) -> None:
        """The next instruction is the one at the address, its second byte ORed with R1's last.

        That one is the next step; instruction address and length stay EXECUTE's.
        """
        address = cpu.effective(second)
        if address[0]:
            raise program.exception(program.SPECIFICATION)
        first = cpu.read(cpu.locate(address, 2, store=False, unit=2))
        # The length of an instruction is in its first two bits: 00 one halfword, 11 three.
        rest = Word(32, 0)
        if first[15:14] != 0:
            second_halfword = cpu.read(cpu.locate(address + 2, 2, store=False, unit=2))
            third = Word(16, 0)
            if first[15:14] == 3:
                third = cpu.read(cpu.locate(address + 4, 2, store=False, unit=2))
            rest = concat(second_halfword, third)
        if first[15:8] == 0x44:
            raise program.exception(program.EXECUTE)
        modifier = ite(r1 == 0, Word(8, 0), cpu.gr[r1][7:0])
        cpu.target = concat(first[15:8], first[7:0] | modifier, rest)
        cpu.executing = Word(1, 1)
