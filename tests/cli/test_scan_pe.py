"""`popek scan` of PE files: sections and names as Microsoft's PE Format has them."""

from __future__ import annotations

import struct
import sys
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from commands import popek
from popek.machines import codes
from popek.scan.files import read
from popek.scan.programs import Program, ScanError
from popek.scan.sweep import sweep

# SGDT [EAX]; NOP | CPUID; UD2: two functions of 32-bit code.
CODE = bytes.fromhex("0f0100 90 0fa2 0f0b")
IMAGE, TEXT, HEADERS = 0x400000, 0x1000, 0x200


def exports() -> bytes:
    """An export table at 0x1010: `second` is at 0x1004; the tables of addresses, names and ordinals; the strings."""
    head = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, 0x1048, 1, 1, 1, 0x1038, 0x103C, 0x1040)
    return head + struct.pack("<IIHH4x", TEXT + 4, 0x1050, 0, 0) + b"a.dll\0\0\0second\0"


def pe(*, machine: int = 0x14C, flags: int = 0x60000020, raw: int = 0x200, symbols: int = 2) -> bytes:
    """A PE32 file with one section, the export table in it, and COFF symbols behind it."""
    text = (CODE.ljust(16, b"\0") + exports()).ljust(0x200, b"\0")
    table = struct.pack("<8sIhHBB", b"first", 0, 1, 0x20, 2, 1)
    table += struct.pack(
        "<8sIhHBB", b"auxiliar", 2, 1, 0x20, 2, 0
    )  # a record of `first`, whatever it looks like
    table += struct.pack("<IIIhHBB", 0, 4, 4, 1, 0x20, 2, 0)  # its name stands in the table of strings
    table += struct.pack("<8sIhHBB", b"data", 5, 1, 0, 2, 0)  # no function
    table += struct.pack("<I", 22) + b"a long, long name\0"
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    file = struct.pack("<HHIIIHH", machine, 1, 0, HEADERS + 0x200 if symbols else 0, symbols * 2, 224, 0x102)
    optional = struct.pack("<HBBIIIIII", 0x10B, 0, 0, 0x200, 0, 0, TEXT, TEXT, TEXT)
    optional += struct.pack("<IIIHHHHHHIIIIHHIIIIII", IMAGE, 0x1000, 0x200, 4, 0, 0, 0, 4, 0, 0, 0x2000, HEADERS, 0,
                            3, 0, 0, 0, 0, 0, 0, 16)  # fmt: skip
    optional += struct.pack("<II", 0x1010, 0x48) + bytes(120)
    section = struct.pack("<8sIIIIIIHHI", b".text", len(CODE), TEXT, raw, HEADERS, 0, 0, 0, 0, flags)
    return (dos + b"PE\0\0" + file + optional + section).ljust(HEADERS, b"\0") + text + table


def written(folder: Path, data: bytes) -> Program:
    (folder / "file").write_bytes(data)
    return read(folder / "file", None, codes())


def test_sections_lie_where_they_are_loaded_and_functions_have_their_names(tmp_path: Path) -> None:
    program = written(tmp_path, pe())
    (text,) = program.stretches
    assert (text.name, text.base, text.offset, text.data) == (".text", 0x401000, 0x200, CODE)
    assert set(text.functions) == {(0x401000, "first"), (0x401004, "second"), (0x401004, "a long, long name")}
    assert program.code is not None
    swept = sweep(program, program.code, 32)
    (place,) = swept.places("SGDT m")
    assert (place.address, place.function, place.offset) == (0x401000, "first", 0x200)
    assert swept.counts["CPUID"] == 1
    assert {at for at, _ in written(tmp_path, pe(symbols=0)).stretches[0].functions} == {0x401004}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"MZ", "malformed PE: "),
        (pe()[:100], "malformed PE: "),
        (pe().replace(b"PE\0\0", b"NE\0\0"), "malformed PE: "),
        (pe(machine=0xAA64), "PE for IMAGE_FILE_MACHINE_ARM64: expected IMAGE_FILE_MACHINE_I386"),
        (pe(machine=0x1234), "PE for machine 0x1234"),
        (pe(flags=0x40000040), "PE without executable code"),
    ],
)
def test_what_is_no_such_file_is_told_in_one_line(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "file").write_bytes(data)
    done = popek("scan", "file", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr


def test_what_lies_beyond_the_end_is_said(tmp_path: Path) -> None:
    cut = pe(symbols=1 << 20)[: HEADERS + 4]
    remarks = written(tmp_path, cut).remarks
    assert "the COFF symbols lie beyond the end of the file and were not read" in remarks
    assert f"section .text: {len(CODE) - 4} of {len(CODE)} bytes lie beyond the end of the file" in remarks


def test_any_damage_ends_in_a_program_or_an_error(tmp_path: Path) -> None:
    whole = pe()
    for at in range(2, len(whole), 5):
        with suppress(ScanError):
            written(tmp_path, whole[:at] + b"\xff" + whole[at + 1 :])


def test_missing_pefile_is_one_line(tmp_path: Path) -> None:
    with patch.dict(sys.modules, {"pefile": None}), pytest.raises(ScanError, match=r"popek\[scan\]"):
        written(tmp_path, pe())
