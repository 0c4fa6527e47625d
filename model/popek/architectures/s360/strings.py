"""Storage-to-storage instructions and bytes under mask (GA22-7000, "General Instructions").

Lengths are part of a form: one or two bytes stand for the 256, as the bytes are taken one after the other.
"""

from __future__ import annotations

from typing import TypeVar

from popek.kernel.machine import Machine
from popek.kernel.words import Word, concat, ite

from .arithmetic import combined
from .general import SOURCE, compared
from .operands import declare
from .state import Address, Cpu, Place

C = TypeVar("C", bound=Cpu)


def declare_strings(machine: Machine[C]) -> None:
    """Those of System/360."""
    _combinations(machine)
    _parts(machine)
    _translation(machine)


def declare_masked(machine: Machine[C]) -> None:
    """Those of System/370: bytes under mask, and the inverse move."""
    _masked(machine)

    @declare(machine, "MVCIN D1(2,B1),D2(B2)", source=SOURCE, size=2)
    def move_inverse(cpu: C, first: Address, second: Address, size: int) -> None:
        """The first operand := the second, whose rightmost byte is addressed, from right to left."""
        start = cpu.effective(second) - (size - 1)
        source = cpu.locate(start, size, store=False)
        target = cpu.locate(cpu.effective(first), size, store=True)
        for here, there in zip(target, reversed(source), strict=True):
            cpu.write((here,), cpu.load(there))


def _operands(
    cpu: Cpu, first: Address, second: Address, size: int, other: int | None = None
) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
    """The places of the first operand, which is stored into, and of the second."""
    source = cpu.locate(cpu.effective(second), other or size, store=False)
    return cpu.locate(cpu.effective(first), size, store=True), source


def _combinations(machine: Machine[C]) -> None:
    @declare(machine, "NC D1(2,B1),D2(B2)", source=SOURCE, size=2, kind="N")
    @declare(machine, "OC D1(2,B1),D2(B2)", source=SOURCE, size=2, kind="O")
    @declare(machine, "XC D1(2,B1),D2(B2)", source=SOURCE, size=2, kind="X")
    def combine(cpu: C, first: Address, second: Address, size: int, kind: str) -> None:
        """The first operand := itself and (or, exclusive or) the second, byte by byte from the left."""
        target, source = _operands(cpu, first, second, size)
        results = []
        for here, there in zip(target, source, strict=True):
            results.append(combined(kind, cpu.load(here), cpu.load(there)))
            cpu.write((here,), results[-1])
        cpu.psw.cc = (concat(*results) != 0).zero_extend(2)

    @declare(machine, "XI D1(B1),I2", source=SOURCE)
    def exclusive_or_immediate(cpu: C, first: Address, value: Word) -> None:
        """The byte := the byte exclusive or I2."""
        (place,) = cpu.locate(cpu.effective(first), 1, store=True)
        new = cpu.load(place) ^ value
        cpu.write((place,), new)
        cpu.psw.cc = (new != 0).zero_extend(2)


def _parts(machine: Machine[C]) -> None:
    @declare(machine, "MVN D1(2,B1),D2(B2)", source=SOURCE, size=2, high=3, low=0)
    @declare(machine, "MVZ D1(2,B1),D2(B2)", source=SOURCE, size=2, high=7, low=4)
    def move_half_bytes(cpu: C, first: Address, second: Address, size: int, high: int, low: int) -> None:
        """The right (left) halves of the first operand's bytes := those of the second's."""
        target, source = _operands(cpu, first, second, size)
        for here, there in zip(target, source, strict=True):
            cpu.write((here,), cpu.load(here).replace(high, low, cpu.load(there)[high:low]))

    @declare(machine, "MVO D1(2,B1),D2(2,B2)", source=SOURCE, size=2, other=2)
    def move_with_offset(cpu: C, first: Address, second: Address, size: int, other: int) -> None:
        """The second operand goes to the left of the rightmost four bits of the first, from right to left."""
        target, source = _operands(cpu, first, second, size, other)
        byte = cpu.load(source[1])
        cpu.write((target[1],), concat(byte[3:0], cpu.load(target[1])[3:0]))
        left = cpu.load(source[0])
        cpu.write((target[0],), concat(left[3:0], byte[7:4]))

    @declare(machine, "PACK D1(2,B1),D2(2,B2)", source=SOURCE, size=2, other=2)
    def pack(cpu: C, first: Address, second: Address, size: int, other: int) -> None:
        """Zoned to packed: the rightmost byte's halves change places, of the next the right half is taken."""
        target, source = _operands(cpu, first, second, size, other)
        byte = cpu.load(source[1])
        cpu.write((target[1],), concat(byte[3:0], byte[7:4]))
        cpu.write((target[0],), cpu.load(source[0])[3:0].zero_extend(8))

    @declare(machine, "UNPK D1(2,B1),D2(2,B2)", source=SOURCE, size=2, other=2)
    def unpack(cpu: C, first: Address, second: Address, size: int, other: int) -> None:
        """Packed to zoned: the rightmost byte's halves change places, then digits get a zone (1111, or 0101)."""
        target, source = _operands(cpu, first, second, size, other)
        byte = cpu.load(source[1])
        cpu.write((target[1],), concat(byte[3:0], byte[7:4]))
        cpu.write((target[0],), concat(_zone(cpu), cpu.load(source[0])[3:0]))


