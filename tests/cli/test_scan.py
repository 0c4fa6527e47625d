"""`popek scan`: real code read as another disassembler reads it, and what breaks told with its place."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from commands import in_a_process, popek
from popek.machines import codes
from popek.scan.files import from_hex, read
from popek.scan.programs import Program, ScanError, Stretch
from popek.scan.sweep import sweep

# SGDT [EAX]; NOP | CPUID; UD2: two functions of 32-bit code.
CODE = bytes.fromhex("0f0100 90 0fa2 0f0b")
BASE = 0x8048000
NAMES = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
STRINGS = b"\0first\0second\0"


def elf(code: bytes = CODE, *, machine: int = 3, sections: int = 1, size: int | None = None) -> bytes:
    """A 32-bit ELF executable with symbols, written by the gABI's tables; the text may be there several times."""
    symbols = struct.pack("<IIIBBH", 0, 0, 0, 0, 0, 0)
    for name, value in ((1, BASE), (7, BASE + 4)):
        symbols += struct.pack("<IIIBBH", name, value, 4, 0x12, 0, 1)
    parts = [code, symbols, STRINGS, NAMES]
    offsets = [52 + sum(map(len, parts[:n])) for n in range(len(parts))]
    length = len(code) if size is None else size
    text = struct.pack("<10I", 1, 1, 6, BASE, offsets[0], length, 0, 0, 1, 0)
    headers = bytes(40) + text * sections
    headers += struct.pack("<10I", 7, 2, 0, 0, offsets[1], len(symbols), sections + 2, 1, 4, 16)
    headers += struct.pack("<10I", 15, 3, 0, 0, offsets[2], len(STRINGS), 0, 0, 1, 0)
    headers += struct.pack("<10I", 23, 3, 0, 0, offsets[3], len(NAMES), 0, 0, 1, 0)
    body = b"".join(parts)
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    rest = (2, machine, 1, BASE, 0, 52 + len(body), 0, 52, 0, 0, 40, sections + 4, sections + 3)
    return ident + struct.pack("<HHIIIIIHHHHHH", *rest) + body + headers


