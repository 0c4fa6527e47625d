"""What the processor of Bochs says of itself, in VMX root operation: its MSRs, CPUID, writable fields, host state."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from popek.emulators.bochs.simulator import BochsError, BochsInterrupted, assemble, run_rom
from popek.emulators.bochs.streams import ALIVE, END, disk

DEFAULT_MODEL = "tigerlake"
"""The Bochs model with the largest set of VMX features."""


@attrs.frozen
class HostState:
    """Registers of the monitor while it runs; `rip` is its exit handler."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    pat: int
    rip: int


@attrs.frozen
class Described:
    """A model of Bochs, as the ROM sees it."""

    msrs: Mapping[int, int]
    cpuid: Mapping[tuple[int, int], tuple[int, int, int, int]]
    host: HostState
    writable: frozenset[int]


# --- what the ROM reads and writes --------------------------------------------------------------------------

MAGIC = b"PVMX"
"""What a disk for the ROM starts with."""


def rom() -> bytes:
    """The ROM of the harness."""
    return assemble(Path(__file__).with_name("entry.asm"))


def field_list(fields: Iterable[tuple[int, int]]) -> bytes:
    """Encodings and values as the ROM reads them."""
    return b"".join(struct.pack("<IQ", encoding, value) for encoding, value in fields)


def _describe(model: str) -> Described:
    # All full-width encodings with an index below 64: width, type, index (bit 0 selects the high half).
    encodings = [
        width << 13 | kind << 10 | index << 1
        for width in range(4)
        for kind in range(4)
        for index in range(64)
    ]
    probe = struct.pack(f"<BI{len(encodings)}I", 2, len(encodings), *encodings)
    report = run_rom(rom(), disk(MAGIC, b"\1" + probe + END), model=model, timeout=60, stall=1)
    msrs: dict[int, int] = {}
    leaves: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    writable: set[int] = set()
    host: HostState | None = None
    report = report.lstrip(ALIVE)
    at = 0
    while at < len(report):
        mark = report[at : at + 1]
        at += 1
        if mark == b"C":
            index, value = struct.unpack_from("<IQ", report, at)
            msrs[index] = value
            at += 12
        elif mark == b"P":
            leaf, subleaf, eax, ebx, ecx, edx = struct.unpack_from("<6I", report, at)
            leaves[leaf, subleaf] = (eax, ebx, ecx, edx)
            at += 24
        elif mark == b"H":
            host = HostState(*struct.unpack_from("<6Q", report, at))
            at += 48
        elif mark == b"F":
            encoding, ok = struct.unpack_from("<IB", report, at)
            if ok:
                writable.add(encoding)
            at += 5
        elif mark == b"E":
            break
        else:
            raise BochsError(f"the harness reported nonsense at byte {at - 1}")
    if host is None:
        raise BochsError(f"Bochs model {model!r} did not describe itself; does it have VMX?")
    return Described(MappingProxyType(msrs), MappingProxyType(leaves), host, frozenset(writable))


@functools.cache
def _machine(model: str) -> Described:
    """What a model says of itself.

    Raises:
        BochsError: it has no VMX, or Bochs or nasm is missing.
    """
    try:
        return _describe(model)
    except BochsInterrupted as error:
        raise BochsError(f"Bochs model {model!r} cannot run the VM-entry harness: {error}") from error


def capabilities(model: str = DEFAULT_MODEL) -> Mapping[int, int]:
    """Return MSR -> value of the VMX capability MSRs that the model has, 480H-493H, and of 1BH and 3AH.

    Raises `BochsError` if the model has no VMX, or if Bochs or nasm is missing.
    """
    return _machine(model).msrs


def cpuid(model: str = DEFAULT_MODEL) -> Mapping[tuple[int, int], tuple[int, int, int, int]]:
    """Return (leaf, subleaf) -> (EAX, EBX, ECX, EDX) as VMX root operation sees it, for the usual leaves."""
    return _machine(model).cpuid


def physical_address_bits(model: str = DEFAULT_MODEL) -> int:
    """Return MAXPHYADDR, in bits."""
    return cpuid(model)[0x8000_0008, 0][0] & 0xFF


def linear_address_bits(model: str = DEFAULT_MODEL) -> int:
    """Return the width of linear addresses, in bits."""
    return cpuid(model)[0x8000_0008, 0][0] >> 8 & 0xFF


def writable_fields(model: str = DEFAULT_MODEL) -> frozenset[int]:
    """Return the encodings (full access) that VMWRITE accepts."""
    return _machine(model).writable


def host_state(model: str = DEFAULT_MODEL) -> HostState:
    """Return the registers of the monitor, as the baseline's host-state area has them."""
    return _machine(model).host
