"""Operands of 68000 instructions, and the words that instructions are made of.

An instruction is declared once: its form, its first word, and where in it each operand goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from popek.kernel.instruction import Instruction, OperandKind
from popek.kernel.machine import Machine
from popek.kernel.words import Word, ite

from .state import M68k, Relocation

Indexed = Mapping[str, Word]
Reader = Callable[[M68k, Any, int], Word]  # the operand, and the bits of what it refers to


@attrs.frozen
class AddressingMode:
    """An addressing mode.

    Attributes:
        code: mode field and, where that is 7, register field of the effective address.
        address: the address (32 bits) of the operand; None of a register and of an immediate.
        words: how many extension words it has; 0, 1 or 2.
    """

    code: int
    address: Reader | None
    words: int = 0


def _step(number: Word, width: int) -> Word:
    """How far (An)+ and -(An) move the register: A7 stays even."""
    bytes_ = width // 8
    return ite(number == 7, Word(32, 2), Word(32, 1)) if bytes_ == 1 else Word(32, bytes_)


def _indirect(cpu: M68k, number: Word, width: int) -> Word:
    return cpu.address_register(number)


def _increment(cpu: M68k, number: Word, width: int) -> Word:
    address = cpu.address_register(number)
    cpu.set_address_register(number, address + _step(number, width))
    return address


def _decrement(cpu: M68k, number: Word, width: int) -> Word:
    cpu.set_address_register(number, cpu.address_register(number) - _step(number, width))
    return cpu.address_register(number)


def _extension(cpu: M68k) -> Word:
    """The address of the extension word that is read; the PC moves past it."""
    place = cpu.pc
    cpu.pc = place + 2
    return place


def _displacement(cpu: M68k, parts: Indexed, width: int) -> Word:
    _extension(cpu)
    return cpu.address_register(parts["register"]) + parts["displacement"].sign_extend(32)


def _index(cpu: M68k, parts: Indexed) -> Word:
    number = parts["index"]
    whole = ite(parts["address"], cpu.address_register(number), cpu.d[number])
    return ite(parts["long"], whole, whole[15:0].sign_extend(32)) + parts["displacement"].sign_extend(32)


def _indexed(cpu: M68k, parts: Indexed, width: int) -> Word:
    _extension(cpu)
    return cpu.address_register(parts["register"]) + _index(cpu, parts)


def _short(cpu: M68k, address: Word, width: int) -> Word:
    _extension(cpu)
    return address.sign_extend(32)


def _long(cpu: M68k, address: Word, width: int) -> Word:
    cpu.pc = cpu.pc + 4
    return address


def _relative(cpu: M68k, displacement: Word, width: int) -> Word:
    return _extension(cpu) + displacement.sign_extend(32)


def _relative_indexed(cpu: M68k, parts: Indexed, width: int) -> Word:
    return _extension(cpu) + _index(cpu, parts)


MODES: Final[Mapping[str, AddressingMode]] = {
    "Dn": AddressingMode(0o00, None),
    "An": AddressingMode(0o10, None),
    "(An)": AddressingMode(0o20, _indirect),
    "(An)+": AddressingMode(0o30, _increment),
    "-(An)": AddressingMode(0o40, _decrement),
    "d16(An)": AddressingMode(0o50, _displacement, 1),
    "d8(An+Xn)": AddressingMode(0o60, _indexed, 1),
    "xxx.W": AddressingMode(0o70, _short, 1),
    "xxx.L": AddressingMode(0o71, _long, 2),
    "d16(PC)": AddressingMode(0o72, _relative, 1),
    "d8(PC+Xn)": AddressingMode(0o73, _relative_indexed, 1),
    "#": AddressingMode(0o74, None),
}
"""By the form's spelling; `+` stands where the manual has a comma, and `#` for an immediate of any size."""

MEMORY: Final = tuple(name for name, mode in MODES.items() if mode.address)
ALTERABLE_MEMORY: Final = tuple(name for name in MEMORY if "PC" not in name)
DATA_ALTERABLE: Final = ("Dn", *ALTERABLE_MEMORY)
CONTROL: Final = tuple(name for name in MEMORY if name not in ("(An)+", "-(An)"))
DATA: Final = ("Dn", *MEMORY, "#")


def immediate_of(width: int) -> str:
    """The operand kind of an immediate."""
    return {8: "#b", 16: "#w", 32: "#l"}[width]


