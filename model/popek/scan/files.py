"""Files read: ELF and PE files, boot images, raw images and hexadecimal text.

ELF is read by pyelftools (the extra `scan`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from popek.kernel.code import MachineCode

from .bzimage import is_boot_image, payload
from .pe import read_pe
from .programs import Program, ScanError, Stretch, overlaps, part

EXECUTABLE, COMPRESSED = 4, 0x800  # SHF_EXECINSTR and SHF_COMPRESSED; PF_X is 1


def read(path: Path, base: int | None, known: Mapping[str, MachineCode]) -> Program:
    """A file: ELF, PE or bzImage by its first bytes, unless a base says that it is a raw image.

    Raises:
        ScanError: it cannot be read, or is one of them and malformed or of no machine with a reader.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ScanError(f"{path}: {error.strerror}") from None
    if not data:
        raise ScanError(f"{path}: the file is empty")
    if base is None and data[:4] == b"\x7fELF":
        program = _elf(str(path), data, known)
    elif base is None and is_boot_image(data):  # which may be PE too, for its EFI stub
        program = _boot_image(str(path), data, known)
    elif base is None and data[:2] == b"MZ":
        program = read_pe(str(path), data, known)
    else:
        program = Program(str(path), (Stretch("image", base or 0, data, offset=0),))
    return attrs.evolve(program, path=path)


def from_hex(text: str, base: int | None) -> Program:
    """Hexadecimal bytes.

    Raises:
        ScanError: they are none; the line says where.
    """
    found = b""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found += bytes.fromhex(line.partition("#")[0])
        except ValueError:
            raise ScanError(
                f"standard input, line {number}: expected hexadecimal bytes such as '0f 01 e0'"
            ) from None
    if not found:
        raise ScanError("standard input: expected hexadecimal bytes, found none")
    return Program("standard input", (Stretch("bytes", base or 0, found),))


def _boot_image(source: str, data: bytes, known: Mapping[str, MachineCode]) -> Program:
    """The ELF file in the payload; where its bytes lie in the file itself cannot be said."""
    found = payload(source, data)
    if found.data[:4] != b"\x7fELF":
        raise ScanError(f"{source}: bzImage: expected ELF in its payload, found {found.data[:4].hex(' ')}")
    program = _elf(source, found.data, known)
    stretches = tuple(attrs.evolve(one, offset=None) for one in program.stretches)
    return attrs.evolve(program, stretches=stretches, remarks=(found.remark, *program.remarks))


def _elf(source: str, data: bytes, known: Mapping[str, MachineCode]) -> Program:
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf import elffile
    except ImportError:
        raise ScanError(
            f"{source}: reading ELF needs pyelftools; install it with the extra: popek[scan]"
        ) from None
    library: Any = elffile  # only some releases come with types
    try:
        file = library.ELFFile(io.BytesIO(data))
        machine = file["e_machine"]
        code = next((one for one in known.values() if machine in one.elf_machines), None)
        if code is None:
            able = " or ".join(name for one in known.values() for name in one.elf_machines)
            raise ScanError(f"{source}: ELF for {machine}: expected {able}")
        remarks: list[str] = []
        stretches = _sections(file, data, remarks)
        if not stretches and not file.num_sections():
            stretches = _segments(file, data, remarks)
    except ScanError:
        raise
    except ELFError as error:
        raise ScanError(f"{source}: malformed ELF: {error or type(error).__name__}") from None
    except Exception as error:  # what the library meets in a broken file is not always its own error
        raise ScanError(f"{source}: malformed ELF: {type(error).__name__}: {error}") from None
    if not stretches:
        raise ScanError(f"{source}: ELF without executable code")
    if file["e_type"] != "ET_REL":  # in object files all sections begin at 0
        remarks += overlaps(stretches)
    return Program(source, tuple(stretches), code, tuple(remarks))


def _sections(file: Any, data: bytes, remarks: list[str]) -> list[Stretch]:
    functions = _functions(file)
    found = []
    for number, section in enumerate(file.iter_sections()):
        header = section.header
        if not header["sh_flags"] & EXECUTABLE or header["sh_type"] == "SHT_NOBITS":
            continue
        if header["sh_flags"] & COMPRESSED:
            remarks.append(f"section {section.name} is compressed and was not scanned")
            continue
        code = part(data, header["sh_offset"], header["sh_size"], f"section {section.name}", remarks)
        if code:
            named = functions.get(number, ())
            found.append(
                Stretch(section.name, header["sh_addr"], code, tuple(sorted(set(named))), header["sh_offset"])
            )
    return found


def _segments(file: Any, data: bytes, remarks: list[str]) -> list[Stretch]:
    found = []
    for number, segment in enumerate(file.iter_segments()):
        header = segment.header
        if header["p_type"] == "PT_LOAD" and header["p_flags"] & 1:
            name = f"segment {number}"
            code = part(data, header["p_offset"], header["p_filesz"], name, remarks)
            if code:
                found.append(Stretch(name, header["p_vaddr"], code, offset=header["p_offset"]))
    return found


def _functions(file: Any) -> dict[int, list[tuple[int, str]]]:
    """Where functions begin, by the number of their section."""
    found: dict[int, list[tuple[int, str]]] = {}
    for section in file.iter_sections():
        if section.header["sh_type"] not in ("SHT_SYMTAB", "SHT_DYNSYM"):
            continue
        for symbol in section.iter_symbols():
            where = symbol["st_shndx"]
            if symbol["st_info"]["type"] == "STT_FUNC" and isinstance(where, int) and symbol.name:
                found.setdefault(where, []).append((symbol["st_value"], symbol.name))
    return found


def reader(
    program: Program, machine: str | None, mode: int | None, known: Mapping[str, MachineCode]
) -> tuple[MachineCode, int]:
    """How the code is read, by the file, by a machine's name, or by the size of code; and that size.

    Raises:
        ScanError: neither says, or no code of this size is known.
    """
    if machine is not None and machine not in known:
        raise ScanError(f"--machine {machine}: expected {' or '.join(known)}, whose code can be read")
    code = known[machine] if machine is not None else program.code
    if code is None:
        if mode is None:
            raise ScanError(
                f"{program.source}: neither ELF, PE nor bzImage: expected --mode with the size of its code"
            )
        able = [one for one in known.values() if mode in one.modes]
        code = min(able, key=lambda one: one.modes.index(mode), default=None)
    modes = sorted({size for one in known.values() for size in one.modes}) if code is None else code.modes
    if code is None or (mode is not None and mode not in modes):
        raise ScanError(f"--mode {mode}: expected {' or '.join(map(str, sorted(modes)))}")
    return code, code.modes[0] if mode is None else mode
