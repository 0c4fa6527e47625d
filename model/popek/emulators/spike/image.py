"""The program that Spike wants to be given: an ELF file with nothing in it but the two symbols it looks for."""

from __future__ import annotations

import struct
from typing import Final

RAM: Final = 0x8000_0000
RAM_BYTES: Final = 0x10_0000
HTIF: Final = RAM + RAM_BYTES - 0x1000
"""Where `tohost` and `fromhost` are; a store there stops the simulation, so that cases keep away."""

_HEADER, _PROGRAM, _SECTION, _SYMBOL = 64, 56, 64, 24


def elf() -> bytes:
    """A 64-bit RISC-V executable: one page of zeros at `HTIF`, and the symbols `tohost` and `fromhost` in it."""
    names = b"\0tohost\0fromhost\0"
    sections = b"\0.data\0.symtab\0.strtab\0.shstrtab\0"
    content = bytes(64)
    at_content = _HEADER + _PROGRAM
    at_symbols = at_content + len(content)
    symbols = bytes(_SYMBOL)
    for offset, name in ((0, b"tohost"), (32, b"fromhost")):
        symbols += struct.pack("<IBBHQQ", names.index(name + b"\0"), 0x11, 0, 1, HTIF + offset, 8)
    at_names = at_symbols + len(symbols)
    at_sections = at_names + len(names)
    at_table = at_sections + len(sections)
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 2, 243, 1, RAM, _HEADER, at_table, 0, _HEADER, _PROGRAM, 1, _SECTION, 5, 4
    )
    program = struct.pack("<IIQQQQQQ", 1, 6, at_content, HTIF, HTIF, len(content), len(content), 8)

    def section(
        name: bytes, kind: int, flags: int, address: int, place: int, size: int, link: int, one: int
    ) -> bytes:
        info = 1 if kind == 2 else 0
        where = sections.index(name + b"\0") if name else 0
        return struct.pack("<IIQQQQIIQQ", where, kind, flags, address, place, size, link, info, 8, one)

    table = bytes(_SECTION)
    table += section(b".data", 1, 3, HTIF, at_content, len(content), 0, 0)
    table += section(b".symtab", 2, 0, 0, at_symbols, len(symbols), 3, _SYMBOL)
    table += section(b".strtab", 3, 0, 0, at_names, len(names), 0, 0)
    table += section(b".shstrtab", 3, 0, 0, at_sections, len(sections), 0, 0)
    return header + program + content + symbols + names + sections + table
