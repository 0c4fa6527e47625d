"""VMRUN as Bochs 2.7 does it: the checks of the ledger, with the deviations that it was seen to have.

What deviates, and the evidence, is data in ``popek_specs/svm/bochs-deviations.toml``. Here each deviation that
is more than a missing check is a predicate, so that a differential test has nothing left to explain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import attrs

from popek.architectures.x86.evidence import ListedDeviation
from popek_specs.svm import table

from .checks import CHECKS, VmcbCheck, VmcbView, below_limit
from .verdict import violated
from .vmcb import SvmProcessor, Vmcb

Outcome = Literal["enters", "vmexit-invalid", "crash", "host-fault"]
"""``crash``: the emulator gives up; ``host-fault``: an exception in the host, behind VMRUN."""

_LME: Final = 1 << 8
_PG: Final = 1 << 31
_PAE: Final = 1 << 5
_LMSLE: Final = 1 << 13
_TCE: Final = 1 << 15
_TRAP_FLAG: Final = 1 << 8
_VIRTUAL_8086: Final = 1 << 17


@attrs.frozen(kw_only=True)
class SvmDeviation(ListedDeviation):
    """One way in which Bochs departs from the manual.

    Attributes:
        effect: ``not-checked``, ``weaker``, ``stricter``, ``different``, ``crash`` or ``host-fault``.
        models: where it applies: ``all`` or ``tce``.
        section: what the manual says, and where.
        nested: whether that baseline uses nested paging.
        bochs: how the evidence ends on Bochs.
        manual: how it ends by the manual.
    """

    section: str
    nested: bool
    bochs: Outcome
    manual: Outcome

    def applies(self, processor: SvmProcessor) -> bool:
        """Whether a model that is such a processor shows it."""
        return self.models == "all" or bool((processor.efer or 0) & _TCE)


@functools.cache
def deviations() -> tuple[SvmDeviation, ...]:
    """All deviations, in the order of the file."""
    entries = table("bochs-deviations.toml")["deviation"]
    return tuple(SvmDeviation(**{**entry, "rows": tuple(entry["rows"])}) for entry in entries)


def _nested(v: VmcbView) -> Any:
    return v.NP_CONTROL & 0xFF != 0


def _not_nested(v: VmcbView) -> Any:
    return v.NP_CONTROL & 0xFF == 0


_NOT_IN_BOCHS: Final = ("SVM-INJ-04", "SVM-CR-16", *(f"SVM-CTL-{number}" for number in range(13, 20)))

# Row -> what Bochs tests in its place.
_CHANGED: Final[Mapping[str, Callable[[VmcbCheck], VmcbCheck | None]]] = {
    "SVM-CTL-03": lambda check: attrs.evolve(check, holds=below_limit("IOPM_BASE", 1)),
    "SVM-CTL-04": lambda check: attrs.evolve(check, holds=below_limit("MSRPM_BASE", 1)),
    "SVM-CTL-06": lambda check: attrs.evolve(check, gates=(_nested,)),
    "SVM-CTL-07": lambda check: attrs.evolve(check, gates=(_nested,)),
    "SVM-CTL-08": lambda check: attrs.evolve(check, gates=(_nested,)),
    "SVM-CR-02": lambda check: attrs.evolve(
        check, holds=lambda v: (v.EFER & (_LMSLE | _TCE) == 0) & check.holds(v)
    ),
    "SVM-CR-06": lambda check: None,
    # What only the manual says of some processors Bochs does not look at; SEV and AVIC it does not have.
    **{name: lambda check: None for name in _NOT_IN_BOCHS},
    "SVM-CR-09": lambda check: None,  # see `oddity`
    "SVM-CR-10": lambda check: attrs.evolve(check, gates=()),
    "SVM-CR-15": lambda check: attrs.evolve(check, gates=(_not_nested, *check.gates[1:])),
}


@functools.cache
def bochs_checks() -> Mapping[str, VmcbCheck]:
    """The checks as Bochs makes them, by id."""
    found: dict[str, VmcbCheck] = {}
    for name, check in CHECKS.items():
        changed = _CHANGED[name](check) if name in _CHANGED else check
        if changed is not None:
            found[name] = changed
    return found


def oddity(vmcb: Vmcb, host: SvmProcessor, failed: tuple[str, ...]) -> Outcome | None:
    """What Bochs does that no processor would: give up, or fault in the host; None where it does neither.

    Args:
        vmcb: the guest.
        host: the processor, and whether its host pages.
        failed: the checks, as Bochs makes them, that the VMCB fails.
    """
    # An event is looked at after the guest's state has been loaded.
    if any(not name.startswith("SVM-INJ") for name in failed):
        return None
    if violated(CHECKS["SVM-CR-09"], VmcbView(vmcb.fields, host)):
        return "crash"
    flags, long_mode = vmcb.fields["RFLAGS"], vmcb.fields["EFER"] & _LME and vmcb.fields["CR0"] & _PG
    # Both show only where the host, as it does when it pages, runs in long mode.
    if not host.host_paging:
        return None
    if flags & _VIRTUAL_8086 and not long_mode:
        return "crash"
    # The trap of single-stepping comes behind the guest's first instruction, if that is fetched.
    return "host-fault" if flags & _TRAP_FLAG and not failed and not _fetch_faults(vmcb) else None


def fetched_through(vmcb: Vmcb) -> tuple[int, ...]:
    """Where the entries of PAE paging stand that the guest's first instruction is fetched through, as far as is known.

    The first one leads to the second; none outside PAE paging.
    """
    fields = vmcb.fields
    if not (fields["CR0"] & _PG and fields["CR4"] & _PAE) or fields["EFER"] & _LME:
        return ()
    address = fields["CS_BASE"] + fields["RIP"] & 0xFFFF_FFFF
    first = (fields["CR3"] & 0xFFFF_FFE0) + 8 * (address >> 30)
    entry = vmcb.memory.get(first)
    if entry is None or not entry & 1:
        return (first,)
    return first, (entry & 0x000F_FFFF_FFFF_F000) + 8 * (address >> 21 & 0x1FF)


def _fetch_faults(vmcb: Vmcb) -> bool:
    """Whether an entry that the guest's first instruction is fetched through is not there."""
    return any(not vmcb.memory.get(place, 0) & 1 for place in fetched_through(vmcb))
