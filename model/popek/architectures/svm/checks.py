"""What VMRUN checks of the VMCB (APM vol. 2, 15.5.1 and neighbours), one predicate for each row of the ledger.

Every failed check ends in the same way: #VMEXIT with VMEXIT_INVALID. Predicates are plain Python over a view
whose fields are integers or `Word`s of 64 bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import attrs

from popek_specs.svm import rows

from .cpuid import by_cpuid
from .vmcb import FIELDS, SvmProcessor

Certainty = Literal["must", "may", "unsure"]
"""Whether a violation fails VMRUN on all processors, on some as far as is known, or nobody says what becomes of it."""

_HIGH32: Final = 0xFFFF_FFFF_0000_0000
_PAGE: Final = (1 << 64) - 4096
_WIDEST: Final = 52
"""No processor has more physical-address bits."""
_EFER_RESERVED: Final = _HIGH32 | 0xFFC9_0200
"""Bits 63:22, 19, 16 and 9; the others have a meaning on some processor."""
_CR4_RESERVED: Final = _HIGH32 | 0xFF08_E000
"""Bits 63:24, 19 and 15:13 (bit 12 is LA57, bit 23 CET)."""


class NotGiven(Exception):  # noqa: N818 -- control flow inside the checks, never shown
    """A check needs something that nobody gave: a field id, or words."""


class VmcbView:
    """The fields of one VMCB as attributes, and `processor`; an unknown one raises `NotGiven`."""

    def __init__(
        self, fields: Mapping[str, Any], processor: SvmProcessor, memory: Mapping[int, int] | None = None
    ) -> None:
        """Look at these fields, and at quadwords of memory by physical address."""
        self._fields = fields
        self._processor = processor
        self._memory = memory or {}

    def __getattr__(self, name: str) -> Any:
        """A field's value."""
        if name in FIELDS:
            if FIELDS[name].area == "save" and self._state_is_encrypted:
                raise NotGiven("the VMSA, which has the state of an SEV-ES guest")
            if name not in self._fields:
                raise NotGiven(name)
            return self._fields[name]
        raise AttributeError(name)

    @property
    def has_sev(self) -> bool:
        """Whether the processor may have SEV."""
        return self._processor.sev is not False

    @property
    def without_ibt(self) -> bool:
        """Whether the processor is known to have no indirect-branch tracking, the other half of CET."""
        return self._processor.ibt is False

    def lacks(self, feature: str) -> bool:
        """Whether the processor is known to lack a feature."""
        return getattr(self._processor, feature) is False

    @property
    def _state_is_encrypted(self) -> bool:
        """Whether VMRUN reads the guest's state from the VMSA, and not from the save area."""
        control = self._fields.get("NP_CONTROL", 0)
        return isinstance(control, int) and control & 6 == 6 and self.has_sev

    def ask(self, name: str) -> Any:
        """What the processor says; raises `NotGiven` if that is unknown."""
        value = getattr(self._processor, name)
        if value is None:
            raise NotGiven(name)
        return value

    @property
    def beyond(self) -> int:
        """Physical-address bits that the processor does not have."""
        width: int = self.ask("maxphyaddr")
        return (1 << 64) - (1 << width)

    def fits_physical(self, value: Any, low: int = 0) -> Any:
        """No bit of `low`, and none at or above the physical-address width, which is 52 at most."""
        if isinstance(value, int) and (value & low or value >> _WIDEST):
            return False
        return value & (self.beyond | low) == 0

    def has_bits(self, register: Literal["efer", "cr4"], value: Any, reserved: int) -> Any:
        """Whether a register has no reserved bit, and none that the processor lacks.

        Raises:
            NotGiven: the value has a bit that only CPUID tells of, and nobody gave it.
        """
        bits = getattr(self._processor, register)
        if bits is not None:
            return value & (reserved | bits ^ (1 << 64) - 1) == 0
        asked = by_cpuid(register, self._processor)
        if isinstance(value, int) and value & reserved == 0 != value & asked:
            raise NotGiven(f"CPUID for the bits of {register.upper()}")
        return value & reserved == 0

    @property
    def pdptes(self) -> tuple[int, ...]:
        """The four page-directory-pointer-table entries that CR3 points to in PAE paging."""
        table = self.CR3 & 0xFFFF_FFE0
        for address in range(table, table + 32, 8):
            if address not in self._memory:
                raise NotGiven(f"memory at {address:#x}")
        return tuple(self._memory[table + offset] for offset in range(0, 32, 8))


