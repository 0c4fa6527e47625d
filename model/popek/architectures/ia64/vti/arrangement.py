"""Guest and VMM under VT-i with the acceleration and disable bits left open: symbols of what the VMM has.

Fidelity compares with the map of what the hardware has after the run, for after an accelerated bsw one half of vgr
and vbgr holds what no map of the guest's state can say.  Time is outside it: the hardware's clocks, offset included,
are at the guest's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import attrs

from popek.kernel.assistance import PRIVATE, Arrangement, Ownable
from popek.kernel.technique import Technique
from popek.kernel.words import TRUE, Word, all_of

from ..deprivileging import BANK_0, CLOCKS, FILES, OWN_PSR, orderly, promises
from ..state import Ia64
from .technique import kernel, virtual_machine

ACCELERATIONS: Final = (
    "a_int",
    "a_from_int_cr",
    "a_to_int_cr",
    "a_from_psr",
    "a_from_cpuid",
    "a_cover",
    "a_bsw",
    "a_tf",
    "a_ic_um",
)
DISABLES: Final = ("d_vmsw", "d_extint", "d_ibr_dbr", "d_pmc", "d_to_pmd", "d_itm", "d_psr_i")
BITS: Final[Mapping[str, str]] = {
    **{name: f"vac.{name}" for name in ACCELERATIONS},
    **{name: f"vdc.{name}" for name in DISABLES},
}
"""The leaf of each control bit."""

# What a VMM may leave to the guest (rules V5 to V8: "unless dedicated", "unless switched").
GRANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "kernel-registers": ("kr",),
    "counters": ("pmc", "pmd"),
    "dcr": ("cr.dcr",),
    "debug": ("ibr", "dbr"),
    "external-interrupts": (
        "cr.ivr", "cr.tpr", "cr.irr0", "cr.irr1", "cr.irr2", "cr.irr3", "in_service",
    ),
    "timer": ("cr.itm",),
    "features": (),  # the guest is shown the processor's own CPUID[4]{63:32} (rule V12)
}  # fmt: skip
OWNABLE: Final[Mapping[str, Ownable]] = {
    "kernel-registers": Ownable("AR.K0 to AR.K7; a VMM that leaves them to the guest switches them", ("kr",)),
    "counters": Ownable("PMC and PMD", GRANTS["counters"]),
    "dcr": Ownable("CR.DCR; a VMM that leaves it to the guest mirrors it", GRANTS["dcr"]),
    "debug": Ownable("IBR and DBR", GRANTS["debug"]),
    "external-interrupts": Ownable("CR.IVR, CR.TPR, CR.IRR0-3", GRANTS["external-interrupts"]),
    "timer": Ownable("CR.ITM", GRANTS["timer"]),
    "features": Ownable("CPUID[4]{63:32}: what the guest is told of the processor's features", ("cpuid",)),
}
TOUCHES: Final = ("psr", "translations", "rr", "pkr", "cpuid", "msr", "cr", "tc_purged", "bank0", "bank0_nat")
USUAL: Final = frozenset(OWNABLE) - {"kernel-registers", "dcr"}


@attrs.frozen
class VtiProfile:
    """What the VMM grants and what it may count on.

    Attributes:
        grants: names of `GRANTS`: components that hold the guest's values and are not the VMM's.
        orderly: above CPL 0 the guest runs with translation and interruption collection on.
        small_cpuid: the guest's processor has at most five CPUID registers, as the VPD has.
        narrow: the guest is told that its processor implements one address bit less, as PSR.vm leaves it.
        assumed: settings of the open points in the sources (`Ia64.assume`), by name; 0 when missing.
    """

    grants: frozenset[str] = frozenset({"kernel-registers", "dcr"})
    orderly: bool = True
    small_cpuid: bool = True
    narrow: bool = True
    assumed: Mapping[str, int] = attrs.field(factory=dict, hash=False)

    @property
    def given(self) -> tuple[str, ...]:
        """The granted components."""
        return tuple(name for grant in sorted(self.grants) for name in GRANTS[grant])


def arrange(profile: VtiProfile, knob: Mapping[str, Word], masks: Mapping[str, int]) -> Arrangement[Ia64]:
    """A guest beside a VMM that grants so much, with these words for the control bits."""
    readings = {f"assume.{name}": profile.assumed.get(name, 0) for name in _assumptions()}
    shown = {"psr.vm": 0, "features.vm": 0, "features.narrow": int(profile.narrow)}
    given = profile.given
    # The guest's view of what has no place in hardware or VPD is the VMM's copy: it must not go stale.
    kept = [name for name in ("kr", *FILES, "tc_purged", "in_service") if name not in given]
    own = [name for name in _owned_components() if name not in given]
    technique: Technique[Ia64] = Technique(
        "vt-i",
        "VT-i",
        map=partial(_image, given),
        owned=("psr.vm", *(f"psr.{name}" for name in OWN_PSR), *_parts(own)),
        shadowed=_parts(kept),
        settled=True,
        uncompared=CLOCKS,
        deprivileged=kernel,
        guest=partial(_guest, profile),
        private=partial(_private, profile),
    )
    bits = {leaf: knob[name] for name, leaf in BITS.items()}
    private = Ia64.symbolic(PRIVATE).with_changes({"features.vm": 1, "psr.vm": 0, **readings, **bits})
    return Arrangement(technique, private, start=lambda state: state.with_changes({**shown, **readings}))


def _image(given: Sequence[str], guest: Ia64, private: Ia64) -> Ia64:
    """f(S, P), with the hardware's clocks, offset included, at the guest's."""
    hardware = virtual_machine(guest, private, given, idle=private)
    offset = hardware.features.gitc.sign_extend(64) & hardware.ito
    for clock in CLOCKS:
        hardware[clock] = guest[clock] - offset
    return hardware


def _guest(profile: VtiProfile, guest: Ia64) -> Word:
    conditions = [orderly(guest)] if profile.orderly else []
    if profile.small_cpuid:
        conditions.append(guest.cpuid.load(Word(8, 3))[7:0] <= 4)
    return all_of(conditions)


def _private(profile: VtiProfile, guest: Ia64, private: Ia64) -> Word:
    four = Word(8, 4)
    shared = guest.cpuid.load(four)[63:32] == private.cpuid.load(four)[63:32]
    return promises(guest, private) & (shared if "features" in profile.grants else TRUE)


def _assumptions() -> Iterable[str]:
    return (leaf.name.removeprefix("assume.") for leaf in Ia64.leaves if leaf.name.startswith("assume."))


def _owned_components() -> list[str]:
    controls = [s.name for s in Ia64.layout if s.name.startswith("cr.")]
    return [*controls, "in_service", "tc_purged", "kr", "translations", *FILES, *CLOCKS, *BANK_0]


def _parts(components: Iterable[str]) -> tuple[str, ...]:
    """The leaves and memories of components."""
    wanted = set(components)
    leaves = [leaf.name for leaf in Ia64.leaves if leaf.component in wanted]
    return (*leaves, *(slot.name for slot in Ia64.layout if slot.address and slot.name in wanted))
