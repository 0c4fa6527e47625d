"""What the random steps of 64-bit guests share."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from typing import Final

from popek.emulators.bochs.simulator import BochsError
from popek.emulators.x86_64.assembly import assemble_all, assembly_text
from popek.emulators.x86_64.cases import X64Case
from popek.emulators.x86_64.compare import exists_in_compatibility_mode, only_in_compatibility_mode
from popek.kernel.instruction import Instruction

from .case import LongCase

COMPATIBLE_SHARE: Final = 0.2
Key = tuple[bool, str]
"""Whether it is 64-bit mode, and the instruction as nasm takes it."""


def in_64_bit_mode(instruction: Instruction, rng: random.Random) -> bool:
    """Draw the mode: 64-bit mode, or compatibility mode where the form is there."""
    long = rng.random() >= COMPATIBLE_SHARE or not exists_in_compatibility_mode(instruction)
    return long and not only_in_compatibility_mode(instruction)


def without_segment(guest: X64Case) -> bool:
    """It has a memory operand that names neither FS nor GS."""
    segments = [number for name, number in guest.operands.items() if name.endswith(".segment")]
    return bool(segments) and segments[0] < 4


def key_of(instruction: Instruction, case: LongCase) -> Key:
    """The mode, and the instruction as nasm takes it."""
    guest = case.guest
    text = assembly_text(instruction, guest.operands, long=guest.long)
    if case.relative:
        start = guest.state()["rip"]
        text = re.sub(r"\[abs (-?\d+)\]", lambda found: f"[rel $+{int(found[1]) - start}]", text)
    return guest.long, text


def assembled(keys: Iterable[Key]) -> Mapping[Key, bytes]:
    """The machine code of each, but of those that nasm refuses."""
    wanted = list(dict.fromkeys(keys))
    try:
        return assemble_all(wanted)
    except BochsError:
        if len(wanted) == 1:
            return {}
    half = len(wanted) // 2
    return {**assembled(wanted[:half]), **assembled(wanted[half:])}