def _translation(machine: Machine[C]) -> None:
    @declare(machine, "TR D1(1,B1),D2(B2)", source=SOURCE, size=1)
    def translate(cpu: C, first: Address, second: Address, size: int) -> None:
        """The byte := the byte of the second operand, a table, that it selects."""
        (place,) = cpu.locate(cpu.effective(first), size, store=True)
        (entry,) = cpu.locate(_entry(cpu, second, place), 1, store=False)
        cpu.write((place,), cpu.load(entry))

    @declare(machine, "TRT D1(1,B1),D2(B2)", source=SOURCE, size=1)
    def translate_and_test(cpu: C, first: Address, second: Address, size: int) -> None:
        """Registers 1 and 2 := address and table byte, if that is not zero; the condition code tells."""
        where = cpu.effective(first)
        (place,) = cpu.locate(where, size, store=False)
        (entry,) = cpu.locate(_entry(cpu, second, place), 1, store=False)
        function = cpu.load(entry)
        found = function != 0
        cpu.gr[1] = ite(found, concat(cpu.gr[1][31:24], where), cpu.gr[1])
        cpu.gr[2] = ite(found, concat(cpu.gr[2][31:8], function), cpu.gr[2])
        # The only byte is the last one.
        cpu.psw.cc = ite(found, Word(2, 2), Word(2, 0))


def _entry(cpu: Cpu, table: Address, place: Place) -> Word:
    return cpu.effective(table) + cpu.load(place).zero_extend(24)


def _zone(cpu: Cpu) -> Word:
    return ite(cpu.ascii_codes, Word(4, 5), Word(4, 15))


def _masked(machine: Machine[C]) -> None:
    @declare(machine, "ICM R1,M3,D2(B2)", source=SOURCE)
    def insert_characters(cpu: C, r1: Word, m3: Word, second: Address) -> None:
        """The selected bytes of R1 := consecutive bytes; condition code by them."""
        count = _selected(m3)
        value = cpu.fetch(second, max(count, 1), unit=1)
        if not count:
            cpu.psw.cc = Word(2, 0)
            return
        cpu.gr[r1] = concat(
            *(
                ite(m3[3 - place], _pick(_bytes(value), _before(m3, place)), byte)
                for place, byte in enumerate(_bytes(cpu.gr[r1]))
            )
        )
        low = ite(value[8 * count - 1], Word(2, 1), Word(2, 2))
        cpu.psw.cc = ite(value == 0, Word(2, 0), low)

    @declare(machine, "CLM R1,M3,D2(B2)", source=SOURCE)
    def compare_characters(cpu: C, r1: Word, m3: Word, second: Address) -> None:
        """Condition code := the selected bytes of R1 compared with consecutive bytes."""
        count = _selected(m3)
        value = cpu.fetch(second, max(count, 1), unit=1)
        if not count:
            cpu.psw.cc = Word(2, 0)
            return
        first = _gathered(cpu.gr[r1], m3, count)
        cpu.psw.cc = compared(first < value, first == value)

    @declare(machine, "STCM R1,M3,D2(B2)", source=SOURCE)
    def store_characters(cpu: C, r1: Word, m3: Word, second: Address) -> None:
        """Consecutive bytes := the selected bytes of R1; with none selected, the exceptions of one are the model's."""
        count = _selected(m3)
        if count:
            cpu.store(second, _gathered(cpu.gr[r1], m3, count), unit=1)


def _selected(mask: Word) -> int:
    """How many ones a mask of four bits has; a symbolic one forks."""
    ones = _before(mask, 4)
    return next((count for count in range(1, 5) if ones == count), 0)


def _before(mask: Word, place: int) -> Word:
    """How many of the leftmost bits of a mask are ones (3 bits)."""
    total = Word(3, 0)
    for i in range(place):
        total = total + mask[3 - i].zero_extend(3)
    return total


def _bytes(value: Word) -> list[Word]:
    """The leftmost first."""
    return [value[low + 7 : low] for low in range(value.width - 8, -1, -8)]


def _pick(choices: list[Word], number: Word) -> Word:
    """The choice of this number; the last one for what is beyond."""
    found = choices[-1]
    for i in reversed(range(len(choices) - 1)):
        found = ite(number == i, choices[i], found)
    return found


def _gathered(register: Word, mask: Word, count: int) -> Word:
    """The selected bytes side by side."""
    found = [Word(8, 0)] * count
    for place, byte in enumerate(_bytes(register)):
        rank = _before(mask, place)
        found = [ite(mask[3 - place] & (rank == i), byte, old) for i, old in enumerate(found)]
    return concat(*found)
