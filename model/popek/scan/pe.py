"""PE files read: sections with code, and the names that the export table and COFF symbols give to functions.

Sources: Microsoft, PE Format. The headers and the export table are read by pefile (the extra `scan`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from popek.kernel.code import MachineCode

from .programs import Program, ScanError, Stretch, overlaps, part

EXECUTABLE = 0x20000020  # IMAGE_SCN_MEM_EXECUTE and IMAGE_SCN_CNT_CODE
SYMBOL, FUNCTION = struct.Struct("<8sIhHBB"), 2  # a COFF symbol; its complex type, in bits 7:4, of a function


def read_pe(source: str, data: bytes, known: Mapping[str, MachineCode]) -> Program:
    """A PE file.

    Raises:
        ScanError: it is malformed or of no machine with a reader, or pefile is missing.
    """
    try:
        import pefile
    except ImportError:
        raise ScanError(
            f"{source}: reading PE needs pefile; install it with the extra: popek[scan]"
        ) from None
    library: Any = pefile
    remarks: list[str] = []
    try:
        file = library.PE(data=data, fast_load=True)
        code = _reader(source, library, file, known)
        file.parse_data_directories([library.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_EXPORT"]])
        stretches = list(_sections(file, data, remarks))
    except ScanError:
        raise
    except library.PEFormatError as error:
        raise ScanError(f"{source}: malformed PE: {_line(error.value)}; a raw image needs --base") from None
    except Exception as error:  # what the library meets in a broken file is not always its own error
        raise ScanError(f"{source}: malformed PE: {type(error).__name__}: {_line(error)}") from None
    if not stretches:
        raise ScanError(f"{source}: PE without executable code")
    return Program(source, tuple(stretches), code, (*remarks, *overlaps(stretches)))


def _reader(source: str, library: Any, file: Any, known: Mapping[str, MachineCode]) -> MachineCode:
    number = file.FILE_HEADER.Machine
    machine = library.MACHINE_TYPE.get(number, f"machine {number:#x}")
    for one in known.values():
        if machine in one.pe_machines:
            return one
    able = " or ".join(name for one in known.values() for name in one.pe_machines)
    raise ScanError(f"{source}: PE for {machine}: expected {able}")


def _sections(file: Any, data: bytes, remarks: list[str]) -> Iterator[Stretch]:
    image, symbols = file.OPTIONAL_HEADER.ImageBase, list(_symbols(file, data, remarks))
    exported = list(_exported(file))
    for number, section in enumerate(file.sections, 1):
        if not section.Characteristics & EXECUTABLE:
            continue
        name = section.Name.rstrip(b"\0").decode("ascii", "replace") or f"section {number}"
        # What the raw data has more than the virtual size is padding, which is not loaded.
        size = min(section.SizeOfRawData, section.Misc_VirtualSize or section.SizeOfRawData)
        offset, base = section.get_PointerToRawData_adj(), image + section.VirtualAddress
        code = part(data, offset, size, f"section {name}", remarks)
        if code:
            named = {(base + value, text) for where, value, text in symbols if where == number}
            named |= {(image + at, text) for at, text in exported if 0 <= at - section.VirtualAddress < size}
            yield Stretch(name, base, code, tuple(sorted(named)), offset)


def _exported(file: Any) -> Iterator[tuple[int, str]]:
    """The offset of each exported symbol from the image's base, and its name or number."""
    table = getattr(file, "DIRECTORY_ENTRY_EXPORT", None)
    for one in () if table is None else table.symbols:
        if one.forwarder is None and one.address:
            yield (
                one.address,
                one.name.decode("ascii", "replace") if one.name else f"ordinal {one.ordinal}",
            )


def _symbols(file: Any, data: bytes, remarks: list[str]) -> Iterator[tuple[int, int, str]]:
    """COFF symbols of functions: the number of the section, the offset in it, and the name."""
    start, count = file.FILE_HEADER.PointerToSymbolTable, file.FILE_HEADER.NumberOfSymbols
    if not start or not count:
        return
    strings = start + count * SYMBOL.size
    if strings > len(data):
        remarks.append("the COFF symbols lie beyond the end of the file and were not read")
        return
    skip = 0
    for raw, value, section, kind, _, more in SYMBOL.iter_unpack(data[start:strings]):
        if skip:
            skip -= 1
            continue
        skip = more
        if section > 0 and kind >> 4 == FUNCTION:
            name = raw.rstrip(b"\0")
            if raw[:4] == bytes(4):
                at = strings + int.from_bytes(raw[4:], "little")
                name = data[at : data.find(b"\0", at)] if at < len(data) else b""
            if name:
                yield section, value, name.decode("ascii", "replace")


def _line(error: object) -> str:
    return " ".join(str(error).split())
