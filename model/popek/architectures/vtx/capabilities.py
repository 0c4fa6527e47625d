"""What a processor's VMX can do: the capability MSRs, CPUID, and what follows (SDM vol. 3, appendix A).

`Capabilities` is data as read from a machine; any part of it may be unknown. `CapabilityView` answers the
questions that the VM-entry checks ask, and raises `MissingField` where the answer is not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from .vmcs import MissingField

ONES64: Final = (1 << 64) - 1

MSR_NAMES: Final[Mapping[int, str]] = {
    0x1B: "IA32_APIC_BASE",
    0x3A: "IA32_FEATURE_CONTROL",
    0x345: "IA32_PERF_CAPABILITIES",
    0x480: "IA32_VMX_BASIC",
    0x481: "IA32_VMX_PINBASED_CTLS",
    0x482: "IA32_VMX_PROCBASED_CTLS",
    0x483: "IA32_VMX_EXIT_CTLS",
    0x484: "IA32_VMX_ENTRY_CTLS",
    0x485: "IA32_VMX_MISC",
    0x486: "IA32_VMX_CR0_FIXED0",
    0x487: "IA32_VMX_CR0_FIXED1",
    0x488: "IA32_VMX_CR4_FIXED0",
    0x489: "IA32_VMX_CR4_FIXED1",
    0x48A: "IA32_VMX_VMCS_ENUM",
    0x48B: "IA32_VMX_PROCBASED_CTLS2",
    0x48C: "IA32_VMX_EPT_VPID_CAP",
    0x48D: "IA32_VMX_TRUE_PINBASED_CTLS",
    0x48E: "IA32_VMX_TRUE_PROCBASED_CTLS",
    0x48F: "IA32_VMX_TRUE_EXIT_CTLS",
    0x490: "IA32_VMX_TRUE_ENTRY_CTLS",
    0x491: "IA32_VMX_VMFUNC",
    0x492: "IA32_VMX_PROCBASED_CTLS3",
    0x493: "IA32_VMX_EXIT_CTLS2",
}
"""The MSRs that the checks look at, by number."""

# Feature -> CPUID leaf, subleaf, register and bit that reports it, and what to assume if nobody says.
FEATURES: Final[Mapping[str, tuple[str, int, bool | None]]] = {
    "SGX": ("0x7.0.ebx", 2, None),
    "RTM": ("0x7.0.ebx", 11, None),
    "CET_SS": ("0x7.0.ecx", 7, None),
    "CET_IBT": ("0x7.0.edx", 20, None),
    "BUS_LOCK_DETECT": ("0x7.0.ecx", 24, None),
    "FRED": ("0x7.1.eax", 17, None),
    "LAM": ("0x7.1.eax", 26, None),
    "PKS": ("0x7.0.ecx", 31, None),
    "UINTR": ("0x7.0.edx", 5, None),
    "SPEC_CTRL": ("0x7.0.edx", 26, None),
    "STIBP": ("0x7.0.edx", 27, None),
    "SSBD": ("0x7.0.edx", 31, None),
    # Every processor with VMX has these three, but for the first ones of 2006 and where firmware hides NX.
    "NX": ("0x80000001.0.edx", 20, True),
    "SYSCALL": ("0x80000001.0.edx", 11, True),
    "INTEL64": ("0x80000001.0.edx", 29, True),
}
"""Processor features by name: where CPUID reports them, and the assumption when it is unknown."""


@attrs.frozen
class Capabilities:
    """What is known of a processor.

    Attributes:
        name: of the preset or the file.
        msrs: capability MSRs by number.
        cpuid: registers by name, such as ``0x7.0.ebx`` (leaf, subleaf, register; numbers in hexadecimal).
        features: features of `FEATURES`, where known by other means than CPUID.
        maxphyaddr: width of physical addresses in bits, or None.
        linear_address_width: of the processor in bits, 48 or 57 (32 without Intel 64), or None.
        partial: of MSRs that are not known as a whole, the bits that are 1 and the bits that are 0, by number.
        shown: what evidence says of values that are not known: ``cr4``, bits that CR4 may have, and ``width``, of
            physical addresses at least (`popek.architectures.vtx.inference`).
        source: where the values come from.
        unsure: names of values that lack a second source.
        named: whether somebody named the processor, and nobody asked it for its values.
    """

    name: str = "unknown"
    msrs: Mapping[int, int] = attrs.field(factory=dict)
    cpuid: Mapping[str, int] = attrs.field(factory=dict)
    features: Mapping[str, bool] = attrs.field(factory=dict)
    maxphyaddr: int | None = None
    linear_address_width: int | None = None
    partial: Mapping[int, tuple[int, int]] = attrs.field(factory=dict)
    shown: Mapping[str, int] = attrs.field(factory=dict)
    source: str = ""
    unsure: tuple[str, ...] = ()
    named: bool = False

    @property
    def sure(self) -> Capabilities:
        """What is known without the values that lack a second source, by which nobody can be accused."""
        if not self.unsure:
            return self
        doubtful = set(self.unsure)
        return attrs.evolve(
            self,
            msrs={number: value for number, value in self.msrs.items() if hex(number) not in doubtful},
            cpuid={name: value for name, value in self.cpuid.items() if name not in doubtful},
            features={name: value for name, value in self.features.items() if name not in doubtful},
            maxphyaddr=None if "maxphyaddr" in doubtful else self.maxphyaddr,
            linear_address_width=None if "linear_address_width" in doubtful else self.linear_address_width,
            unsure=(),
        )

    def has(self, feature: str) -> bool | None:
        """Whether the processor has a feature of `FEATURES`; None if that is unknown."""
        if feature in self.features:
            return self.features[feature]
        register, bit, assumed = FEATURES[feature]
        if register in self.cpuid:
            return bool(self.cpuid[register] >> bit & 1)
        if feature == "INTEL64" and 0x480 in self.msrs:
            # IA32_VMX_BASIC[48] is 0 exactly on processors that support Intel 64 (appendix A.1).
            return not self.msrs[0x480] >> 48 & 1
        return assumed

    def controls(self, plain: int, true: int | None = None) -> tuple[int, int] | None:
        """The bits of a control that must be 1, and those that may be 1; None if unknown.

        `plain` and `true` are MSR numbers, such as 481H and 48DH.
        """
        index = plain
        if true is not None:
            basic = self.msrs.get(0x480)
            if basic is None:
                return None
            if basic >> 55 & 1:
                index = true
        value = self.msrs.get(index)
        return None if value is None else (value & 0xFFFF_FFFF, value >> 32)


UNKNOWN: Final = Capabilities()
"""A processor of which nothing is known."""


class CapabilityView:
    """What the checks ask of a processor; each answer is computed once, on demand.

    Attribute access raises `MissingField` if `Capabilities` lacks the input. All answers are plain integers
    or truth values; masks are 64 bits wide.
    """

    def __init__(self, capabilities: Capabilities) -> None:
        """Ask about these capabilities."""
        self.capabilities = capabilities

    def __getattr__(self, name: str) -> Any:
        """Compute an answer of `_ANSWERS` and keep it."""
        answer = _ANSWERS.get(name)
        if answer is None:
            raise AttributeError(name)
        value = answer(self.capabilities)
        self.__dict__[name] = value
        return value


def msr(capabilities: Capabilities, number: int) -> int:
    """The value of a capability MSR, or `MissingField`."""
    value = capabilities.msrs.get(number)
    if value is None:
        raise MissingField(f"MSR {MSR_NAMES.get(number, 'number')} ({number:X}H)")
    return value


def _feature(name: str) -> Any:
    def answer(capabilities: Capabilities) -> bool:
        known = capabilities.has(name)
        if known is None:
            register, bit, _ = FEATURES[name]
            raise MissingField(f"CPUID {register}[{bit}] ({name})")
        return known

    return answer


def _maxphyaddr(capabilities: Capabilities) -> int:
    width = capabilities.maxphyaddr
    if width is None and "0x80000008.0.eax" in capabilities.cpuid:
        width = capabilities.cpuid["0x80000008.0.eax"] & 0xFF
    if width is None:
        raise MissingField("maxphyaddr (CPUID 0x80000008.0.eax[7:0])")
    return width


def _linear_address_width(capabilities: Capabilities) -> int:
    width = capabilities.linear_address_width
    if width is None and "0x80000008.0.eax" in capabilities.cpuid:
        width = capabilities.cpuid["0x80000008.0.eax"] >> 8 & 0xFF
    if width is None:
        raise MissingField("linear_address_width (CPUID 0x80000008.0.eax[15:8])")
    return width


def _beyond(capabilities: Capabilities) -> int:
    width = _maxphyaddr(capabilities)
    # IA32_VMX_BASIC[48] is always 0 on processors that support Intel 64.
    limited = (
        capabilities.msrs[0x480] >> 48 & 1 if 0x480 in capabilities.msrs else not capabilities.has("INTEL64")
    )
    if limited:
        width = min(width, 32)
    return ONES64 & -(1 << width)


def _beyond_physical(capabilities: Capabilities) -> int:
    return ONES64 & -(1 << _maxphyaddr(capabilities))


def _cr3_reserved(capabilities: Capabilities) -> int:
    reserved = _beyond_physical(capabilities)
    return reserved & ~(3 << 61) if capabilities.has("LAM") else reserved


def _host_cr3_reserved(capabilities: Capabilities) -> int:
    """As `_cr3_reserved`, without what the host's CR3 itself shows."""
    width = capabilities.shown.get("own width")
    return _cr3_reserved(capabilities if width is None else attrs.evolve(capabilities, maxphyaddr=width))


