"""68000 instructions that move data (Reference Manual, section 3.1.1 and 4)."""

from __future__ import annotations

from typing import Any, Final

from popek.kernel.machine import Machine
from popek.kernel.words import FALSE, Word, concat

from .operands import ALTERABLE_MEMORY, CONTROL, DATA, address_of, declare, place, spelled
from .state import REFERENCE, SIZES, M68k

MOVE_CODES: Final = {"B": 0x1000, "W": 0x3000, "L": 0x2000}


def add(machine: Machine[M68k]) -> None:
    """Declare them."""
    _move(machine)
    _addresses(machine)
    _registers(machine)
    _peripheral(machine)


def logical(cpu: M68k, result: Word) -> Word:
    """N and Z as the result says, V and C cleared; the result."""
    cpu.set_nz(result)
    cpu.sr.v, cpu.sr.c = FALSE, FALSE
    return result


def _move(machine: Machine[M68k]) -> None:
    def move(cpu: M68k, source: Any, destination: Any, modes: tuple[str, str], width: int) -> None:
        """The destination := the source; condition codes."""
        value = place(cpu, modes[0], source, width).get()
        to = place(cpu, modes[1], destination, width)
        to.put(logical(cpu, value))

    def move_address(cpu: M68k, source: Any, number: Word, mode: str, width: int) -> None:
        """An address register := the source, sign-extended."""
        value = place(cpu, mode, source, width).get()
        cpu.set_address_register(number, value.sign_extend(32))

    for letter, width in SIZES.items():
        sources = DATA if letter == "B" else ("Dn", "An", *DATA[1:])
        pairs = [(mode, "Dn") for mode in sources]
        pairs += [("Dn", mode) for mode in ALTERABLE_MEMORY]
        pairs += [("(An)+", "-(An)"), ("#", "(An)")]
        for pair in pairs:
            declare(
                machine, f"MOVE.{letter}", MOVE_CODES[letter], (spelled(pair[0], width), "ea"), (pair[1], "to"),
                source=f"{REFERENCE}, MOVE", modes=pair, width=width,
            )(move)  # fmt: skip
        if letter == "B":
            continue
        for mode in ("Dn", "An", "(An)", "(An)+", "#"):
            declare(
                machine, f"MOVEA.{letter}", MOVE_CODES[letter] | 0x40, (spelled(mode, width), "ea"), ("An", "9"),
                source=f"{REFERENCE}, MOVEA", mode=mode, width=width,
            )(move_address)  # fmt: skip

    @declare(machine, "MOVEQ", 0x7000, ("#n", "0"), ("Dn", "9"), source=f"{REFERENCE}, MOVEQ")
    def moveq(cpu: M68k, value: Word, number: Word) -> None:
        """A data register := a byte, sign-extended; condition codes."""
        cpu.d[number] = logical(cpu, value.sign_extend(32))


def _addresses(machine: Machine[M68k]) -> None:
    def load_address(cpu: M68k, operand: Any, number: Word, mode: str) -> None:
        """An address register := the operand's address."""
        cpu.set_address_register(number, address_of(cpu, mode, operand))

    def push_address(cpu: M68k, operand: Any, mode: str) -> None:
        """Push the operand's address."""
        cpu.push(address_of(cpu, mode, operand))

    for mode in CONTROL:
        declare(machine, "LEA", 0x41C0, (mode, "ea"), ("An", "9"), source=f"{REFERENCE}, LEA", mode=mode)(
            load_address
        )
        declare(machine, "PEA", 0x4840, (mode, "ea"), source=f"{REFERENCE}, PEA", mode=mode)(push_address)

    @declare(machine, "LINK", 0x4E50, ("Am", "0"), ("#w", "next"), source=f"{REFERENCE}, LINK")
    def link(cpu: M68k, number: Word, displacement: Word) -> None:
        """Push An; An := A7; A7 := A7 + displacement."""
        distance = place(cpu, "#", displacement, 16).get()
        cpu.push(cpu.address_register(number))
        cpu.set_address_register(number, cpu.sp)
        cpu.sp = cpu.sp + distance.sign_extend(32)

    @declare(machine, "UNLK", 0x4E58, ("Am", "0"), source=f"{REFERENCE}, UNLK")
    def unlink(cpu: M68k, number: Word) -> None:
        """A7 := An; An is popped."""
        cpu.sp = cpu.address_register(number)
        cpu.set_address_register(number, cpu.pop(32))


def _registers(machine: Machine[M68k]) -> None:
    source = f"{REFERENCE}, EXG"

    @declare(machine, "EXG", 0xC140, ("Dn", "9"), ("Dn", "0"), source=source)
    def exchange_data(cpu: M68k, first: Word, second: Word) -> None:
        """Two data registers change places."""
        cpu.d[first], cpu.d[second] = cpu.d[second], cpu.d[first]

    @declare(machine, "EXG", 0xC148, ("An", "9"), ("An", "0"), source=source)
    def exchange_addresses(cpu: M68k, first: Word, second: Word) -> None:
        """Two address registers change places."""
        one, other = cpu.address_register(first), cpu.address_register(second)
        cpu.set_address_register(first, other)
        cpu.set_address_register(second, one)

    @declare(machine, "EXG", 0xC188, ("Dn", "9"), ("An", "0"), source=source)
    def exchange_both(cpu: M68k, data: Word, address: Word) -> None:
        """A data register and an address register change places."""
        one, other = cpu.d[data], cpu.address_register(address)
        cpu.d[data] = other
        cpu.set_address_register(address, one)

    @declare(machine, "SWAP", 0x4840, ("Dn", "0"), source=f"{REFERENCE}, SWAP")
    def swap(cpu: M68k, number: Word) -> None:
        """The words of a data register change places; condition codes."""
        old = cpu.d[number]
        cpu.d[number] = logical(cpu, concat(old[15:0], old[31:16]))

    for letter, code, low, width in (("W", 0x4880, 8, 16), ("L", 0x48C0, 16, 32)):

        @declare(
            machine, f"EXT.{letter}", code, ("Dn", "0"), source=f"{REFERENCE}, EXT", low=low, width=width
        )
        def extend(cpu: M68k, number: Word, low: int, width: int) -> None:
            """The low half of the operand, sign-extended; condition codes."""
            value = cpu.d[number][low - 1 : 0].sign_extend(width)
            cpu.set_data_register(number, logical(cpu, value))


def _peripheral(machine: Machine[M68k]) -> None:
    source = f"{REFERENCE}, MOVEP"

    def read(cpu: M68k, operand: Any, number: Word, width: int) -> None:
        """A data register := every other byte in storage, the high one first."""
        address = address_of(cpu, "d16(An)", operand)
        loaded = [cpu.load(address + 2 * i, 8) for i in range(width // 8)]
        cpu.set_data_register(number, concat(*loaded))

    def write(cpu: M68k, number: Word, operand: Any, width: int) -> None:
        """Every other byte in storage := a data register, the high one first."""
        address = address_of(cpu, "d16(An)", operand)
        for i in range(width // 8):
            high = width - 1 - 8 * i
            cpu.store(address + 2 * i, cpu.d[number][high : high - 7])

    for letter, bit, width in (("W", 0, 16), ("L", 0x40, 32)):
        declare(
            machine,
            f"MOVEP.{letter}",
            0x0108 | bit,
            ("d16(An)", "displaced"),
            ("Dn", "9"),
            source=source,
            width=width,
        )(read)
        declare(
            machine,
            f"MOVEP.{letter}",
            0x0188 | bit,
            ("Dn", "9"),
            ("d16(An)", "displaced"),
            source=source,
            width=width,
        )(write)
