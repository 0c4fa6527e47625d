"""68000 instructions that compute (Reference Manual, sections 3.1.2 to 3.1.6 and 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from popek.kernel.machine import Machine
from popek.kernel.opaque import opaque
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, Word, concat, ite

from .moves import logical
from .operands import declare, place, spelled
from .state import CHECK, REFERENCE, SIZES, ZERO_DIVIDE, M68k

Binary = Callable[[M68k, Word, Word], Word]
Unary = Callable[[M68k, Word], Word]
SIZE_CODES: Final = {"B": 0x00, "W": 0x40, "L": 0x80}


def add(machine: Machine[M68k]) -> None:
    """Declare them."""
    _double(machine)
    _with_immediates(machine)
    _addresses(machine)
    _single(machine)
    _extended(machine)
    _decimal(machine)
    _products(machine)
    _bits(machine)


# -- what is done with the operands, of any size --------------------------------------------------


def summed(cpu: M68k, source: Word, destination: Word) -> Word:
    """Destination + source; N, Z, V, C, and X as C."""
    result, top = destination + source, source.width - 1
    cpu.set_nz(result)
    cpu.sr.v = ~(source[top] ^ destination[top]) & (result[top] ^ source[top])
    cpu.sr.c = result < source
    cpu.sr.x = cpu.sr.c
    return result


def compared(cpu: M68k, source: Word, destination: Word) -> Word:
    """Destination - source; N, Z, V, C."""
    result, top = destination - source, source.width - 1
    cpu.set_nz(result)
    cpu.sr.v = (source[top] ^ destination[top]) & (result[top] ^ destination[top])
    cpu.sr.c = destination < source
    return result


def subtracted(cpu: M68k, source: Word, destination: Word) -> Word:
    """Destination - source; N, Z, V, C, and X as C."""
    result = compared(cpu, source, destination)
    cpu.sr.x = cpu.sr.c
    return result


def _bitwise(operation: Callable[[Word, Word], Word]) -> Binary:
    return lambda cpu, source, destination: logical(cpu, operation(source, destination))


AND: Final = _bitwise(lambda a, b: a & b)
OR: Final = _bitwise(lambda a, b: a | b)
EOR: Final = _bitwise(lambda a, b: a ^ b)


def _extended_sum(cpu: M68k, source: Word, destination: Word) -> Word:
    """Destination + source + X; Z is only ever cleared."""
    width, was_zero = source.width, cpu.sr.z
    wide = (
        destination.zero_extend(width + 1) + source.zero_extend(width + 1) + cpu.sr.x.zero_extend(width + 1)
    )
    result, top = wide[width - 1 : 0], width - 1
    cpu.sr.n, cpu.sr.z = result[top], was_zero & (result == 0)
    cpu.sr.v = ~(source[top] ^ destination[top]) & (result[top] ^ source[top])
    cpu.sr.c = wide[width]
    cpu.sr.x = cpu.sr.c
    return result


def _extended_difference(cpu: M68k, source: Word, destination: Word) -> Word:
    """Destination - source - X; Z is only ever cleared."""
    width, was_zero = source.width, cpu.sr.z
    wide = (
        destination.zero_extend(width + 1) - source.zero_extend(width + 1) - cpu.sr.x.zero_extend(width + 1)
    )
    result, top = wide[width - 1 : 0], width - 1
    cpu.sr.n, cpu.sr.z = result[top], was_zero & (result == 0)
    cpu.sr.v = (source[top] ^ destination[top]) & (result[top] ^ destination[top])
    cpu.sr.c = wide[width]
    cpu.sr.x = cpu.sr.c
    return result


# -- forms ----------------------------------------------------------------------------------------


def _double(machine: Machine[M68k]) -> None:
    def to_register(
        cpu: M68k, source: Any, number: Word, operation: Binary, mode: str, width: int, writes: bool
    ) -> None:
        """The data register := what the mnemonic makes of it and the operand; condition codes."""
        value = place(cpu, mode, source, width).get()
        result = operation(cpu, value, cpu.d[number][width - 1 : 0])
        if writes:
            cpu.set_data_register(number, result)

    def to_operand(
        cpu: M68k, number: Word, destination: Any, operation: Binary, mode: str, width: int
    ) -> None:
        """The operand := what the mnemonic makes of it and the data register; condition codes."""
        to = place(cpu, mode, destination, width)
        to.put(operation(cpu, cpu.d[number][width - 1 : 0], to.get()))

    table: dict[str, tuple[int, Binary, tuple[str, ...], tuple[str, ...]]] = {
        "ADD": (0xD000, summed, ("Dn", "(An)", "(An)+", "#"), ("(An)", "-(An)")),
        "SUB": (0x9000, subtracted, ("Dn", "(An)", "(An)+", "#"), ("(An)", "-(An)")),
        "AND": (0xC000, AND, ("Dn", "(An)", "#"), ("(An)",)),
        "OR": (0x8000, OR, ("Dn", "(An)", "#"), ("(An)",)),
        "CMP": (0xB000, compared, ("Dn", "(An)", "(An)+", "#"), ()),
        "EOR": (0xB000, EOR, (), ("Dn", "(An)")),
    }
    for mnemonic, (code, operation, sources, destinations) in table.items():
        for letter, width in SIZES.items():
            name, source = f"{mnemonic}.{letter}", f"{REFERENCE}, {mnemonic}"
            for mode in sources:
                declare(
                    machine, name, code | SIZE_CODES[letter], (spelled(mode, width), "ea"), ("Dn", "9"), source=source,
                    operation=operation, mode=mode, width=width, writes=mnemonic != "CMP",
                )(to_register)  # fmt: skip
            for mode in destinations:
                declare(
                    machine, name, code | 0x100 | SIZE_CODES[letter], ("Dn", "9"), (mode, "ea"), source=source,
                    operation=operation, mode=mode, width=width,
                )(to_operand)  # fmt: skip

    def compare_memory(cpu: M68k, source: Word, destination: Word, width: int) -> None:
        """Compare two operands in storage, both registers counted up."""
        first = place(cpu, "(An)+", source, width).get()
        compared(cpu, first, place(cpu, "(An)+", destination, width).get())

    for letter, width in SIZES.items():
        declare(
            machine, f"CMPM.{letter}", 0xB108 | SIZE_CODES[letter], ("(An)+", "0"), ("(An)+", "9"),
            source=f"{REFERENCE}, CMPM", width=width,
        )(compare_memory)  # fmt: skip


def _with_immediates(machine: Machine[M68k]) -> None:
    def immediate(
        cpu: M68k, number: Word, destination: Any, operation: Binary, mode: str, width: int, writes: bool
    ) -> None:
        """The operand := what the mnemonic makes of it and a number; condition codes."""
        value = place(cpu, "#", number, width).get()
        to = place(cpu, mode, destination, width)
        result = operation(cpu, value, to.get())
        if writes:
            to.put(result)

    table: dict[str, tuple[int, Binary]] = {
        "ORI": (0x0000, OR), "ANDI": (0x0200, AND), "SUBI": (0x0400, subtracted), "ADDI": (0x0600, summed),
        "EORI": (0x0A00, EOR), "CMPI": (0x0C00, compared),
    }  # fmt: skip
    for mnemonic, (code, operation) in table.items():
        for letter, width in SIZES.items():
            for mode in ("Dn", "(An)"):
                declare(
                    machine, f"{mnemonic}.{letter}", code | SIZE_CODES[letter], (spelled("#", width), "next"),
                    (mode, "ea"), source=f"{REFERENCE}, {mnemonic}", operation=operation, mode=mode, width=width,
                    writes=mnemonic != "CMPI",
                )(immediate)  # fmt: skip

    def quick(cpu: M68k, number: Word, destination: Any, operation: Binary, mode: str, width: int) -> None:
        """The operand := what the mnemonic makes of it and a number from 1 to 8; condition codes."""
        to = place(cpu, mode, destination, width)
        to.put(operation(cpu, _quick(number, width), to.get()))

    def quick_address(cpu: M68k, number: Word, register: Word, negative: bool) -> None:
        """The address register is counted up or down, all of it; no condition code changes."""
        by = _quick(number, 32)
        old = cpu.address_register(register)
        cpu.set_address_register(register, old - by if negative else old + by)

    for mnemonic, code, operation in (("ADDQ", 0x5000, summed), ("SUBQ", 0x5100, subtracted)):
        source = f"{REFERENCE}, {mnemonic}"
        for letter, width in SIZES.items():
            name, first = f"{mnemonic}.{letter}", code | SIZE_CODES[letter]
            for mode in ("Dn", "(An)"):
                declare(
                    machine, name, first, ("#q", "9"), (mode, "ea"), source=source, operation=operation, mode=mode,
                    width=width,
                )(quick)  # fmt: skip
            if letter != "B":
                declare(
                    machine,
                    name,
                    first,
                    ("#q", "9"),
                    ("An", "ea"),
                    source=source,
                    negative=mnemonic == "SUBQ",
                )(quick_address)


def _quick(number: Word, width: int) -> Word:
    """1 to 8, as three bits have it."""
    return ite(number == 0, Word(width, 8), number.zero_extend(width))


def _addresses(machine: Machine[M68k]) -> None:
    def address(cpu: M68k, source: Any, number: Word, mode: str, width: int, what: str) -> None:
        """All of the address register and the operand, sign-extended; only CMPA sets condition codes."""
        value = place(cpu, mode, source, width).get().sign_extend(32)
        old = cpu.address_register(number)
        if what == "CMPA":
            compared(cpu, value, old)
        else:
            cpu.set_address_register(number, old + value if what == "ADDA" else old - value)

    for mnemonic, code in (("ADDA", 0xD000), ("SUBA", 0x9000), ("CMPA", 0xB000)):
        for letter, bits, width in (("W", 0x0C0, 16), ("L", 0x1C0, 32)):
            for mode in ("Dn", "An", "(An)", "(An)+"):
                declare(
                    machine, f"{mnemonic}.{letter}", code | bits, (spelled(mode, width), "ea"), ("An", "9"),
                    source=f"{REFERENCE}, {mnemonic}", mode=mode, width=width, what=mnemonic,
                )(address)  # fmt: skip


def _single(machine: Machine[M68k]) -> None:
    def zero(value: Word) -> Word:
        return Word(value.width, 0)

    table: dict[str, tuple[int, Unary]] = {
        "NEGX": (0x4000, lambda cpu, value: _extended_difference(cpu, value, zero(value))),
        "CLR": (0x4200, lambda cpu, value: logical(cpu, zero(value))),
        "NEG": (0x4400, lambda cpu, value: subtracted(cpu, value, zero(value))),
        "NOT": (0x4600, lambda cpu, value: logical(cpu, ~value)),
        "TST": (0x4A00, logical),
    }

    def single(cpu: M68k, destination: Any, operation: Unary, mode: str, width: int, writes: bool) -> None:
        """The operand := what the mnemonic makes of it; condition codes."""
        to = place(cpu, mode, destination, width)
        result = operation(cpu, to.get())
        if writes:
            to.put(result)

    for mnemonic, (code, operation) in table.items():
        for letter, width in SIZES.items():
            for mode in ("Dn", "(An)"):
                declare(
                    machine, f"{mnemonic}.{letter}", code | SIZE_CODES[letter], (mode, "ea"),
                    source=f"{REFERENCE}, {mnemonic}", operation=operation, mode=mode, width=width,
                    writes=mnemonic != "TST",
                )(single)  # fmt: skip

    def test_and_set(cpu: M68k, destination: Any, mode: str) -> None:
        """Condition codes by a byte, whose bit 7 is then set."""
        to = place(cpu, mode, destination, 8)
        to.put(logical(cpu, to.get()) | 0x80)

    for mode in ("Dn", "(An)", "(An)+", "-(An)"):
        declare(machine, "TAS", 0x4AC0, (mode, "ea"), source=f"{REFERENCE}, TAS", mode=mode)(test_and_set)


def _extended(machine: Machine[M68k]) -> None:
    def extended(
        cpu: M68k, source: Word, destination: Word, operation: Binary, mode: str, width: int
    ) -> None:
        """The destination := what the mnemonic makes of it, the source and X; condition codes."""
        value = place(cpu, mode, source, width).get()
        to = place(cpu, mode, destination, width)
        to.put(operation(cpu, value, to.get()))

    operations = (("ADDX", 0xD100, _extended_sum), ("SUBX", 0x9100, _extended_difference))
    for mnemonic, code, operation in operations:
        for letter, width in SIZES.items():
            for mode, bit in (("Dn", 0), ("-(An)", 8)):
                declare(
                    machine, f"{mnemonic}.{letter}", code | SIZE_CODES[letter] | bit, (mode, "0"), (mode, "9"),
                    source=f"{REFERENCE}, {mnemonic}", operation=operation, mode=mode, width=width,
                )(extended)  # fmt: skip


def _decimal(machine: Machine[M68k]) -> None:
    def decimal(cpu: M68k, source: Word, destination: Word, negative: bool, mode: str) -> None:
        """The destination := its decimal sum, or difference, with the source and X; X, C and Z."""
        value = place(cpu, mode, source, 8).get()
        to = place(cpu, mode, destination, 8)
        to.put(_decimally(cpu, value, to.get(), negative=negative))

    for mnemonic, code in (("ABCD", 0xC100), ("SBCD", 0x8100)):
        for mode, bit in (("Dn", 0), ("-(An)", 8)):
            declare(
                machine, mnemonic, code | bit, (mode, "0"), (mode, "9"), source=f"{REFERENCE}, {mnemonic}",
                negative=mnemonic == "SBCD", mode=mode,
            )(decimal)  # fmt: skip

    @declare(machine, "NBCD", 0x4800, ("Dn", "ea"), source=f"{REFERENCE}, NBCD")
    def negate(cpu: M68k, number: Word) -> None:
        """The byte := 0 minus itself and X, decimally; X, C and Z."""
        cpu.set_data_register(number, _decimally(cpu, cpu.d[number][7:0], Word(8, 0), negative=True))


def _decimally(cpu: M68k, source: Word, destination: Word, *, negative: bool) -> Word:
    """Two digits and two digits with X, with carry or borrow."""
    digits, carry = [], cpu.sr.x
    for high, low in ((3, 0), (7, 4)):
        a, b = (word[high:low].zero_extend(5) for word in (destination, source))
        raw = a - b - carry.zero_extend(5) if negative else a + b + carry.zero_extend(5)
        carry = raw[4] if negative else raw >= 10
        digits.append(ite(carry, raw + 10 if negative else raw - 10, raw)[3:0])
    valid = (source[3:0] <= 9) & (source[7:4] <= 9) & (destination[3:0] <= 9) & (destination[7:4] <= 9)
    result = ite(valid, concat(digits[1], digits[0]), cpu.undefined("digits result", 8))
    carry = ite(valid, carry, cpu.undefined("digits carry", 1))
    cpu.sr.x, cpu.sr.c = carry, carry
    cpu.sr.z = cpu.sr.z & (result == 0)
    cpu.sr.n, cpu.sr.v = cpu.undefined("decimal N", 1), cpu.undefined("decimal V", 1)
    return result


# -- products and quotients -----------------------------------------------------------------------


@opaque(32, 16, 16)
def _unsigned_product(a: Word, b: Word) -> Word:
    return a.zero_extend(32) * b.zero_extend(32)


@opaque(32, 16, 16)
def _signed_product(a: Word, b: Word) -> Word:
    return a.sign_extend(32) * b.sign_extend(32)


@opaque(64, 32, 32)
def _divided(dividend: Word, divisor: Word) -> Word:
    """Quotient, then remainder, of numbers without sign."""
    return concat(dividend // divisor, dividend % divisor)


def _products(machine: Machine[M68k]) -> None:
    def multiply(cpu: M68k, source: Any, number: Word, product: Callable[..., Word], mode: str) -> None:
        """The data register := the product of its low word and the operand; condition codes."""
        value = place(cpu, mode, source, 16).get()
        cpu.d[number] = logical(cpu, product(value, cpu.d[number][15:0]))

    def divide(cpu: M68k, source: Any, number: Word, signed: bool, mode: str) -> None:
        """The data register := remainder and quotient of it and the operand; V where that does not fit."""
        divisor = place(cpu, mode, source, 16).get()
        if divisor == 0:
            raise Fault(ZERO_DIVIDE, keeps=True)
        dividend = cpu.d[number]
        wide = divisor.sign_extend(32) if signed else divisor.zero_extend(32)
        minus = (dividend[31], wide[31]) if signed else (FALSE, FALSE)
        both = _divided(ite(minus[0], -dividend, dividend), ite(minus[1], -wide, wide))
        quotient = ite(minus[0] ^ minus[1], -both[63:32], both[63:32])
        remainder = ite(minus[0], -both[31:0], both[31:0])
        low = quotient[15:0]
        fits = quotient == (low.sign_extend(32) if signed else low.zero_extend(32))
        cpu.d[number] = ite(fits, concat(remainder[15:0], low), dividend)
        cpu.sr.v, cpu.sr.c = ~fits, FALSE
        cpu.sr.n = ite(fits, low[15], cpu.undefined("division N", 1))
        cpu.sr.z = ite(fits, low == 0, cpu.undefined("division Z", 1))

    def check(cpu: M68k, bound: Any, number: Word, mode: str) -> None:
        """Trap where the low word of the data register is below 0 or above the bound."""
        limit, value = place(cpu, mode, bound, 16).get(), cpu.d[number][15:0]
        below, above = value[15], limit.signed_lt(value)
        kept = cpu.undefined("CHK N", 1)
        cpu.sr.n = ite(below, Word(1, 1), ite(above, FALSE, kept))
        for name in ("z", "v", "c"):
            cpu[f"sr.{name}"] = cpu.undefined(f"CHK {name.upper()}", 1)
        if below | above:
            raise Fault(CHECK, keeps=True)

    for mode in ("Dn", "(An)", "#"):
        operand = (spelled(mode, 16), "ea"), ("Dn", "9")
        for mnemonic, code, product in (
            ("MULU", 0xC0C0, _unsigned_product),
            ("MULS", 0xC1C0, _signed_product),
        ):
            declare(
                machine,
                mnemonic,
                code,
                *operand,
                source=f"{REFERENCE}, {mnemonic}",
                product=product,
                mode=mode,
            )(multiply)
        for mnemonic, code in (("DIVU", 0x80C0), ("DIVS", 0x81C0)):
            declare(
                machine, mnemonic, code, *operand, source=f"{REFERENCE}, {mnemonic}", signed=mnemonic == "DIVS",
                mode=mode,
            )(divide)  # fmt: skip
        declare(machine, "CHK", 0x4180, *operand, source=f"{REFERENCE}, CHK", mode=mode)(check)


# -- single bits ----------------------------------------------------------------------------------


def _bits(machine: Machine[M68k]) -> None:
    changes: dict[str, tuple[int, Callable[[Word, Word], Word] | None]] = {
        "BTST": (0x00, None),
        "BCHG": (0x40, lambda value, mask: value ^ mask),
        "BCLR": (0x80, lambda value, mask: value & ~mask),
        "BSET": (0xC0, lambda value, mask: value | mask),
    }

    def bit(
        cpu: M68k,
        number: Word,
        destination: Any,
        change: Callable[[Word, Word], Word] | None,
        mode: str,
        kind: str,
    ) -> None:
        """Z := not the bit, which is then changed as the mnemonic says; 32 bits of a register, 8 in storage."""
        width = 32 if mode == "Dn" else 8
        chosen = cpu.d[number] if kind == "Dn" else place(cpu, "#", number, 8).get().zero_extend(32)
        mask = Word(width, 1) << (chosen & width - 1).resize(width)
        to = place(cpu, mode, destination, width)
        value = to.get()
        cpu.sr.z = (value & mask) == 0
        if change is not None:
            to.put(change(value, mask))

    for mnemonic, (code, change) in changes.items():
        for mode in ("Dn", "(An)"):
            for kind, first, how in (("Dn", 0x0100, "9"), ("#b", 0x0800, "next")):
                declare(
                    machine, mnemonic, first | code, (kind, how), (mode, "ea"), source=f"{REFERENCE}, {mnemonic}",
                    change=change, mode=mode, kind=kind,
                )(bit)  # fmt: skip