def _allowed(plain: int, true: int | None, which: int) -> Any:
    def answer(capabilities: Capabilities) -> int:
        pair = capabilities.controls(plain, true)
        if pair is None:
            needed = plain if 0x480 in capabilities.msrs else 0x480
            if true is not None and capabilities.msrs.get(0x480, 0) >> 55 & 1:
                needed = true
            raise MissingField(f"MSR {MSR_NAMES[needed]} ({needed:X}H)")
        return pair[which]

    return answer


def _optional(number: int, *, shift: int, activation: Any) -> Any:
    """Allowed-1 mask of a control that exists only if another one may be 1."""

    def answer(capabilities: Capabilities) -> int:
        value = capabilities.msrs.get(number)
        if value is not None:
            return value >> shift
        return 0 if activation(capabilities) is False else msr(capabilities, number)

    return answer


def _may_set(plain: int, true: int, bit: int) -> Any:
    def answer(capabilities: Capabilities) -> bool | None:
        pair = capabilities.controls(plain, true)
        return None if pair is None else bool(pair[1] >> bit & 1)

    return answer


def _vm_functions_possible(capabilities: Capabilities) -> bool | None:
    value = capabilities.msrs.get(0x48B)
    return None if value is None else bool(value >> 45 & 1)


def _ept_possible(capabilities: Capabilities) -> bool | None:
    value = capabilities.msrs.get(0x48B)
    # The MSR exists if EPT (bit 33) or VPID (bit 37) may be set.
    return None if value is None else bool(value >> 33 & 1 or value >> 37 & 1)


