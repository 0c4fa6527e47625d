"""What the random steps of 32-bit guests share."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from popek.emulators.ia32.assembly import assembly_text
from popek.emulators.ia32.cases import Ia32Case
from popek.emulators.ia32.step import DATA_BASE
from popek.kernel.instruction import Instruction

from .case import ProtectedCase
from .memory import PAGE_DIRECTORY

NW, CD, PG = 1 << 29, 1 << 30, 1 << 31
"""Bits of CR0."""
PAE, VMXE, SMXE, PCIDE, SMEP, SMAP = 1 << 5, 1 << 13, 1 << 14, 1 << 17, 1 << 20, 1 << 21
"""Bits of CR4."""
GENERAL: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
_PAGES: Final = (DATA_BASE >> 12, (DATA_BASE >> 12) + 1)


def barred_pages(rng: random.Random) -> dict[int, int]:
    """Data pages that the guest may not touch, not write, or that are not for it, with the bits they lack."""
    lacking = rng.sample((2, 4), rng.choice((1, 2)))
    return dict(zip(rng.sample(_PAGES, len(lacking)), lacking, strict=True))


def time_offset(rng: random.Random) -> int:
    """A TSC offset: none, one of the ends, or any."""
    return rng.choice((0, 1, (1 << 64) - 1, 1 << 63, rng.getrandbits(64)))


def keep_alive(registers: dict[str, int], paging: bool, has: int) -> int:
    """Let a guest have only bits of CR0 and CR4 with which it lives; those of CR4 that it cannot have.

    Args:
        registers: the guest's, changed in place.
        paging: it pages, by tables of 32-bit entries for supervisor and user.
        has: the bits of CR4 that it may have otherwise.
    """
    unwanted = PAE | SMEP | SMAP if paging else 0
    registers["cr4"] = registers.get("cr4", 0) & has & ~unwanted
    if paging:
        registers.pop("cr3", None)
    if "cr0" in registers:
        registers["cr0"] &= ~(NW | CD)
    return unwanted


def table_root(rng: random.Random) -> int:
    """The guest's page directory, with bits of CR3 that are free."""
    return PAGE_DIRECTORY | rng.choice((0, 8, 0x10, 0x18))


def ports_of(guest: Ia32Case) -> list[int]:
    """The ports that an instruction may name."""
    ports = [guest.registers.get("edx", 0) & 0xFFFF]
    if "operand imm8" in guest.operands:
        ports.append(guest.operands["operand imm8"])
    return ports


def port_bits(
    ports: Sequence[int], place: Callable[[int], tuple[int, int]], rng: random.Random
) -> list[tuple[int, bytes]]:
    """A bit at one of the ports of a case, or beside it.

    Args:
        place: the address of a port's byte in the map, and its bit there.
    """
    found: dict[int, int] = {}
    for port in ports:
        for distance in (-1, 0, 1, 2, 3, 4):
            at, bit = place(port + distance)
            found[at] = found.get(at, 0) | (rng.random() < 0.15) << bit
    return [(at, bytes([value])) for at, value in found.items()]


# Nasm knows these in 64-bit mode alone.
_BYTES: Final = {
    "rdpkru": "db 0x0f, 0x01, 0xee",
    "wrpkru": "db 0x0f, 0x01, 0xef",
    "skinit": "db 0x0f, 0x01, 0xde",
}


def text_of(instruction: Instruction, case: ProtectedCase) -> str:
    """The instruction as nasm takes it."""
    text = assembly_text(instruction, case.guest.operands)
    return _BYTES.get(text, text)
