"""Whole programs read by linear sweep: Capstone finds where instructions end, `decoding` which forms they are.

Source: SDM vol. 2A, chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from popek.kernel.code import CodeInstruction, DecodingError, MachineCode

from .decoded import Decoded
from .disassembly import LEGACY_PREFIXES, NoSuchFormError, plain_reader

LONGEST = 15
AHEAD = 4096  # bytes that Capstone is given at once
MOST_KNOWN = 100_000  # instructions that are remembered

_Known = dict[tuple[str, int, bytes], CodeInstruction]
_WHOLE = frozenset((0xC8, 0x62, 0x8F, 0xC4, 0xC5))
"""Opcodes of which all bytes are looked at: ENTER (by its second immediate), EVEX, XOP, VEX, LES, LDS."""


def code_of(
    machine: str,
    modes: tuple[int, ...],
    elf_machines: tuple[str, ...],
    pe_machines: tuple[str, ...],
    decode: Callable[[bytes, int], Decoded],
) -> MachineCode:
    """The reader of a machine whose single instructions `decode` reads."""

    known: dict[int, _Known] = {}

    def sweep(code: bytes, start: int, end: int, mode: int) -> Iterator[CodeInstruction]:
        reader, before = plain_reader(mode), known.setdefault(mode, {})
        at = start
        while at < end:
            begin = at
            for _, size, mnemonic, _ in reader.disasm_lite(code[at : min(end, at + AHEAD)], 0):
                raw = code[at : at + size]
                key = mnemonic, size, _head(raw)
                one = before.get(key)
                if one is None:
                    one = _read(decode, code[at : at + LONGEST], mode)
                    if one.size == size:
                        if len(before) >= MOST_KNOWN:
                            before.clear()
                        before[key] = one
                yield CodeInstruction(at, one.size, one.text, one.form)
                at += one.size
                if one.size != size or at >= end:
                    break  # where Capstone alone would go on elsewhere
            if at == begin:  # no instruction for Capstone alone, or one that goes on behind the end
                one = _read(decode, code[at : at + LONGEST], mode)
                yield CodeInstruction(at, one.size, one.text, one.form)
                at += one.size

    return MachineCode(machine, modes, elf_machines, pe_machines, decode, sweep)


def _head(raw: bytes) -> bytes:
    """The bytes that decide a form: prefixes, opcode, ModRM and SIB, or an immediate's first byte in their place."""
    at = 0
    while at < len(raw) - 1 and (raw[at] in LEGACY_PREFIXES or raw[at] & 0xF0 == 0x40):
        at += 1
    if raw[at] == 0x0F:
        at += 2 if raw[at + 1 : at + 2] in (b"\x38", b"\x3a") else 1
    elif raw[at] in _WHOLE:
        return raw
    return raw[: at + 3]


def _read(decode: Callable[[bytes, int], Decoded], code: bytes, mode: int) -> CodeInstruction:
    try:
        found = decode(code, mode)
    except NoSuchFormError as error:
        return CodeInstruction(0, min(error.length, len(code)), error.text, "")
    except DecodingError:
        return CodeInstruction(0, 1, "", "")
    return CodeInstruction(0, found.length, found.text, found.form)