def _perf_global_ctrl_reserved(capabilities: Capabilities) -> int:
    leaf = capabilities.cpuid
    if "0xa.0.eax" not in leaf or "0xa.0.edx" not in leaf:
        raise MissingField("CPUID 0xa.0.eax and 0xa.0.edx (performance counters)")
    version = leaf["0xa.0.eax"] & 0xFF
    general = (1 << (leaf["0xa.0.eax"] >> 8 & 0xFF)) - 1
    fixed = (1 << (leaf["0xa.0.edx"] & 0x1F)) - 1 if version >= 2 else 0
    if version >= 5:
        fixed |= leaf.get("0xa.0.ecx", 0)
    metrics = capabilities.msrs.get(0x345, 0) >> 15 & 1
    return ONES64 & ~(general | fixed << 32 | metrics << 48)


def _debugctl_reserved(capabilities: Capabilities) -> int:
    # LBR, BTF and bits 15:6 exist on some processor; which ones is model-specific.
    allowed = 0xFFC3
    if capabilities.has("BUS_LOCK_DETECT") is not False:
        allowed |= 1 << 2
    if capabilities.has("RTM") is False:
        allowed &= ~(1 << 15)
    return ONES64 & ~allowed


def _efer_reserved(capabilities: Capabilities) -> int:
    allowed = 1 << 8 | 1 << 10 if capabilities.has("INTEL64") is not False else 0
    if capabilities.has("SYSCALL") is not False:
        allowed |= 1 << 0
    if capabilities.has("NX") is not False:
        allowed |= 1 << 11
    return ONES64 & ~allowed


