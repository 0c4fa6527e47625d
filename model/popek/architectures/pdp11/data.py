"""PDP-11/45 instructions that work on words and bytes (handbook, chapter 4): the rest of those of `innocuous`.

Each has a form for a register and one for storage that a register points to; `MOV` has one for each mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from .state import HANDBOOK, Pdp11

Unary = Callable[[Pdp11, Word], Word]
Binary = Callable[[Pdp11, Word, Word], Word]


def add(machine: Machine[Pdp11]) -> None:
    """Declare them."""
    _single(machine)
    _double(machine)
    _byte_moves(machine)
    _extended(machine)


def _vc(cpu: Pdp11, v: Word, c: Word) -> None:
    cpu.ps.v, cpu.ps.c = v, c


def _highest(width: int) -> int:
    return 1 << width - 1


# -- what is done with the operands, for words (16 bits) and bytes (8) alike ----------------------


def _com(cpu: Pdp11, dst: Word) -> Word:
    _vc(cpu, FALSE, TRUE)
    return ~dst


def _inc(cpu: Pdp11, dst: Word) -> Word:
    cpu.ps.v = dst == _highest(dst.width) - 1
    return dst + 1


def _dec(cpu: Pdp11, dst: Word) -> Word:
    cpu.ps.v = dst == _highest(dst.width)
    return dst - 1


def _neg(cpu: Pdp11, dst: Word) -> Word:
    _vc(cpu, dst == _highest(dst.width), dst != 0)
    return -dst


def _adc(cpu: Pdp11, dst: Word) -> Word:
    carry, most = cpu.ps.c, _highest(dst.width) - 1
    _vc(cpu, carry & (dst == most), carry & (~dst == 0))
    return dst + carry.zero_extend(dst.width)


def _sbc(cpu: Pdp11, dst: Word) -> Word:
    borrow = cpu.ps.c
    _vc(cpu, borrow & (dst == _highest(dst.width)), borrow & (dst == 0))
    return dst - borrow.zero_extend(dst.width)


def _clr(cpu: Pdp11, dst: Word) -> Word:
    _vc(cpu, FALSE, FALSE)
    return Word(dst.width, 0)


def _shift(result: Callable[[Word, Word], Word], *, left: bool) -> Unary:
    """A shift or rotation by one place; V is N exclusive or C."""

    def shift(cpu: Pdp11, dst: Word) -> Word:
        shifted = result(dst, cpu.ps.c)
        out, top = dst[dst.width - 1 if left else 0], shifted[dst.width - 1]
        _vc(cpu, top ^ out, out)
        return shifted

    return shift


_asr: Final = _shift(lambda dst, carry: dst.arithmetic_shift_right(1), left=False)
_asl: Final = _shift(lambda dst, carry: dst << 1, left=True)
_ror: Final = _shift(lambda dst, carry: concat(carry, dst[dst.width - 1 : 1]), left=False)
_rol: Final = _shift(lambda dst, carry: concat(dst[dst.width - 2 : 0], carry), left=True)

# Mnemonic of the word instruction: what it does.  All but these have a byte instruction, with a B.
SINGLE: Final[dict[str, Unary]] = {
    "COM": _com, "INC": _inc, "DEC": _dec, "NEG": _neg, "ADC": _adc, "SBC": _sbc, "ASR": _asr, "ASL": _asl,
    "ROR": _ror, "ROL": _rol, "CLR": _clr,
}  # fmt: skip


def _cmp(cpu: Pdp11, src: Word, dst: Word) -> Word:
    result, top = src - dst, src.width - 1
    _vc(cpu, (src[top] ^ dst[top]) & ~(dst[top] ^ result[top]), src < dst)
    return result


def _logical(operation: Callable[[Word, Word], Word]) -> Binary:
    """V is cleared, C is kept."""

    def combine(cpu: Pdp11, src: Word, dst: Word) -> Word:
        cpu.ps.v = FALSE
        return operation(src, dst)

    return combine


# Mnemonic: what it does, and whether the result goes to the destination.
DOUBLE: Final[dict[str, tuple[Binary, bool]]] = {
    "CMP": (_cmp, False),
    "BIT": (_logical(lambda src, dst: src & dst), False),
    "BIC": (_logical(lambda src, dst: ~src & dst), True),
    "BIS": (_logical(lambda src, dst: src | dst), True),
}


# -- forms ----------------------------------------------------------------------------------------


def _register(cpu: Pdp11, number: Word, *, byte: bool) -> Word:
    value = cpu.register(number)
    return value[7:0] if byte else value


def _set_register(cpu: Pdp11, number: Word, value: Word) -> None:
    """A byte goes to the low half, and the high half stays."""
    cpu.set_register(number, value if value.width == 16 else cpu.register(number).replace(7, 0, value))


def _single(machine: Machine[Pdp11]) -> None:
    def register(cpu: Pdp11, dst: Word, operation: Unary, byte: bool, keeps: bool) -> None:
        """The register := what the mnemonic makes of it; condition codes."""
        result = operation(cpu, _register(cpu, dst, byte=byte))
        cpu.set_nz(result)
        if not keeps:
            _set_register(cpu, dst, result)

    def storage(cpu: Pdp11, dst: Word, operation: Unary, byte: bool, keeps: bool) -> None:
        """The word or byte in storage := what the mnemonic makes of it; condition codes."""
        address = cpu.register(dst)
        result = operation(cpu, cpu.load_sized(address, byte=byte, write=not keeps))
        cpu.set_nz(result)
        if not keeps:
            cpu.store_sized(address, result)

    def clear(cpu: Pdp11, dst: Word, operation: Unary, byte: bool, keeps: bool) -> None:
        """The word or byte in storage := 0; condition codes, which a storage fault finds set."""
        zero = Word(8 if byte else 16, 0)
        cpu.set_nz(operation(cpu, zero))
        cpu.store_sized(cpu.register(dst), zero)

    def declare(mnemonic: str, operation: Unary, byte: bool, keeps: bool = False) -> None:
        source = f"{HANDBOOK}, chapter 4, {mnemonic}"
        in_storage = clear if operation is _clr else storage
        for form, semantics in ((f"{mnemonic} R", register), (f"{mnemonic} (R)", in_storage)):
            if form not in machine.instructions:
                machine.instruction(form, source=source, operation=operation, byte=byte, keeps=keeps)(
                    semantics
                )

    for mnemonic, operation in SINGLE.items():
        declare(mnemonic, operation, False)
        declare(f"{mnemonic}B", operation, True)

    def tested(cpu: Pdp11, dst: Word) -> Word:
        _vc(cpu, FALSE, FALSE)
        return dst

    declare("TSTB", tested, True, keeps=True)

    def swapped(cpu: Pdp11, dst: Word) -> Word:
        return concat(dst[7:0], dst[15:8])

    def set_by_low_byte(cpu: Pdp11, result: Word) -> None:
        cpu.set_nz(result[7:0])
        _vc(cpu, FALSE, FALSE)

    @machine.instruction("SWAB R", source=f"{HANDBOOK}, chapter 4, SWAB")
    def swab_register(cpu: Pdp11, dst: Word) -> None:
        """The bytes change places; condition codes by the new low byte."""
        cpu.set_register(dst, swapped(cpu, cpu.register(dst)))
        set_by_low_byte(cpu, cpu.register(dst))

    @machine.instruction("SWAB (R)", source=f"{HANDBOOK}, chapter 4, SWAB")
    def swab_storage(cpu: Pdp11, dst: Word) -> None:
        """The bytes of the word in storage change places; condition codes by the new low byte."""
        address = cpu.register(dst)
        result = swapped(cpu, cpu.load_sized(address, byte=False, write=True))
        set_by_low_byte(cpu, result)
        cpu.store_sized(address, result)

    @machine.instruction("SXT (R)", source=f"{HANDBOOK}, chapter 4, SXT")
    def sxt_storage(cpu: Pdp11, dst: Word) -> None:
        """The word in storage := all copies of N."""
        cpu.ps.z, cpu.ps.v = ~cpu.ps.n, FALSE
        cpu.store(cpu.register(dst), ite(cpu.ps.n, Word(16, 0o177777), Word(16, 0)))


def _double(machine: Machine[Pdp11]) -> None:
    def registers(cpu: Pdp11, src: Word, dst: Word, operation: Binary, byte: bool, writes: bool) -> None:
        """Register and register."""
        result = operation(cpu, _register(cpu, src, byte=byte), _register(cpu, dst, byte=byte))
        cpu.set_nz(result)
        if writes:
            _set_register(cpu, dst, result)

    def from_storage(cpu: Pdp11, src: Word, dst: Word, operation: Binary, byte: bool, writes: bool) -> None:
        """Storage and register."""
        value = cpu.load_sized(cpu.register(src), byte=byte, write=False)
        result = operation(cpu, value, _register(cpu, dst, byte=byte))
        cpu.set_nz(result)
        if writes:
            _set_register(cpu, dst, result)

    def to_storage(cpu: Pdp11, src: Word, dst: Word, operation: Binary, byte: bool, writes: bool) -> None:
        """Register and storage."""
        value, address = _register(cpu, src, byte=byte), cpu.register(dst)
        result = operation(cpu, value, cpu.load_sized(address, byte=byte, write=writes))
        cpu.set_nz(result)
        if writes:
            cpu.store_sized(address, result)

    for mnemonic, (operation, writes) in DOUBLE.items():
        for name, byte in ((mnemonic, False), (f"{mnemonic}B", True)):
            for modes, semantics in (("R, R", registers), ("(R), R", from_storage), ("R, (R)", to_storage)):
                machine.instruction(
                    f"{name} {modes}",
                    source=f"{HANDBOOK}, chapter 4, {name}",
                    operation=operation,
                    byte=byte,
                    writes=writes,
                )(semantics)
    xor = _logical(lambda src, dst: src ^ dst)
    declare = machine.instruction
    for modes, semantics in (("R, R", registers), ("R, (R)", to_storage)):
        declare(f"XOR {modes}", source=f"{HANDBOOK}, chapter 4, XOR", operation=xor, byte=False, writes=True)(
            semantics
        )


def _byte_moves(machine: Machine[Pdp11]) -> None:
    source = f"{HANDBOOK}, chapter 4, MOVB"

    def moved(cpu: Pdp11, value: Word) -> Word:
        cpu.set_nz(value)
        cpu.ps.v = FALSE
        return value

    @machine.instruction("MOVB R, R", source=source)
    def movb_r_r(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Low byte of a register to a register, with its sign."""
        cpu.set_register(dst, moved(cpu, cpu.register(src)[7:0]).sign_extend(16))

    @machine.instruction("MOVB (R), R", source=source)
    def movb_m_r(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Byte in storage to a register, with its sign."""
        value = cpu.load_sized(cpu.register(src), byte=True, write=False)
        cpu.set_register(dst, moved(cpu, value).sign_extend(16))

    @machine.instruction("MOVB (R)+, R", source=source)
    def movb_increment_r(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Byte in storage to a register, autoincrement by one."""
        address = cpu.register(src)
        cpu.set_register(src, address + 1)
        cpu.set_register(dst, moved(cpu, cpu.load_sized(address, byte=True, write=False)).sign_extend(16))

    @machine.instruction("MOVB R, (R)", source=source)
    def movb_r_m(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Low byte of a register to a byte in storage."""
        cpu.store_sized(cpu.register(dst), moved(cpu, cpu.register(src)[7:0]))


# -- multiplication, division, shifts by more than one place (the extended instruction set) --------


def _extended(machine: Machine[Pdp11]) -> None:
    def forms(
        mnemonic: str, register: str
    ) -> Callable[[Callable[[Pdp11, Word, Word], None]], Callable[[Pdp11, Word, Word], None]]:
        """The source in a register, handed to the semantics as a value.

        That products of equal words, found in storage in different ways, are equal takes a solver too long.
        """

        def declare(semantics: Callable[[Pdp11, Word, Word], None]) -> Callable[[Pdp11, Word, Word], None]:
            def from_register(cpu: Pdp11, src: Word, dst: Word) -> None:
                semantics(cpu, cpu.register(src), dst)

            from_register.__doc__ = semantics.__doc__
            source = f"{HANDBOOK}, chapter 4, {mnemonic}"
            machine.instruction(f"{mnemonic} R, {register}", source=source)(from_register)
            return semantics

        return declare

    def pair(cpu: Pdp11, number: Word) -> Word:
        return concat(cpu.register(number), cpu.register(number | 1))

    def set_pair(cpu: Pdp11, number: Word, value: Word) -> None:
        cpu.set_register(number, value[31:16])
        cpu.set_register(number | 1, value[15:0])

    @forms("MUL", "Rn")
    def mul(cpu: Pdp11, src: Word, number: Word) -> None:
        """Register and the next odd one := register times source."""
        result = cpu.register(number).sign_extend(32) * src.sign_extend(32)
        set_pair(cpu, number, result)
        cpu.set_nz(result)
        _vc(cpu, FALSE, result[15:0].sign_extend(32) != result)

    @forms("DIV", "Re")
    def div(cpu: Pdp11, src: Word, number: Word) -> None:
        """Register := quotient, the next := remainder of the pair by the source; V where it does not fit."""
        dividend = pair(cpu, number)
        negative = dividend[31] ^ src[15]
        above = ite(dividend[31], -dividend, dividend).zero_extend(33)
        below = ite(src[15], -src, src).zero_extend(33)
        # |quotient| at most 077777, or 100000 where it is negative.
        too_large = above >= (below << 15) + ite(negative, below, Word(33, 0))
        quotient, remainder = (above // below)[31:0], (above % below)[15:0]
        by_zero, odd_one = src == 0, (dividend == 1 << 31) & (src == 0o177777)
        result = ite(negative, -quotient, quotient)
        fits = ~too_large
        cpu.ps.n = ite(by_zero | odd_one, FALSE, result[31])
        cpu.ps.z = ite(by_zero, TRUE, fits & (result == 0))
        _vc(cpu, by_zero | too_large, by_zero)
        rest = ite(dividend[31], -remainder, remainder)
        set_pair(cpu, number, ite(by_zero | too_large, dividend, concat(result[15:0], rest)))

    def shifted(cpu: Pdp11, value: Word, src: Word) -> Word:
        """A signed number shifted left by 0 to 31 or right by 1 to 32; C is the last bit that went out."""
        width, count = value.width, src[5:0]
        room = width + 64
        wide = value.sign_extend(room)
        by, back = count.zero_extend(room), (Word(6, 0) - count).zero_extend(room)
        up, down = wide << by, wide.arithmetic_shift_right(back)
        before = wide.arithmetic_shift_right(back - 1)
        right = count[5]
        result = ite(right, down, up)[width - 1 : 0]
        overflow = up != up[width - 1 : 0].sign_extend(room)
        cpu.ps.v = ~right & overflow
        cpu.ps.c = ite(right, before[0], (count != 0) & up[width])
        cpu.set_nz(result)
        return result

    @forms("ASH", "Rn")
    def ash(cpu: Pdp11, src: Word, number: Word) -> None:
        """Register shifted as a signed number."""
        cpu.set_register(number, shifted(cpu, cpu.register(number), src))

    @forms("ASHC", "Rn")
    def ashc(cpu: Pdp11, src: Word, number: Word) -> None:
        """Register and the next odd one shifted as a signed number; an odd register is both."""
        set_pair(cpu, number, shifted(cpu, pair(cpu, number), src))