@attrs.frozen(eq=False)
class VmcbCheck:
    """One row of the ledger as a predicate; a violation of an unsure one decides nothing, and is named.

    Attributes:
        id: of the row.
        gates: conditions under which it applies.
        holds: the predicate.
        fields: ids of the fields that a failure shows.
        certainty: see `Certainty`.
    """

    id: str
    gates: tuple[Callable[[VmcbView], Any], ...]
    holds: Callable[[VmcbView], Any]
    fields: tuple[str, ...]
    certainty: Certainty = "must"

    @property
    def statement(self) -> str:
        """The condition in words."""
        return ledger()[self.id]["statement"]

    @property
    def gate_text(self) -> str:
        """When it applies, in words."""
        return ledger()[self.id]["gate"]

    @property
    def section(self) -> str:
        """Where the manual says so."""
        return ledger()[self.id]["source"]


@functools.cache
def ledger() -> Mapping[str, Mapping[str, str]]:
    """The rows of the ledger by id."""
    return {row["id"]: row for row in rows("vmrun-checks.csv")}


def _on(name: str, number: int) -> Callable[[VmcbView], Any]:
    return lambda v: getattr(v, name) & 1 << number != 0


def _off(name: str, number: int) -> Callable[[VmcbView], Any]:
    return lambda v: getattr(v, name) & 1 << number == 0


def _clear(name: str, mask: int) -> Callable[[VmcbView], Any]:
    return lambda v: getattr(v, name) & mask == 0


def _pdptes(v: VmcbView) -> bool:
    # Bits 2:1, 8:5 and those beyond the physical-address width, in entries that are present.
    reserved = 0x1E6 | v.beyond
    return all(entry & 1 == 0 or entry & reserved == 0 for entry in v.pdptes)


def below_limit(name: str, pages: int) -> Callable[[VmcbView], Any]:
    """Whether so many pages from a base, rounded down, lie below the physical-address limit."""
    return lambda v: getattr(v, name) & _PAGE <= (1 << v.ask("maxphyaddr")) - pages * 4096


def _pat(v: VmcbView) -> Any:
    # Bits 7:3 of each byte are 0, and bit 1 comes only with bit 2.
    pat = v.G_PAT
    return (pat & 0xF8F8_F8F8_F8F8_F8F8 == 0) & (
        pat >> 1 & (pat >> 2 ^ (1 << 64) - 1) & 0x0101_0101_0101_0101 == 0
    )


def _tlb_control(v: VmcbView) -> Any:
    value = v.TLB_CONTROL
    plain = (value == 0) | (value == 1)
    if plain is True:
        return True
    flushes = (value == 3) | (value == 7)
    return plain | flushes if v.ask("flush_by_asid") else plain


_NESTED = _on("NP_CONTROL", 0)


def _sev(number: int) -> Callable[[VmcbView], Any]:
    """Whether a bit enables SEV or SEV-ES: it does unless the processor is known to have neither."""
    return lambda v: v.has_sev and v.NP_CONTROL & 1 << number != 0


