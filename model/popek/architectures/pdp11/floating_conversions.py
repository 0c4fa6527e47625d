"""PDP-11/45: FP11's exponents, conversions and MODF (handbook, chapter 7)."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.opaque import opaque
from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from .floating import (
    OVERFLOW,
    SOURCE,
    UNDEFINED,
    UNDERFLOW,
    load_words,
    looked_up,
    note,
    operand,
    put,
    raise_noted,
    set_codes,
    store_words,
)
from .state import Pdp11

CONVERSION = 6
BIAS = 0o200


def add(machine: Machine[Pdp11]) -> None:
    """Declare them."""
    _exponents(machine)
    _integers(machine)
    _precisions(machine)
    _separation(machine)


def _copy_codes(cpu: Pdp11) -> None:
    cpu.ps.value = cpu.ps.value.replace(3, 0, cpu.fps.value[3:0])


def _exponents(machine: Machine[Pdp11]) -> None:
    def load(cpu: Pdp11, dst: Word, exponent: Word) -> None:
        old = operand(cpu, dst)
        made = old.replace(62, 55, (exponent + BIAS)[7:0])
        over = ~exponent[15] & (exponent > 0o177)
        under = exponent[15] & (exponent <= 0o177600)
        fps = cpu.fps
        noted = (over & fps.overflow_enabled) | (under & fps.underflow_enabled)
        result = ite((over | under) & ~noted, Word(64, 0), made)
        put(cpu, dst, result)
        set_codes(cpu, result, over)
        note(cpu, ite(over, Word(4, OVERFLOW), Word(4, UNDERFLOW)), noted)
        raise_noted(cpu, noted)

    @machine.instruction("LDEXP R, AC", source=SOURCE)
    def load_exponent(cpu: Pdp11, src: Word, dst: Word) -> None:
        """The accumulator's exponent := register + 200; what does not fit is an exception or gives 0."""
        load(cpu, dst.zero_extend(3), cpu.register(src))

    @machine.instruction("LDEXP (R), AC", source=SOURCE)
    def load_exponent_from(cpu: Pdp11, src: Word, dst: Word) -> None:
        """The accumulator's exponent := word + 200; what does not fit is an exception or gives 0."""
        load(cpu, dst.zero_extend(3), cpu.load(cpu.register(src)))

    def exponent(cpu: Pdp11, src: Word) -> Word:
        value = cpu.fac[src.zero_extend(3)][62:55].zero_extend(16) - BIAS
        cpu.fps.value = cpu.fps.value.replace(3, 0, concat(value[15], value == 0, FALSE, FALSE))
        _copy_codes(cpu)
        return value

    @machine.instruction("STEXP AC, R", source=SOURCE)
    def store_exponent(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Register := the accumulator's exponent - 200; condition codes of FPS and of the processor by it."""
        cpu.set_register(dst, exponent(cpu, src))

    @machine.instruction("STEXP AC, (R)", source=SOURCE)
    def store_exponent_to(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Word := the accumulator's exponent - 200; condition codes of FPS and of the processor by it."""
        cpu.store(cpu.register(dst), exponent(cpu, src))


@opaque(64, 32, 1)
def _floated(left: Word, long: Word) -> Word:
    """An integer, its bits at the left, as a number of double precision."""
    rest = ite(left[31], -left, left)
    exponent = ite(long, Word(8, BIAS + 32), Word(8, BIAS + 16))
    for places in (16, 8, 4, 2, 1):
        empty = rest[31 : 32 - places] == 0
        rest = ite(empty, rest << places, rest)
        exponent = ite(empty, exponent - places, exponent)
    return ite(left == 0, Word(64, 0), concat(left[31], exponent, rest[30:0], Word(24, 0)))


@opaque(33, 64, 1)
def _integer(value: Word, long: Word) -> Word:
    """Whether a number's integer does not fit, and the integer at the left of 32 bits, 0 if it does not fit."""
    exponent = value[62:55]
    places = ite(long, Word(8, 32), Word(8, 16))
    shift = (places + BIAS - exponent).zero_extend(32)
    size = concat(TRUE, value[54:24]) >> shift
    size = ite(long, size, concat(size[31:16], Word(16, 0)))
    small, large = exponent <= BIAS, exponent > places + BIAS
    limit = ite(value[63], ite(long, Word(32, 0x80000001), Word(32, 0x80010000)), Word(32, 0x80000000))
    wrong = ~small & (large | (size >= limit))
    signed = ite(value[63], -size, size)
    return concat(wrong, ite(small | wrong, Word(32, 0), signed))


def _integers(machine: Machine[Pdp11]) -> None:
    def load(cpu: Pdp11, dst: Word, left: Word) -> None:
        exact = _floated(left, cpu.fps.long)
        whole = cpu.fps.double | cpu.fps.truncates
        result = ite(whole, exact, _rounded(exact)[63:0])  # an integer's exponent has room for a carry
        put(cpu, dst, result)
        set_codes(cpu, ite(cpu.fps.double, result, concat(result[63:32], Word(32, 0))))

    @machine.instruction("LDCIF R, AC", source=SOURCE)
    def load_integer(cpu: Pdp11, src: Word, dst: Word) -> None:
        """The accumulator := an integer; of a long one the register is the left half, the right one 0."""
        load(cpu, dst.zero_extend(3), concat(cpu.register(src), Word(16, 0)))

    @machine.instruction("LDCIF (R), AC", source=SOURCE)
    def load_integer_from(cpu: Pdp11, src: Word, dst: Word) -> None:
        """The accumulator := an integer of one word, or of two."""
        address = cpu.register(src)
        left, right = cpu.load(address), Word(16, 0)
        if cpu.fps.long:
            right = cpu.load(address + 2)
        load(cpu, dst.zero_extend(3), concat(left, right))

    def made(cpu: Pdp11, src: Word) -> tuple[Word, Word]:
        """The integer at the left of 32 bits, and whether an exception has been noted."""
        found = _integer(operand(cpu, src.zero_extend(3)), cpu.fps.long)
        wrong, left = found[32], found[31:0]
        cpu.fps.value = cpu.fps.value.replace(3, 0, concat(left[31], left == 0, FALSE, wrong))
        _copy_codes(cpu)
        noted = wrong & cpu.fps.conversion_enabled
        note(cpu, Word(4, CONVERSION), noted)
        return left, noted

    @machine.instruction("STCFI AC, R", source=SOURCE)
    def store_integer(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Register := the accumulator's integer, of a long one the left half; 0 and C where it does not fit."""
        left, noted = made(cpu, src)
        cpu.set_register(dst, left[31:16])
        raise_noted(cpu, noted)

    @machine.instruction("STCFI AC, (R)", source=SOURCE)
    def store_integer_to(cpu: Pdp11, src: Word, dst: Word) -> None:
        """One word, or two := the accumulator's integer; 0 and C where it does not fit."""
        left, noted = made(cpu, src)
        address = cpu.register(dst)
        cpu.store(address, left[31:16])
        if cpu.fps.long:
            cpu.store(address + 2, left[15:0])
        raise_noted(cpu, noted)


def _rounded(value: Word) -> Word:
    """Whether the exponent overflows, and the number rounded to single precision (65 bits)."""
    result = value + (1 << 31)
    over = result[63] ^ value[63]
    return concat(over, value[63], result[62:0])


def _converted(cpu: Pdp11, value: Word, narrows: Word) -> tuple[Word, Word, Word]:
    """A number in the other precision, 0 if its exponent is; whether it overflows, and whether that has been noted."""
    value = ite(value[62:55] == 0, Word(64, 0), value)
    found = _rounded(value)
    rounds = narrows & ~cpu.fps.truncates
    over = rounds & found[64]
    noted = over & cpu.fps.overflow_enabled
    result = ite(rounds, found[63:0], value)
    result = ite(over & ~noted, Word(64, 0), result)
    note(cpu, Word(4, OVERFLOW), noted)
    return result, over, noted


def _precisions(machine: Machine[Pdp11]) -> None:
    def load(cpu: Pdp11, dst: Word, value: Word) -> None:
        result, over, noted = _converted(cpu, value, ~cpu.fps.double)
        put(cpu, dst, result)
        set_codes(cpu, result, over)
        raise_noted(cpu, noted)

    @machine.instruction("LDCDF FS, AC", source=SOURCE)
    def load_register(cpu: Pdp11, src: Word, dst: Word) -> None:
        """The accumulator := another one, which is of the other precision."""
        value = cpu.fac[src]
        load(cpu, dst.zero_extend(3), ite(cpu.fps.double, concat(value[63:32], Word(32, 0)), value))

    @machine.instruction("LDCDF (R), AC", source=SOURCE)
    def load_from(cpu: Pdp11, src: Word, dst: Word) -> None:
        """The accumulator := a number of the other precision; -0 is undefined and may trap."""
        value = load_words(cpu, cpu.register(src), ~cpu.fps.double)
        if value[63] & (value[62:55] == 0) & cpu.fps.undefined_enabled:
            note(cpu, Word(4, UNDEFINED), TRUE)
            raise_noted(cpu, TRUE)
            return
        load(cpu, dst.zero_extend(3), value)

    @machine.instruction("STCFD AC, FS", source=SOURCE)
    def store_register(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Another accumulator := the accumulator, in the other precision."""
        result, over, noted = _converted(cpu, operand(cpu, src.zero_extend(3)), cpu.fps.double)
        old = cpu.fac[dst]
        cpu.fac[dst] = ite(cpu.fps.double, concat(result[63:32], old[31:0]), result)
        set_codes(cpu, result, over)
        raise_noted(cpu, noted)

    @machine.instruction("STCFD AC, (R)", source=SOURCE)
    def store_to(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Storage := the accumulator, in the other precision."""
        result, over, noted = _converted(cpu, operand(cpu, src.zero_extend(3)), cpu.fps.double)
        store_words(cpu, cpu.register(dst), result, ~cpu.fps.double)
        set_codes(cpu, result, over)
        raise_noted(cpu, noted)


def _separation(machine: Machine[Pdp11]) -> None:
    @machine.instruction("MODF FS, AC", source=SOURCE)
    def multiply_and_integerize(cpu: Pdp11, src: Word, dst: Word) -> None:
        """The accumulator := the product's fraction, the next odd one := its integer; as the table says."""
        target = dst.zero_extend(3)
        operands = operand(cpu, target), operand(cpu, src)
        fraction, integer = looked_up(cpu, 5, *operands), looked_up(cpu, 6, *operands)
        put(cpu, target | 1, integer[63:0])
        put(cpu, target, fraction[63:0])
        cpu.fps.value = cpu.fps.value.replace(3, 0, fraction[67:64])
        code = fraction[71:68]
        over = (code == OVERFLOW) & cpu.fps.overflow_enabled
        wrong = over | ((code == UNDERFLOW) & cpu.fps.underflow_enabled)
        note(cpu, code, wrong)
        raise_noted(cpu, wrong)


__all__ = ["add"]
