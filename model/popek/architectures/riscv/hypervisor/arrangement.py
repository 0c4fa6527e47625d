"""A guest in VS and VU beside a VMM in HS whose controls are left open, as is what M delegates.

What the VMM owns is a choice; what nobody owns, the VMM switches, and it is the guest's while the guest runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

import attrs

from popek.kernel.assistance import PRIVATE, Arrangement, AssistanceError, Ownable
from popek.kernel.outcome import Target, Trap
from popek.kernel.technique import Technique
from popek.kernel.words import Word, all_of, ite

from ..arrangement import (
    PROTECTION,
    denies_own_storage,
    every_register,
    leaves_of,
    owns_address,
    plain_platform,
    same,
)
from ..state import ASID_BITS, VMID_BITS, Rv64
from ..virtualization import BANKED, PENDING, STATUS, UNBANKED
from ..virtualization import image as usual_image
from .levels import HS, VS, M

COUNTERS: Final = ("mcycle", "minstret", "mhpmcounter3")

OWNABLE: Final[Mapping[str, Ownable]] = {
    "counters": Ownable("cycle, instret and hpmcounter: the guest has none, or others", COUNTERS),
    "timer": Ownable(
        "the comparator vstimecmp: the VMM lets the guest's timer run down itself", ("vstimecmp",)
    ),
    "time": Ownable("the guest's clock, which is not the hart's with an offset", ("time", "htimedelta")),
    "floating-point": Ownable("the floating-point registers: they are somebody else's still", ("f", "fcsr")),
    "translation": Ownable("vsatp: the guest's own tables are not those that are walked", ("vsatp",)),
    "environment": Ownable("senvcfg, which has no VS copy", ("senvcfg",)),
    "counter-enables": Ownable("scounteren, which has no VS copy", ("scounteren",)),
    "waiting": Ownable("whether the hart rests"),
}
"""What a VMM can own besides what is always its own: the HS and M CSRs, and its storage."""
USUAL: Final = frozenset({"counters", "waiting"})
TOUCHES: Final = (
    "prv", "v", "mstatus", "mie", "mip", "medeleg", "mideleg", "mtvec", "hstatus", "hedeleg", "hideleg", "hvip",
    "hcounteren", "henvcfg", "hstateen0", "hgatp", "stvec", "sscratch", "sepc", "scause", "stval", "satp", "stimecmp",
    "pmpcfg0", "vsstatus",
)  # fmt: skip
"""Components of which something is the VMM's whatever it owns, or which it answers for."""

FLOATING: Final = "floating_point"
SECOND_STAGE: Final = "second_stage"
TRAPS: Final = tuple(f"hstatus.{name}" for name in ("vtvm", "vtw", "vtsr"))
DELEGABLE: Final = (
    "illegal", "breakpoint", "load_misaligned", "load_access", "store_misaligned", "store_access", "ecall_u",
    "load_page", "store_page",
)  # fmt: skip
"""What HS can send on to VS."""
COUNTED: Final = ("cy", "tm", "ir", "hpm3")
CHOSEN: Final = (
    *TRAPS,
    *(f"hedeleg.{name}" for name in DELEGABLE),
    *(f"hideleg.v{name}" for name in PENDING),
    *(f"hcounteren.{name}" for name in COUNTED),
    "henvcfg.stce",
    "hstateen0.se0",
    "hstateen0.envcfg",
)
"""What HS chooses, a leaf each."""
GIVEN: Final = {
    **{f"medeleg.{name}": 1 for name in (*DELEGABLE, "ecall_vs", "virtual_instruction")},
    **{f"mcounteren.{name}": 1 for name in COUNTED},
    "menvcfg.stce": 1,
    "mstateen0.se0": 1,
    "mstateen0.envcfg": 1,
    "mstatus.tw": 0,
}
"""What M has chosen, and how it is where M keeps nothing from HS."""
HART: Final = {"sstc": 1, "smstateen": 1, "svinval": 1, "time": 1, "wfi_completes": 0}
"""What the hart has, where nobody says."""
USUAL_HART: Final = {
    **{f"features.{name}": 0 for name in ("sv39", "uxl32", "sxl32", "xs")},
    "features.asidlen": ASID_BITS,
    "features.vmidlen": VMID_BITS,
    "changeable": 0,
    **{f"misa.{letter}": int(letter != "v") for letter in "acdfmv"},
}
"""What is not asked here is as the settings have it by default."""
_OWN_EXCEPTIONS: Final = tuple(f"medeleg.{name}" for name in DELEGABLE)


@attrs.frozen
class HypervisorProfile:
    """What the VMM owns, and what the guest is.

    Attributes:
        owns: names of `OWNABLE`.
        hypervisor: the guest is a hypervisor: its own hart has H, and guests of its own run elsewhere.
        hart: what the hart has, by feature.
    """

    owns: frozenset[str] = USUAL
    hypervisor: bool = False
    hart: tuple[tuple[str, int], ...] = tuple(HART.items())

    @property
    def features(self) -> Mapping[str, int]:
        """Every feature and letter but H, by leaf; translation is left out."""
        return {**USUAL_HART, **{f"features.{name}": value for name, value in self.hart}}