def spelled(mode: str, width: int) -> str:
    """The operand kind that stands for a mode in a form."""
    return immediate_of(width) if mode == "#" else mode


@attrs.frozen
class OperandPlace:
    """An operand that was found: a register, storage or an immediate.

    Attributes:
        get: its value.
        put: it := value, as wide.
    """

    get: Callable[[], Word]
    put: Callable[[Word], None]


def place(cpu: M68k, mode: str, operand: Any, width: int, under: Relocation | None = None) -> OperandPlace:
    """Find an operand; registers move, extension words are read, and storage is referred to by `get` and `put`."""
    if MODES[mode].address is not None:
        where = address_of(cpu, mode, operand, width)
        return OperandPlace(
            lambda: cpu.load(where, width, under), lambda value: cpu.store(where, value, under)
        )
    if mode == "Dn":
        return OperandPlace(
            lambda: cpu.d[operand][width - 1 : 0], lambda value: cpu.set_data_register(operand, value)
        )
    if mode == "An":
        return OperandPlace(
            lambda: cpu.address_register(operand)[width - 1 : 0],
            lambda value: cpu.set_address_register(operand, value.sign_extend(32)),
        )
    cpu.pc = cpu.pc + (4 if width == 32 else 2)
    return OperandPlace(lambda: operand, _read_only)


def address_of(cpu: M68k, mode: str, operand: Any, width: int = 32) -> Word:
    """The address (32 bits) of an operand in storage; extension words are read, and registers move."""
    address = MODES[mode].address
    if address is None:
        raise TypeError(f"{mode} has no address")
    return address(cpu, operand, width)


def _read_only(value: Word) -> None:
    raise TypeError("an immediate is no destination")


# -- operand kinds --------------------------------------------------------------------------------


def kinds() -> tuple[OperandKind, ...]:
    """Those that forms name."""

    def number(name: str, register: str) -> OperandKind:
        return OperandKind(
            name, {"": 3}, spell=lambda parts: name.replace(register, f"{register[0]}{parts['']}")
        )

    def parts_of(name: str, spell: Callable[[Mapping[str, int]], str], **parts: int) -> OperandKind:
        return OperandKind(name, parts, spell=spell, make=lambda words: words)

    def indexed(base: str) -> Callable[[Mapping[str, int]], str]:
        def spell(parts: Mapping[str, int]) -> str:
            first = f"A{parts['register']}" if base == "An" else "PC"
            index = f"{'DA'[parts['address']]}{parts['index']}.{'WL'[parts['long']]}"
            return f"{_signed(parts['displacement'], 8)}({first},{index})"

        return spell

    index = {"address": 1, "index": 3, "long": 1, "displacement": 8}
    return (
        *(number(name, name.strip("()+-")) for name in ("Dn", "An", "(An)", "(An)+", "-(An)")),
        OperandKind(
            "Am", {"": 3}, valid=lambda parts: parts[""] != 7, spell=lambda parts: f"A{parts['']}"
        ),
        parts_of(
            "d16(An)", lambda p: f"{_signed(p['displacement'], 16)}(A{p['register']})", displacement=16, register=3
        ),
        parts_of("d8(An+Xn)", indexed("An"), register=3, **index),
        parts_of("d8(PC+Xn)", indexed("PC"), **index),
        OperandKind("xxx.W", {"": 16}, spell=lambda parts: f"${parts['']:X}.W"),
        OperandKind("xxx.L", {"": 32}, spell=lambda parts: f"${parts['']:X}.L"),
        OperandKind("d16(PC)", {"": 16}, spell=lambda parts: f"{_signed(parts[''], 16)}(PC)"),
        *(
            OperandKind(name, {"": width}, spell=lambda parts: f"#${parts['']:X}")
            for name, width in (("#b", 8), ("#w", 16), ("#l", 32), ("#q", 3), ("#t", 4), ("#n", 8))
        ),
        OperandKind("d16", {"": 16}, spell=lambda parts: _signed(parts[""], 16)),
        # 0 says that a word follows; the 68020 gives a meaning to FF.
        OperandKind(
            "d8", {"": 8}, valid=lambda parts: (parts[""] != 0) & (parts[""] != 0xFF), first={"": 2},
            spell=lambda parts: _signed(parts[""], 8),
        ),
        OperandKind("line", {"": 12}, spell=lambda parts: f"${parts['']:03X}"),
        OperandKind(
            "Rn", {"": 4}, spell=lambda parts: f"{'DA'[parts[''] >> 3]}{parts[''] & 7}",
        ),
        OperandKind(
            "Rc", {"": 12}, valid=lambda parts: ~parts[""].isin((0x000, 0x001, 0x800, 0x801)), first={"": 2},
            spell=lambda parts: f"${parts['']:03X}",
        ),
    )  # fmt: skip


