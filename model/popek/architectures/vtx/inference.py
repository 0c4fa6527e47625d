"""What a VMCS shows of its processor: the host it describes runs there, with the control registers that it gives.

Only the host-state area is taken for evidence, for a guest may ask for what the processor does not have. What is
known of the processor by other means takes precedence, and the rows that check the host's control registers
themselves gain nothing from it.
"""

from __future__ import annotations

from typing import Final

import attrs

from .capabilities import Capabilities
from .vmcs import Vmcs

_LA57, _CET, _PKS, _LAM, _FRED = 1 << 12, 1 << 23, 1 << 24, 1 << 28, 1 << 32
_TELLING: Final = _LA57 | _CET | _PKS | _LAM | _FRED
_FEATURES: Final = {_CET: "CET", _PKS: "PKS", _LAM: "LAM", _FRED: "FRED"}
_NAMES: Final = {_LA57: "LA57", _CET: "CET", _PKS: "PKS", _LAM: "LAM_SUP", _FRED: "FRED"}
_SHOWS: Final = {
    _LA57: "linear addresses have 57 bits",
    _CET: "the processor has CET",
    _PKS: "the processor has protection keys for supervisor pages",
    _LAM: "the processor has linear-address masking",
    _FRED: "the processor has FRED",
}


def evidence(vmcs: Vmcs) -> int:
    """The bits of the host's CR4 that show something of the processor."""
    return vmcs.fields.get("HOST_CR4", 0) & _TELLING


def with_evidence(known: Capabilities, bits: int) -> tuple[Capabilities, tuple[str, ...]]:
    """A processor with what some bits of the host's CR4 show of it, and each inference in words.

    Args:
        known: what is known by other means.
        bits: as `evidence` says.
    """
    shown: list[str] = []
    features = dict(known.features)
    width = known.linear_address_width
    for bit, words in _SHOWS.items():
        if not bits & bit:
            continue
        if bit == _LA57:
            if width is not None or "0x80000008.0.eax" in known.cpuid:
                continue
            width = 57
        elif bit == _CET:
            if known.has("CET_SS") is not None or known.has("CET_IBT") is not None:
                continue
            features["CET"] = True
        else:
            if known.has(_FEATURES[bit]) is not None:
                continue
            features[_FEATURES[bit]] = True
        shown.append(f"HOST_CR4.{_NAMES[bit]} (bit {bit.bit_length() - 1}) = 1: {words}")
    if not shown:
        return known, ()
    return attrs.evolve(known, features=features, linear_address_width=width), tuple(shown)


__all__ = ["evidence", "with_evidence"]
