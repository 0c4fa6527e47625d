"""One System/370 instruction at a time on the Hercules emulator.

A small driver of our own, loaded as a core image, lives in the first page of storage.  For each case it
sets windows of storage, storage keys and control registers, loads general registers and PSW, and so
starts the one instruction; everything around that instruction is SVC 0.  The interruption that follows brings
the driver back, which writes down the old PSW, what the interruption stored, registers, keys and windows.
One run of Hercules serves any number of cases.
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from popek.emulators import programs

STORAGE_BYTES: Final = 0x200000
CODE: Final = 0x2000
"""Where the instruction is; the rest of that block is SVC 0, so a branch may go to any even address of it."""

CODE_BYTES: Final = 0x800
WINDOWS: Final = ((0, 16), (0x1C0, 128), (0x3FC0, 128), (0x47C0, 128), (STORAGE_BYTES - 64, 64))
"""Address and size of the pieces of storage that a case sets and a result shows."""

KEY_BLOCKS: Final = (0x3800, 0x4000, 0x4800, STORAGE_BYTES - 0x800)
"""The blocks of 2048 bytes whose storage keys a case sets and a result shows; every other key is 0."""

TABLES: Final = 0x6000
"""Where `tables` of `run_steps` are loaded, real address; up to 0x2000 bytes."""

ASSIGNED: Final = (128, 64)
"""The assigned storage that a result shows: where interruptions identify themselves."""

CPU_ID: Final = 0x0100262330330000
"""What STIDP stores: version 01, serial number 002623, model 3033."""

_DRIVER, _DATA, _CASES = 0x400, 0x300, 0x10000
_GRS, _CRS, _ZERO, _POINTERS, _PSW, _NEW = 0x300, 0x340, 0x380, 0x3C0, 0x3D0, 0x3E0
_CASE_BYTES, _RESULT_BYTES = 640, 688
_POLL = 0.05  # seconds between two looks for the results
_MOST = (STORAGE_BYTES - 0x1000 - _CASES) // (_CASE_BYTES + _RESULT_BYTES)

_CONFIGURATION = """\
ARCHMODE S/370
CPUSERIAL 002623
CPUMODEL 3033
CPUVERID 01
MAINSIZE 2
NUMCPU 1
OSTAILOR QUIET
000C 3505
"""


class HerculesError(Exception):
    """Hercules is missing, or did not do what it was told; the message says which."""


@attrs.frozen
class HerculesCase:
    """The state before one instruction.

    Attributes:
        instruction: 2, 4 or 6 bytes.
        psw: 64 bits, BC or EC mode; the instruction address should be `CODE`, the wait bit 0.
        gr, cr: 16 words each.
        keys: the storage key (7 bits) of each of `KEY_BLOCKS`.
        clock_comparator: 64 bits.
        windows: the contents of `WINDOWS`.
    """

    instruction: bytes
    psw: int
    gr: tuple[int, ...]
    cr: tuple[int, ...]
    keys: tuple[int, ...]
    windows: tuple[bytes, ...]
    clock_comparator: int = (1 << 64) - 1


@attrs.frozen
class HerculesResult:
    """What was found after the interruption that ended the instruction, or the SVC that followed it.

    Attributes:
        kind: "svc", "program", "external", "machine check" or "io".
        old_psw: as the interruption stored it, 64 bits.
        assigned: the bytes of `ASSIGNED`.
        gr, cr: 16 words each.
        keys: the storage keys (7 bits) of `KEY_BLOCKS`.
        windows: the contents of `WINDOWS`.
    """

    kind: str
    old_psw: int
    assigned: bytes
    gr: tuple[int, ...]
    cr: tuple[int, ...]
    keys: tuple[int, ...]
    windows: tuple[bytes, ...]


def initial_storage(case: HerculesCase, tables: bytes = b"") -> Mapping[int, int]:
    """The storage that the instruction finds, by address; 0 elsewhere.  Interval timer aside."""
    image = _page_zero() | _code(case.instruction)
    image |= {TABLES + i: byte for i, byte in enumerate(tables) if byte}
    for (start, _), content in zip(WINDOWS, case.windows, strict=True):
        image |= {start + i: byte for i, byte in enumerate(content)}
    return image


def run_steps(
    cases: Sequence[HerculesCase], *, tables: bytes = b"", timeout: float = 60
) -> list[HerculesResult]:
    """Run each case on a fresh state, in order.

    Args:
        tables: segment and page tables, to be loaded at `TABLES`.
        timeout: seconds for everything.

    Raises:
        HerculesError: Hercules is missing or does not finish.
        ValueError: a case or the tables are malformed.
    """
    if len(tables) > 0x2000:
        raise ValueError(f"{len(tables)} bytes of tables; there is room for 8192")
    results: list[HerculesResult] = []
    for first in range(0, len(cases), _MOST):
        results += _run_batch(cases[first : first + _MOST], tables, timeout)
    return results


def _run_batch(cases: Sequence[HerculesCase], tables: bytes, timeout: float) -> list[HerculesResult]:
    hercules = programs.find("hercules")
    if hercules is None:
        raise HerculesError(programs.not_found("hercules"))
    results_at = _CASES + len(cases) * _CASE_BYTES
    core = bytearray(results_at)
    for address, byte in (_page_zero() | _code(b"")).items():
        core[address] = byte
    core[TABLES : TABLES + len(tables)] = tables
    struct.pack_into(">III", core, _POINTERS, _CASES, results_at, results_at)
    for number, case in enumerate(cases):
        start = _CASES + number * _CASE_BYTES
        core[start : start + _CASE_BYTES] = _pack(case)
    with tempfile.TemporaryDirectory(prefix="popek-hercules-") as name:
        folder = Path(name)
        (folder / "core").write_bytes(core)
        (folder / "configuration").write_text(_CONFIGURATION, encoding="ascii")
        size = len(cases) * _RESULT_BYTES
        _operate([str(hercules), "-d", "-f", "configuration"], folder, results_at, size, timeout)
        results = (folder / "results").read_bytes()
    return [_unpack(results[i : i + _RESULT_BYTES]) for i in range(0, len(results), _RESULT_BYTES)]


def _operate(command: list[str], folder: Path, first: int, size: int, timeout: float) -> None:
    """Play the operator: load, restart, and try to save until the CPU has stopped."""
    save = f"pause 1\nsavecore {folder / 'results'} {first:x} {first + size - 1:x}\n"
    script = f"loadcore {folder / 'core'} 0\nrestart\n" + save * (int(timeout) + 1)
    (folder / "script").write_text(script, encoding="ascii")
    results = folder / "results"
    environment = {"HOME": str(folder), "HERCULES_RC": str(folder / "script")}
    with (
        (folder / "log").open("wb") as log,
        programs.started(command, folder, log, **environment) as process,
    ):
        ends = time.monotonic() + timeout
        while process.poll() is None and time.monotonic() < ends:
            if results.exists() and results.stat().st_size == size:
                return
            time.sleep(_POLL)
    heard = (folder / "log").read_text(encoding="latin-1").splitlines()
    raise HerculesError(f"the driver did not finish; Hercules said: {' / '.join(heard[-3:])}")


# -- the driver -----------------------------------------------------------------------------------


def _si(code: int, first: int, displacement: int, base: int = 0) -> bytes:
    """RX, RS (first holds both register fields) and SI instructions."""
    return bytes((code, first)) + struct.pack(">H", base << 12 | displacement)


def _mvc(size: int, to: int, to_base: int, source: int, source_base: int) -> bytes:
    return bytes((0xD2, size - 1)) + struct.pack(">HH", to_base << 12 | to, source_base << 12 | source)


def _driver() -> tuple[bytes, dict[str, int]]:
    """The driver's code, to be loaded at `_DRIVER`, and where its entries are.

    Base register 0 means address 0, so the first page needs no base register.
    """
    code = bytearray()
    entries: dict[str, int] = {}

    def here() -> int:
        return _DRIVER + len(code)

    jumps: list[tuple[int, str]] = []

    def jump(mask: int, target: str) -> None:
        jumps.append((len(code), target))
        code.extend(_si(0x47, mask << 4, 0))

    for number, (kind, old) in enumerate(_KINDS, 1):
        entries[kind] = here()
        code += _si(0x90, 0x0F, _GRS)  # STM 0,15
        code += _mvc(8, _PSW, 0, old, 0)
        code += _si(0x41, 0x10, number)  # LA 1,number
        jump(15, "common")
    entries["common"] = here()
    code += _si(0xB6, 0x0F, _CRS)  # STCTL 0,15
    code += _si(0xB7, 0x0F, _ZERO)  # LCTL 0,15
    code += _si(0x58, 0xD0, _POINTERS + 4)  # L 13,result
    code += _si(0x50, 0x10, 0, 13)  # ST 1,kind
    code += _mvc(8, 8, 13, _PSW, 0)
    code += _mvc(ASSIGNED[1], 16, 13, ASSIGNED[0], 0)
    code += _mvc(64, 80, 13, _GRS, 0)
    code += _mvc(64, 144, 13, _CRS, 0)
    for number in range(len(KEY_BLOCKS)):
        code += _si(0x58, 0x50, _CONSTANTS + 4 * number)  # L 5,block
        code += bytes((0x17, 0x44, 0x09, 0x45))  # XR 4,4; ISK 4,5
        code += _si(0x42, 0x40, 208 + number, 13)  # STC 4
    place = 224
    for number, (_, size) in enumerate(WINDOWS):
        code += _si(0x58, 0x50, _CONSTANTS + 16 + 4 * number)  # L 5,window
        code += _mvc(size, place, 13, 0, 5)
        place += size
    code += _si(0x41, 0xDD, _RESULT_BYTES, 0)  # LA 13,size(13)
    code += _si(0x50, 0xD0, _POINTERS + 4)  # ST 13,result
    code += _si(0x58, 0xC0, _POINTERS)  # L 12,case
    code += _si(0x41, 0xCC, _CASE_BYTES, 0)
    code += _si(0x50, 0xC0, _POINTERS)
    entries["next"] = here()
    code += _si(0xB7, 0x0F, _ZERO)
    code += _si(0x58, 0xC0, _POINTERS)  # L 12,case
    code += _si(0x59, 0xC0, _POINTERS + 8)  # C 12,end
    jump(4, "case")  # low
    code += _si(0x82, 0, _CONSTANTS + 40)  # LPSW: disabled wait
    entries["case"] = here()
    place = 168
    for number, (_, size) in enumerate(WINDOWS):
        code += _si(0x58, 0x50, _CONSTANTS + 16 + 4 * number)
        code += _mvc(size, 0, 5, place, 12)
        place += size
    code += _si(0x58, 0x50, _CONSTANTS + 36)  # L 5,code
    code += _mvc(8, 0, 5, 8, 12)
    code += _mvc(ASSIGNED[1], ASSIGNED[0], 0, _ZERO, 0)
    code += _mvc(16, 32, 0, _ZERO, 0)  # the old PSWs
    for number in range(len(KEY_BLOCKS)):
        code += _si(0x58, 0x40, 144 + 4 * number, 12)  # L 4,key
        code += _si(0x58, 0x50, _CONSTANTS + 4 * number)
        code += bytes((0x08, 0x45))  # SSK 4,5
    code += b"\xb2\x06" + struct.pack(">H", 12 << 12 | 160)  # SCKC
    code += b"\xb2\x0d\0\0"  # PTLB
    code += _mvc(8, _NEW, 0, 0, 12)
    code += _si(0xB7, 0x0F, 80, 12)  # LCTL 0,15
    code += _si(0x98, 0x0F, 16, 12)  # LM 0,15
    code += _si(0x82, 0, _NEW)  # LPSW
    for at, target in jumps:
        code[at + 2 : at + 4] = struct.pack(">H", entries[target])
    return bytes(code), entries


_KINDS: Final = (("svc", 32), ("program", 40), ("external", 24), ("machine check", 48), ("io", 56))
_CONSTANTS: Final = 0xF00


def _page_zero() -> dict[int, int]:
    """The driver, its constants and the new PSWs."""
    code, entries = _driver()
    page = bytearray(0x1000)
    page[_DRIVER : _DRIVER + len(code)] = code
    assert _DRIVER + len(code) <= _CONSTANTS
    extended = 0x00080000 << 32  # EC mode, key 0, supervisor state, everything disabled
    struct.pack_into(">Q", page, 0, extended | entries["next"])  # restart
    for kind, old in _KINDS:
        struct.pack_into(">Q", page, old + 64, extended | entries[kind])
    struct.pack_into(">4I", page, _CONSTANTS, *KEY_BLOCKS)
    struct.pack_into(">5I", page, _CONSTANTS + 16, *(start for start, _ in WINDOWS))
    struct.pack_into(">I", page, _CONSTANTS + 36, CODE)
    struct.pack_into(">Q", page, _CONSTANTS + 40, 0x000A0000_00FFFFFF)
    return {address: byte for address, byte in enumerate(page) if byte}


def _code(instruction: bytes) -> dict[int, int]:
    """The block of the instruction, filled up with SVC 0."""
    content = instruction + b"\x0a\0" * ((CODE_BYTES - len(instruction)) // 2)
    return {CODE + i: byte for i, byte in enumerate(content) if byte}


def _pack(case: HerculesCase) -> bytes:
    sizes = tuple(len(window) for window in case.windows)
    if sizes != tuple(size for _, size in WINDOWS):
        raise ValueError(f"windows of {sizes} bytes; expected {[size for _, size in WINDOWS]}")
    if len(case.instruction) not in (2, 4, 6):
        raise ValueError(f"an instruction of {len(case.instruction)} bytes; expected 2, 4 or 6")
    code = (case.instruction + b"\x0a\0" * 3)[:8]
    fixed = struct.pack(
        ">Q8s16I16I4IQ",
        case.psw,
        code,
        *case.gr,
        *case.cr,
        *(k << 1 for k in case.keys),
        case.clock_comparator,
    )
    return (fixed + b"".join(case.windows)).ljust(_CASE_BYTES, b"\0")


def _unpack(record: bytes) -> HerculesResult:
    number, psw, assigned = struct.unpack_from(">I4xQ64s", record)
    gr = struct.unpack_from(">16I", record, 80)
    cr = struct.unpack_from(">16I", record, 144)
    windows, place = [], 224
    for _, size in WINDOWS:
        windows.append(record[place : place + size])
        place += size
    if not 1 <= number <= len(_KINDS):
        raise HerculesError(f"the driver wrote {number} for the kind of interruption")
    keys = tuple(byte >> 1 for byte in record[208 : 208 + len(KEY_BLOCKS)])
    return HerculesResult(_KINDS[number - 1][0], psw, assigned, gr, cr, keys, tuple(windows))