def _spec_ctrl_reserved(capabilities: Capabilities) -> int:
    # IBRS, STIBP and SSBD; bits 10:3 are controls that newer processors add.
    allowed = 0x7FF
    for bit, feature in ((0, "SPEC_CTRL"), (1, "STIBP"), (2, "SSBD")):
        if capabilities.has(feature) is False:
            allowed &= ~(1 << bit)
    return ONES64 & ~allowed


def _rtit_ctl_reserved(capabilities: Capabilities) -> int:
    leaf = capabilities.cpuid.get("0x14.0.ebx")
    if leaf is None:
        raise MissingField("CPUID 0x14.0.ebx (Intel PT)")
    # TraceEn, OS, User, TSCEn, DisRETC, BranchEn; then what CPUID.14H.0:EBX and :ECX add.
    allowed = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 10 | 1 << 11 | 1 << 13
    outputs = capabilities.cpuid.get("0x14.0.ecx", 0)
    if outputs & 1:
        allowed |= 1 << 8  # ToPA
    if outputs & 8:
        allowed |= 1 << 6  # FabricEn
    if leaf >> 0 & 1:
        allowed |= 1 << 7  # CR3Filter
    if leaf >> 1 & 1:
        allowed |= 1 << 1 | 0xF << 19 | 0xF << 24  # CYCEn, CycThresh, PSBFreq
    if leaf >> 2 & 1:
        ranges = capabilities.cpuid.get("0x14.1.eax", 4) & 7
        allowed |= (1 << 4 * ranges) - 1 << 32  # ADDRn_CFG
    if leaf >> 3 & 1:
        allowed |= 1 << 9 | 0xF << 14  # MTCEn, MTCFreq
    if leaf >> 4 & 1:
        allowed |= 1 << 5 | 1 << 12  # FUPonPTW, PTWEn
    if leaf >> 5 & 1:
        allowed |= 1 << 4  # PwrEvtEn
    if leaf >> 6 & 1:
        allowed |= 1 << 56  # InjectPsbPmiOnEnable
    if leaf >> 7 & 1:
        allowed |= 1 << 31  # EventEn
    if leaf >> 8 & 1:
        allowed |= 1 << 55  # DisTNT
    return ONES64 & ~allowed


def _cet(capabilities: Capabilities) -> bool:
    """CET support, by CPUID or by the control that loads its state."""
    if capabilities.features.get("CET"):
        return True  # one of the two, as a host with CR4.CET shows
    shadow_stacks = capabilities.has("CET_SS")
    if shadow_stacks is not None:
        return shadow_stacks or bool(capabilities.has("CET_IBT"))
    pair = capabilities.controls(0x484, 0x490)
    if pair is None:
        raise MissingField("CPUID 0x7.0.ecx[7] (CET_SS)")
    return bool(pair[1] >> 20 & 1)