_SEV, _SEV_ES = _sev(1), _sev(2)
_NP_RESERVED: Final = (1 << 64) - 1 & ~0x8FF
"""Bits 63:12 and 10:8; the others have a meaning on some processor."""
_SPEC_CTRL: Final = (1 << 64) - 1 & ~0x87
"""Bits of SPEC_CTRL beside IBRS, STIBP, SSBD and PSFD."""
_EXCEPTIONS: Final = frozenset(range(32)) - {2, 9, 15, 20, *range(22, 28), 31}
"""Vectors of AMD's exceptions (APM vol. 2, table 8-1); 21 is #CP, 28 to 30 are #HV, #VC and #SX."""
_NO_EXCEPTION: Final = tuple(sorted(frozenset(range(32)) - _EXCEPTIONS - {2}))
_AVIC = _on("VINTR_CONTROL", 31)
_X2AVIC = _on("VINTR_CONTROL", 30)
_INJECTS = _on("EVENTINJ", 31)


def _long(v: VmcbView) -> Any:
    return (v.EFER & 1 << 8 != 0) & (v.CR0 & 1 << 31 != 0)


def _not_long(v: VmcbView) -> Any:
    return (v.EFER & 1 << 8 == 0) | (v.CR0 & 1 << 31 == 0)


def _no_exception(vector: Any) -> Any:
    """Whether a vector is none of those below 32 that no exception has (NMI is SVM-INJ-02's)."""
    found = vector != _NO_EXCEPTION[0]
    for number in _NO_EXCEPTION[1:]:
        found = (vector != number) & found
    return found


def _avic_index(v: VmcbView) -> Any:
    """The highest index is at most 255, in x2AVIC mode 511; FFH is reserved in xAPIC mode."""
    index = v.AVIC_PHYSICAL_TABLE & 0x1FF
    x2 = v.VINTR_CONTROL & 1 << 30 != 0
    return x2 | (index < 0xFF)


def _cr3(v: VmcbView) -> Any:
    """No bit at or above the physical-address width; outside long mode CR3 has 32 bits in any case."""
    return v.fits_physical(v.CR3)


def _s_cet(v: VmcbView) -> Any:
    """No reserved bit, not SUPPRESS and TRACKER together, and only the half that exists."""
    value = v.S_CET
    fits = (value & 0x3C0 == 0) & (value & 0xC00 != 0xC00)
    return fits & (value & ((1 << 64) - 4) == 0) if v.without_ibt else fits


def _avic_tables(v: VmcbView) -> Any:
    """Pages below the limit; the physical table's bits 11:9 are no part of the highest index."""
    return (
        v.fits_physical(v.AVIC_BACKING_PAGE, 0xFFF)
        & v.fits_physical(v.AVIC_LOGICAL_TABLE, 0xFFF)
        & v.fits_physical(v.AVIC_PHYSICAL_TABLE, 0xE00)
    )


def _allowed_sev_features(v: VmcbView) -> Any:
    """What the guest has is allowed, where bit 63 makes the list of the allowed ones valid."""
    allowed, features = v.ALLOWED_SEV_FEATURES, v.GUEST_SEV_FEATURES
    return (allowed & 1 << 63 == 0) | (features & (allowed ^ (1 << 64) - 1) == 0)


def _pml(v: VmcbView) -> Any:
    return _NESTED(v) & v.fits_physical(v.PML_ADDRESS, 0xFFF)


def _nested_with(feature: Literal["gmet", "sss"]) -> Callable[[VmcbView], Any]:
    """Nested paging, on a processor that is not known to lack a feature of it."""
    return lambda v: _NESTED(v) & (not v.lacks(feature))


def _exception(v: VmcbView) -> Any:
    return v.EVENTINJ & 0x700 == 0x300


def _known_type(v: VmcbView) -> Any:
    kind = v.EVENTINJ >> 8 & 7
    return (kind == 0) | (kind == 2) | (kind == 3) | (kind == 4)