def _signed(number: int, width: int) -> str:
    return str(number - (1 << width) if number >> width - 1 else number)


# -- encoding -------------------------------------------------------------------------------------

Field = tuple[str, str]  # an operand's kind, and how its number is put into the first word
_CODES: dict[str, tuple[int, tuple[Field, ...], tuple[int, ...]]] = {}


def declare(
    machine: Machine[M68k],
    mnemonic: str,
    code: int,
    *fields: Field,
    second: int | None = None,
    source: str = "",
    called: str = "",
    **settings: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare the decorated function as the semantics of a form.

    Args:
        code: the first word, operands 0.
        fields: the operands in the form's order, and how each is encoded: "0" and "9" are the lowest bit of its
            number in the first word, "ea" a mode and a register, "to" the same in the order of MOVE's destination,
            "second12" a number in the second word from bit 12, "displaced" a register in the first word and a
            displacement after it, "next" a word or longword of its own; "" what is in the form and is no operand.
        second: the second word, where there is one, without operands.
        called: the mnemonic as classes are told of it; without the size by default.
    """
    form = f"{mnemonic} {', '.join(kind for kind, _ in fields)}".strip()

    def register(semantics: Callable[..., None]) -> Callable[..., None]:
        _CODES[form] = code, fields, () if second is None else (second,)
        machine.instruction(
            form, source=source, mnemonic=called or mnemonic.split()[0].split(".")[0], **settings
        )(semantics)
        return semantics

    return register


def encode(instruction: Instruction, operands: Mapping[str, int]) -> tuple[int, ...]:
    """The 16-bit words of an instruction; `operands` as `Instruction.symbols` names them.

    Raises:
        KeyError: an operand is missing.
    """
    first, fields, second = _CODES[instruction.form]
    second_word: list[int] = list(second)
    more: list[int] = []
    given = iter(instruction.operands)
    for kind, how in fields:
        if not how:
            continue
        operand = next(given)
        parts = {
            part: operands[name]
            for part, (name, _) in zip(operand.kind.parts, operand.part_names(), strict=True)
        }
        if how in ("ea", "to"):
            effective, extension = _effective(kind, parts)
            first |= effective if how == "ea" else (effective & 7) << 9 | effective >> 3 << 6
            more.extend(extension)
        elif how == "displaced":
            first |= parts["register"]
            more.append(parts["displacement"])
        elif how == "next":
            more.extend(_immediate(operand.kind.parts[""], parts[""]))
        elif how.startswith("second"):
            second_word[0] |= parts[""] << int(how.removeprefix("second"))
        else:
            first |= parts[""] << int(how)
    return (first, *second_word, *more)


def _effective(kind: str, parts: Mapping[str, int]) -> tuple[int, tuple[int, ...]]:
    """Mode and register, and the extension words."""
    mode = MODES["#" if kind.startswith("#") else kind]
    register = parts.get("register", parts.get("", 0) if mode.code < 0o50 else 0)
    if "index" in parts:
        brief = parts["address"] << 15 | parts["index"] << 12 | parts["long"] << 11 | parts["displacement"]
        return mode.code | register, (brief,)
    if mode.code < 0o50:
        return mode.code | register, ()
    if mode.code == 0o50:
        return mode.code | register, (parts["displacement"],)
    return mode.code, _immediate(32 if kind in ("xxx.L", "#l") else 16, parts[""])


def _immediate(width: int, number: int) -> tuple[int, ...]:
    """The extension words of a number; a byte has a word of its own."""
    return (number >> 16, number & 0xFFFF) if width == 32 else (number,)


__all__ = [
    "ALTERABLE_MEMORY", "CONTROL", "DATA", "DATA_ALTERABLE", "MEMORY", "MODES", "OperandPlace", "address_of", "declare",
    "encode", "immediate_of", "kinds", "place", "spelled",
]  # fmt: skip
