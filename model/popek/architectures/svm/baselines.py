"""VMCBs that enter a guest, one for each mode: where generation starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .vmcb import FIELDS, SvmProcessor, Vmcb

_COMMON: Final = {
    "INTERCEPTS_4": 1,
    "ASID": 1,
    "EFER": 0x1000,
    "DR6": 0xFFFF_0FF0,
    "DR7": 0x400,
    "RFLAGS": 2,
    "CS_ATTRIBUTES": 0xC9B,
    "CR0": 0x8001_0031,
    "CR3": 0x20_0000,
    "CR4": 0x20,
}
_LONG: Final = {"EFER": 0x1D01, "CS_ATTRIBUTES": 0x29B}
_NESTED: Final = {"NP_CONTROL": 1, "N_CR3": 0x10_0000, "G_PAT": 0x0007_0406_0007_0406}
MODES: Final[Mapping[str, Mapping[str, int]]] = {
    "64-bit": {**_LONG, **_NESTED},
    "protected": _NESTED,
    "real": {**_NESTED, "CR0": 0x6000_0010, "CR4": 0, "CS_ATTRIBUTES": 0x9B},
    "64-bit without nested paging": _LONG,
    "32-bit paging without nested paging": {"CR4": 0},
}
"""Fields by mode; the others are 0 or as in every mode."""


def baseline(mode: str) -> Vmcb:
    """A VMCB with every field given, which enters a guest in this mode.

    >>> baseline("real").fields["CR0"]
    1610612752
    """
    return Vmcb(mode, {**dict.fromkeys(FIELDS, 0), **_COMMON, **MODES[mode]})


def has_mode(mode: str, processor: SvmProcessor) -> bool:
    """Whether a processor has a mode."""
    return not mode.startswith("64-bit") or processor.long_mode is not False


__all__ = ["MODES", "baseline", "has_mode"]
