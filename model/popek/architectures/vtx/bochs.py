"""The VM-entry checks as Bochs 2.7 does them: the ledger's, with the deviations that it was seen to have.

What deviates, and the evidence, is data in ``popek_specs/vtx/bochs-deviations.toml``. Here each deviation
that is more than a missing check is a predicate, so that a differential test has nothing left to explain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from popek.architectures.vtx.entry_checks.msr_areas import _wrmsr, all_legal, numbers
from popek.architectures.vtx.entry_checks.msr_entries import Entry
from popek.architectures.vtx.entry_checks.registry import refuses
from popek.architectures.x86.evidence import ListedDeviation
from popek_specs.vtx import table

from .capabilities import Capabilities, CapabilityView
from .entry_checks import CHECKS, Check, Condition
from .view import Decision, View, canonical, off, on


@attrs.frozen(kw_only=True)
class VmxDeviation(ListedDeviation):
    """One way in which Bochs departs from the manual.

    Attributes:
        effect: ``not-checked``, ``weaker``, ``stricter``, ``different`` or ``other-qualification``.
        models: where it applies: ``all``, ``cet``, ``any-error-code``, ``no-mtf``, ``unrestricted``.
        bochs: how the evidence ends on Bochs, such as ``entry-failure 33 0``.
        manual: how it ends by the manual.
    """

    bochs: str
    manual: str

    def applies(self, capabilities: Capabilities) -> bool:
        """Whether a model with these capabilities shows it."""
        return _MODELS[self.models](CapabilityView(capabilities))


_MODELS: Final[Mapping[str, Callable[[CapabilityView], bool]]] = {
    "all": lambda cap: True,
    "cet": lambda cap: bool(cap.entry_may >> 20 & 1),
    "any-error-code": lambda cap: bool(cap.any_error_code),
    "no-mtf": lambda cap: not cap.pri_may >> 27 & 1,
    "unrestricted": lambda cap: bool(cap.sec_may >> 7 & 1),
}


@functools.cache
def deviations() -> tuple[VmxDeviation, ...]:
    """All deviations, in the order of the file."""
    return tuple(VmxDeviation(**{**entry, "rows": tuple(entry["rows"])}) for entry in _file()["deviation"])


@functools.cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = table("bochs-deviations.toml")
    return found


def _null_ss(v: View) -> Decision:
    return (v.ENTRY_CONTROLS & 0x200 == 0) | (v.GUEST_SS_SELECTOR & 0xFFFC != 0)


_SS_COUNTS: Final = Condition("not an IA-32e mode guest with a null SS", _null_ss)


def _dpl(v: View) -> Any:
    return v.GUEST_CS_ACCESS_RIGHTS >> 5 & 3


def _data_dpl(register: str) -> Callable[[View], Decision]:
    rights, selector = f"GUEST_{register}_ACCESS_RIGHTS", f"GUEST_{register}_SELECTOR"

    def fits(v: View) -> Decision:
        return (getattr(v, rights) & 0xF == 11) | (getattr(v, rights) >> 5 & 3 >= getattr(v, selector) & 3)

    return fits


# Row -> what Bochs tests in its place.
_PREDICATES: Final[Mapping[str, Callable[[View], Decision]]] = {
    "GUEST-CR-06": lambda v: on(v.GUEST_CR4, 5),
    "GUEST-AR-CS-04": lambda v: _dpl(v) == v.GUEST_CS_SELECTOR & 3,
    "GUEST-AR-CS-05": lambda v: _dpl(v) <= v.GUEST_CS_SELECTOR & 3,
    **{f"GUEST-AR-{register}-04": _data_dpl(register) for register in ("DS", "ES", "FS", "GS")},
    "GUEST-ACT-05": lambda v: v.injects_nmi | (v.vector == 18),
    "GUEST-DBG-01": lambda v: v.GUEST_PENDING_DEBUG_EXCEPTIONS & 0xFFFF_AFF0 == 0,
    "ENTRY-01": lambda v: off(v.ENTRY_CONTROLS, 11),
    "GUEST-MSR-10": lambda v: canonical(v, v.GUEST_SSP) & (v.ia32e | (v.GUEST_SSP >> 32 == 0)),
}


def lacks_msr(number: int) -> bool:
    """Whether Bochs lacks a register that the processor it models has."""
    return any(
        int(first, 16) <= number <= int(last, 16)
        for entry in _file()["msr_missing"]
        for first, last in zip(entry["first"], entry["last"], strict=True)
    )


def _without_missing_msrs(check: Check) -> Check:
    """LOAD-06 of Bochs, whose WRMSR refuses the registers that it lacks."""

    def legal(v: View, item: Entry) -> Decision:
        return False if lacks_msr(int(item[0])) else _wrmsr(v, item)

    return attrs.evolve(check, holds=lambda v: all_legal(v, legal), numbers=lambda v: numbers(v, legal))


def bochs_checks(capabilities: Capabilities) -> tuple[Check, ...]:
    """The checks of a Bochs model with these capabilities."""
    by_row = {row: item for item in deviations() if item.applies(capabilities) for row in item.rows}
    found: list[Check] = []
    for check in CHECKS.values():
        item = by_row.get(check.id)
        if check.id == "LOAD-06":
            found.append(_without_missing_msrs(check))
        elif item is None:
            found.append(check)
        elif item.effect == "other-qualification":
            found.append(attrs.evolve(check, certainty="must", outcome=refuses(0)))
        elif item.id == "null-ss-in-64-bit-mode":
            found.append(attrs.evolve(check, gates=(*check.gates, _SS_COUNTS)))
        elif item.effect != "not-checked":
            found.append(attrs.evolve(check, holds=_PREDICATES[check.id]))
    return tuple(found)