_SECONDARY: Final = _may_set(0x482, 0x48E, 31)
_TERTIARY: Final = _may_set(0x482, 0x48E, 17)
_SECONDARY_EXIT: Final = _may_set(0x483, 0x48F, 31)

_ANSWERS: Final[Mapping[str, Any]] = {
    "maxphyaddr": _maxphyaddr,
    "linear_address_width": _linear_address_width,
    "revision": lambda c: msr(c, 0x480) & 0x7FFF_FFFF,
    "beyond": _beyond,  # physical-address bits that VMX structures may not use
    "beyond_physical": _beyond_physical,
    "cr3_reserved": _cr3_reserved,
    "host_cr3_reserved": _host_cr3_reserved,
    "linear_shift": lambda c: _linear_address_width(c) - 1,
    "linear_ones": lambda c: (1 << 65 - _linear_address_width(c)) - 1,  # bits 63:LW-1, moved down
    "pin_must": _allowed(0x481, 0x48D, 0),
    "pin_may": _allowed(0x481, 0x48D, 1),
    "pri_must": _allowed(0x482, 0x48E, 0),
    "pri_may": _allowed(0x482, 0x48E, 1),
    "exit_must": _allowed(0x483, 0x48F, 0),
    "exit_may": _allowed(0x483, 0x48F, 1),
    "entry_must": _allowed(0x484, 0x490, 0),
    "entry_may": _allowed(0x484, 0x490, 1),
    "sec_may": _optional(0x48B, shift=32, activation=_SECONDARY),
    "ter_may": _optional(0x492, shift=0, activation=_TERTIARY),
    "exit2_may": _optional(0x493, shift=0, activation=_SECONDARY_EXIT),
    "vmfunc_may": _optional(0x491, shift=0, activation=_vm_functions_possible),
    "ept": _optional(0x48C, shift=0, activation=_ept_possible),
    "misc": lambda c: msr(c, 0x485),
    "cr3_targets": lambda c: msr(c, 0x485) >> 16 & 0x1FF,
    "msr_list_limit": lambda c: 512 * ((msr(c, 0x485) >> 25 & 7) + 1),
    "zero_length_injection": lambda c: bool(msr(c, 0x485) >> 30 & 1),
    "any_error_code": lambda c: bool(msr(c, 0x480) >> 56 & 1),
    "cr0_must": lambda c: msr(c, 0x486),
    "cr0_may": lambda c: msr(c, 0x487),
    "cr4_must": lambda c: msr(c, 0x488),
    "cr4_may": lambda c: msr(c, 0x489),
    "guest_cr4_may": lambda c: msr(c, 0x489) | c.shown.get("cr4", 0),
    "perf_global_ctrl_reserved": _perf_global_ctrl_reserved,
    "debugctl_reserved": _debugctl_reserved,
    "efer_reserved": _efer_reserved,
    "spec_ctrl_reserved": _spec_ctrl_reserved,
    "rtit_ctl_reserved": _rtit_ctl_reserved,
    "intel64": _feature("INTEL64"),
    "sgx": _feature("SGX"),
    "rtm": _feature("RTM"),
    "fred": _feature("FRED"),
    "bus_lock_detect": _feature("BUS_LOCK_DETECT"),
    "cet": _cet,
}


def normalise_register(name: str) -> str | None:
    """`cpuid.07h.0:EBX`, `0x7.0.ebx` and the like as ``0x7.0.ebx``; None if it is no such name."""
    match = _REGISTER.fullmatch(name.strip().lower())
    if match is None:
        return None
    return f"{int(match['leaf'], 16):#x}.{int(match['sub'] or '0', 16):x}.{match['register']}"


_REGISTER: Final = re.compile(
    r"(?:cpuid[ .:]*)?(?:0x)?(?P<leaf>[0-9a-f]+?)h?"
    r"(?:[.,](?:0x)?(?P<sub>[0-9a-f]+?)h?)?[.:](?P<register>e[abcd]x)"
)