def test_what_breaks_is_told_with_address_function_bytes_form_and_why(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(elf())
    done = popek("scan", "kernel", "--json", "--jobs", "1", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    (tmp_path / "old.json").write_text(done.stdout)
    told = {
        one["form"]: (place["address"], place["function"], place["bytes"])
        for one in found["findings"]
        for place in one["places"]
    }
    assert told == {
        "SGDT m": (hex(BASE), "first", "0f 01 00"),
        "CPUID": (hex(BASE + 4), "second", "0f a2"),
    }
    assert found["findings"][0]["breaks"] == ["critical", "unfaithful", "unsafe"]
    assert "shows what the VMM owns" in found["findings"][0]["why"]
    assert found["forms"]["NOP"] == 1
    (tmp_path / "kernel").write_bytes(elf(b"\x90\x90\x90" + CODE[3:]))
    since = popek("scan", "kernel", "--against", "old.json", "--json", "--jobs", "1", folder=tmp_path)
    changed = json.loads(since.stdout)["since"]
    assert changed["new"] == []
    assert changed["gone"] == [{"section": ".text", "function": "first", "form": "SGDT m", "count": 1}]


def test_exit_code_3_where_bytes_are_no_instruction_and_what_lacks_is_listed(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes.fromhex("90 0f58c1 ffff"))  # NOP; ADDPS XMM0, XMM1; none
    done = popek("scan", "image", "--mode", "32", "--base", "0x100", "--json", "--jobs", "1", folder=tmp_path)
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["undecoded_bytes"] == 2
    assert found["not_in_the_model"] == {"addps": 1}
    assert found["found"] == 0


def test_answers_given_are_not_asked_again_and_must_be_of_the_same_question(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes.fromhex("0f0100"))
    answers = popek("classify", "ia32", "SGDT", "--promises", "--json", "--jobs", "1")
    (tmp_path / "answers.json").write_text(answers.stdout)
    few = ("scan", "image", "--mode", "32", "--jobs", "1", "--answers", "answers.json")
    with patch("popek.checks.survey.survey", side_effect=AssertionError("asked")):
        done = popek(*few, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1 instructions in 3 bytes; 1 break" in done.stdout
    other = popek(*few, "--set", "UMIP=1", folder=tmp_path)
    assert other.returncode == 2
    assert "answers.json: configuration: expected" in other.stderr


def test_a_sweep_begins_anew_at_each_function() -> None:
    """A byte of data before a function does not swallow its first instruction."""
    code = codes()["ia32"]
    program = Program(
        "p", (Stretch(".text", 0, bytes.fromhex("b8 0f01e0 90"), ((1, "f"),)),)
    )  # MOV EAX | SMSW EAX
    assert [one.address for one in sweep(program, code, 32).places("SMSW r32")] == [1]


def test_segment_registers_are_called_by_their_names() -> None:
    (place,) = sweep(from_hex("8e d8", None), codes()["ia32"], 32).places("MOV Sreg, r16")
    assert place.text == "mov ds, eax"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "empty"),
        (b"\x7fELF", "malformed ELF"),
        (elf()[:60], "malformed ELF"),
        (elf()[:-30], "malformed ELF"),
        (elf(machine=0xB7), "ELF for EM_AARCH64: expected EM_386 or EM_X86_64"),
        (b"\x90", "neither ELF, PE nor bzImage: expected --mode"),
    ],
)
def test_what_is_no_program_is_told_in_one_line(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "file").write_bytes(text)
    done = popek("scan", "file", folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


def test_overlapping_and_truncated_sections_are_scanned_and_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(elf(sections=2))
    assert read(path, None, codes()).remarks == (".text and .text overlap; each was scanned",)
    path.write_bytes(elf(size=1 << 30))
    assert "bytes lie beyond the end of the file" in read(path, None, codes()).remarks[0]


def test_any_damage_to_a_file_ends_in_a_program_or_an_error(tmp_path: Path) -> None:
    whole, path = elf(), tmp_path / "file"
    for at in range(4, len(whole), 3):
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        program = None
        with suppress(ScanError):
            program = read(path, None, codes())
        if program is not None:
            swept = sweep(program, codes()["ia32"], 32)
            assert swept.size == sum(len(one.data) for one in program.stretches)


def test_random_bytes_are_read_to_the_end() -> None:
    import random

    noise = random.Random(19).randbytes(6000)
    for mode, name in ((16, "ia32"), (32, "ia32"), (64, "x86-64")):
        read_all = list(codes()[name].sweep(noise, 0, len(noise), mode))
        at = 0
        for one in read_all:
            assert one.offset == at
            at += one.size
        assert at >= len(noise)


def test_missing_pyelftools_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(elf())
    with (
        patch.dict(sys.modules, {"elftools.common.exceptions": None}),
        pytest.raises(ScanError, match=r"popek\[scan\]"),
    ):
        read(tmp_path / "file", None, codes())


@pytest.mark.emulator("objdump")
def test_instructions_are_those_of_objdump() -> None:
    """Where both begin an instruction, it is as long; a small program of the system's."""
    path = Path("/usr/bin/env")
    program = read(path, None, codes())
    assert program.code is not None
    swept = sweep(program, program.code, 64)
    listing = subprocess.run(["objdump", "-d", "-z", path], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^ +[0-9a-f]+:\t[0-9a-f ]+\t(\S+)", listing, re.MULTILINE)
    theirs = Counter(rows)
    assert swept.undecoded == 0
    assert swept.instructions == theirs.total()
    for form, name in (("SYSCALL", "syscall"), ("HLT", "hlt"), ("CPUID", "cpuid"), ("RDTSC", "rdtsc")):
        assert swept.counts.get(form, 0) == theirs[name]


def test_standard_input_is_read_as_hexadecimal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from popek.cli import main; main()", "scan", "-", "--mode", "32"],
        input="0f 01 zz", capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2
    assert "standard input, line 1: expected hexadecimal" in done.stderr
    assert in_a_process("scan", "nothing-there").returncode == 2