def profile(owns: frozenset[str], assume: Mapping[str, int], lacks: Iterable[str]) -> HypervisorProfile:
    """A profile by names.

    Raises:
        AssistanceError: a value that is neither 0 nor 1.
    """
    for name, value in assume.items():
        if value not in (0, 1):
            raise AssistanceError(f"{name}: expected 0 or 1, not {value}")
    hart = {
        **HART,
        **{name: value for name, value in assume.items() if name in HART},
        **dict.fromkeys(lacks, 0),
    }
    return HypervisorProfile(owns, bool(assume.get("hypervisor")), tuple(hart.items()))


def arrange(
    owned: HypervisorProfile, controls: Mapping[str, Word], masks: Mapping[str, int]
) -> Arrangement[Rv64]:
    """A guest beside a VMM that owns so much, with these words for the controls."""
    given = _guests(owned.owns)
    native = _native(owned.owns)
    technique: Technique[Rv64] = Technique(
        "hypervisor-extension",
        "the hypervisor extension",
        map=partial(_image, owned.owns),
        owned=(*(name for name in every_register() if name not in given), "v", *_registers(owned.owns)),
        shadowed=(*(name for name in every_register() if name not in native), "v", *_registers(owned.owns)),
        deprivileged=lambda state: (state.prv == 1) & state.v,
        guest=partial(_guest, owned),
        private=_private,
        owns_address=owns_address,
        target=lambda trap: _TARGETS[trap.level],
        guest_level=lambda level: HS if level == VS else "",
        settled=True,
        uncompared=(),
    )
    leaves = {name: word for name, word in controls.items() if name not in (FLOATING, SECOND_STAGE)}
    private = Rv64.symbolic(PRIVATE).with_changes(
        {
            **owned.features,
            **leaves,
            "misa.h": 1,
            "mstatus.fs": ite(controls[FLOATING], Word(2, 3), Word(2, 0)),
        }
    )
    shown = {**owned.features, "misa.h": int(owned.hypervisor), "v": 0}

    def start(state: Rv64) -> Rv64:
        # A guest is in S or U; said by the shape of the word, not by a condition, it leaves nothing of M.
        return state.with_changes({**shown, "prv": state.prv[0].zero_extend(2)})

    return Arrangement(technique, private, start)


_TARGETS: Final = {HS: Target.VMM, VS: Target.GUEST, M: Target.BELOW}


def is_exit(trap: Trap[Rv64]) -> bool:
    """HS takes it."""
    return trap.level == HS


def _registers(owns: frozenset[str]) -> tuple[str, ...]:
    return ("f", "fcsr.fflags", "fcsr.frm") if "floating-point" in owns else ()


def _guests(owns: frozenset[str]) -> frozenset[str]:
    """Leaves that are the guest's while it runs."""
    mine = (
        {f"v{name}": True for name in BANKED} | dict.fromkeys(UNBANKED, True) | dict.fromkeys(COUNTERS, True)
    )
    mine |= {
        "vstimecmp": "timer" not in owns,
        "vsatp": "translation" not in owns,
        "senvcfg": "environment" not in owns,
        "scounteren": "counter-enables" not in owns,
    }
    mine |= dict.fromkeys(COUNTERS, "counters" not in owns)
    pending = (f"{register}.v{field}" for register in ("mie", "hvip") for field in PENDING)
    return frozenset(
        (*leaves_of("vsstatus", *(name for name, own in mine.items() if own)), *pending, "mstatus.fs")
    )


def _native(owns: frozenset[str]) -> frozenset[str]:
    """Leaves of the guest's own machine that the hardware holds while it runs."""
    held = dict.fromkeys((*BANKED, *UNBANKED), True)
    held |= {
        "stimecmp": "timer" not in owns,
        "satp": "translation" not in owns,
        "senvcfg": "environment" not in owns,
        "scounteren": "counter-enables" not in owns,
        "time": "time" not in owns,
    }
    held |= dict.fromkeys(COUNTERS, "counters" not in owns)
    status = (f"mstatus.{field}" for field in STATUS)
    # Of what is pending the guest writes SSIP alone; the rest is the platform's, and the VMM remembers it.
    pending = ("mip.ssi", *(f"mie.{field}" for field in PENDING))
    return frozenset((*leaves_of(*(name for name, own in held.items() if own)), *status, *pending))


def _image(owns: frozenset[str], guest: Rv64, private: Rv64) -> Rv64:
    """f(S, P)."""
    hardware = usual_image(guest, private)
    if "counters" not in owns:
        for name in COUNTERS:
            hardware[name] = guest[name]
    if "time" in owns:
        hardware.htimedelta = private.htimedelta
    if "timer" in owns:
        hardware.vstimecmp = private.vstimecmp
        hardware.hvip.vsti = guest.pending()[5]
    if "translation" in owns:
        hardware.vsatp = private.vsatp.value
    if "environment" in owns:
        hardware.senvcfg = private.senvcfg.value
    if "counter-enables" in owns:
        hardware.scounteren = private.scounteren.value
    if "floating-point" in owns:
        hardware.f, hardware.fcsr = private.f, private.fcsr.value
    return hardware


def _guest(owned: HypervisorProfile, guest: Rv64) -> Word:
    """A kernel and its users on a platform that keeps nothing from them and sends them their own exceptions."""
    own = all_of(guest[name] == 1 for name in _OWN_EXCEPTIONS)
    return plain_platform(guest) & (guest.menvcfg.stce == 1) & own


def _private(guest: Rv64, private: Rv64) -> Word:
    """The same protection, which denies the VMM's storage; MPRV is off."""
    return same(guest, private, PROTECTION) & ~private.mstatus.mprv & denies_own_storage(private)