CHECKS: Final[Mapping[str, VmcbCheck]] = {
    check.id: check
    for check in (
        VmcbCheck("SVM-CTL-01", (), _on("INTERCEPTS_4", 0), ("INTERCEPTS_4",)),
        VmcbCheck("SVM-CTL-02", (), lambda v: v.ASID != 0, ("ASID",)),
        VmcbCheck("SVM-CTL-03", (), below_limit("IOPM_BASE", 3), ("IOPM_BASE",)),
        VmcbCheck("SVM-CTL-04", (), below_limit("MSRPM_BASE", 2), ("MSRPM_BASE",)),
        VmcbCheck("SVM-CTL-05", (), _tlb_control, ("TLB_CONTROL",), "may"),
        VmcbCheck("SVM-CTL-06", (_NESTED,), lambda v: v.ask("host_paging"), ("NP_CONTROL",)),
        VmcbCheck("SVM-CTL-07", (_NESTED,), lambda v: v.fits_physical(v.N_CR3), ("N_CR3",)),
        VmcbCheck("SVM-CTL-08", (_NESTED,), _pat, ("G_PAT",)),
        VmcbCheck(
            "SVM-CTL-09",
            (_on("VINTR_CONTROL", 26), lambda v: v.ask("vnmi")),
            _on("INTERCEPTS_3", 1),
            ("VINTR_CONTROL", "INTERCEPTS_3"),
        ),
        VmcbCheck("SVM-CTL-10", (_AVIC,), _NESTED, ("VINTR_CONTROL", "NP_CONTROL"), "may"),
        VmcbCheck(
            "SVM-CTL-11",
            (_AVIC,),
            _avic_tables,
            ("AVIC_BACKING_PAGE", "AVIC_LOGICAL_TABLE", "AVIC_PHYSICAL_TABLE"),
            "may",
        ),
        VmcbCheck(
            "SVM-INJ-01",
            (_INJECTS,),
            _known_type,
            ("EVENTINJ",),
        ),
        VmcbCheck(
            "SVM-INJ-02",
            (_INJECTS, _exception),
            lambda v: (v.EVENTINJ & 0xFF <= 31) & (v.EVENTINJ & 0xFF != 2),
            ("EVENTINJ",),
        ),
        VmcbCheck(
            "SVM-INJ-03",
            (_INJECTS, _exception, _long, _on("CS_ATTRIBUTES", 9)),
            lambda v: (v.EVENTINJ & 0xFF != 5) & (v.EVENTINJ & 0xFF != 4),
            ("EVENTINJ", "CS_ATTRIBUTES"),
            "may",
        ),
        VmcbCheck(
            "SVM-INJ-04",
            (_INJECTS, _exception),
            lambda v: _no_exception(v.EVENTINJ & 0xFF),
            ("EVENTINJ",),
            "may",
        ),
        VmcbCheck("SVM-CR-01", (), _on("EFER", 12), ("EFER",)),
        VmcbCheck("SVM-CR-02", (), lambda v: v.has_bits("efer", v.EFER, _EFER_RESERVED), ("EFER",)),
        VmcbCheck("SVM-CR-03", (lambda v: not v.ask("long_mode"),), _clear("EFER", 0x500), ("EFER",)),
        VmcbCheck("SVM-CR-04", (), lambda v: v.CR0 & 3 << 29 != 1 << 29, ("CR0",)),
        VmcbCheck("SVM-CR-05", (), _clear("CR0", _HIGH32), ("CR0",)),
        VmcbCheck("SVM-CR-06", (), _cr3, ("CR3",)),
        VmcbCheck("SVM-CR-07", (), lambda v: v.has_bits("cr4", v.CR4, _CR4_RESERVED), ("CR4",)),
        VmcbCheck("SVM-CR-08", (_long,), _on("CR4", 5), ("EFER", "CR0", "CR4")),
        VmcbCheck("SVM-CR-09", (_long,), _on("CR0", 0), ("EFER", "CR0")),
        VmcbCheck(
            "SVM-CR-10",
            (_long, _on("CR4", 5)),
            lambda v: v.CS_ATTRIBUTES & 0x600 != 0x600,
            ("CS_ATTRIBUTES", "EFER", "CR0", "CR4"),
        ),
        VmcbCheck("SVM-CR-11", (), _clear("DR6", _HIGH32), ("DR6",)),
        VmcbCheck("SVM-CR-12", (), _clear("DR7", _HIGH32), ("DR7",)),
        VmcbCheck("SVM-CR-13", (_on("CR4", 23),), _on("CR0", 16), ("CR4", "CR0")),
        VmcbCheck("SVM-CR-14", (lambda v: v.ask("cet"),), _s_cet, ("S_CET",)),
        VmcbCheck(
            "SVM-CR-16",
            (lambda v: v.ask("cet"), _not_long),
            lambda v: v.S_CET >> 32 == 0,
            ("S_CET", "EFER", "CR0"),
            "may",
        ),
        VmcbCheck("SVM-CTL-13", (), lambda v: v.NP_CONTROL & _NP_RESERVED == 0, ("NP_CONTROL",), "may"),
        VmcbCheck("SVM-CTL-14", (_SEV,), _NESTED, ("NP_CONTROL",)),
        VmcbCheck("SVM-CTL-15", (_SEV_ES,), _SEV, ("NP_CONTROL",)),
        VmcbCheck("SVM-CTL-16", (_SEV_ES,), lambda v: v.fits_physical(v.VMSA, 0xFFF), ("VMSA",)),
        VmcbCheck(
            "SVM-CTL-17",
            (_SEV_ES,),
            _allowed_sev_features,
            ("ALLOWED_SEV_FEATURES", "GUEST_SEV_FEATURES"),
            "may",
        ),
        VmcbCheck("SVM-CTL-18", (_X2AVIC,), _AVIC, ("VINTR_CONTROL",), "may"),
        VmcbCheck(
            "SVM-CTL-19",
            (_AVIC,),
            lambda v: _avic_index(v),
            ("AVIC_PHYSICAL_TABLE", "VINTR_CONTROL"),
            "may",
        ),
        VmcbCheck("SVM-CTL-20", (_on("NP_CONTROL", 3),), _nested_with("gmet"), ("NP_CONTROL",), "unsure"),
        VmcbCheck("SVM-CTL-21", (_on("NP_CONTROL", 4),), _nested_with("sss"), ("NP_CONTROL",), "unsure"),
        VmcbCheck(
            "SVM-CTL-22",
            (_on("INTERCEPTS_5", 5),),
            lambda v: not v.lacks("bus_lock_threshold"),
            ("INTERCEPTS_5", "BUS_LOCK_THRESHOLD"),
            "unsure",
        ),
        VmcbCheck("SVM-CTL-23", (_on("NP_CONTROL", 11),), _pml, ("NP_CONTROL", "PML_ADDRESS"), "unsure"),
        VmcbCheck("SVM-CR-17", (), _clear("SPEC_CTRL", _SPEC_CTRL), ("SPEC_CTRL",), "unsure"),
        VmcbCheck(
            "SVM-CR-15",
            (_off("NP_CONTROL", 0), _on("CR0", 31), _on("CR4", 5), _off("EFER", 8)),
            _pdptes,
            ("CR3", "CR4", "NP_CONTROL"),
        ),
    )
}
"""The checks by id, in the order of the ledger."""

NOT_MODELLED: Final[Mapping[str, str]] = {
    "SVM-PRE-01": "about the instruction, not the VMCB: #UD outside protected mode or without host EFER.SVME",
    "SVM-PRE-02": "about the instruction, not the VMCB: #GP(0) with CPL above 0",
    "SVM-PRE-03": "about the address of the VMCB, not its contents: #GP(0)",
    "SVM-PRE-04": "not checked by VMRUN on all models",
    "SVM-CTL-12": "which ASIDs are SEV's depends on how the platform was set up: CPUID 8000001FH ECX and EDX",
}
"""Rows without a predicate, and why."""
