"""Processors as other programs report them: QEMU's ``vmxcap``, and ``/proc/cpuinfo`` of Linux.

Both tell single bits of the capability MSRs, so what they give is a partial processor (`Capabilities.partial`): a check
is decided where every processor with these bits passes, or fails.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from popek_specs.vtx import rows

# -- vmxcap --------------------------------------------------------------------------------

_SECTIONS: Final[Mapping[str, tuple[str, int, int | None]]] = {
    "pin-based controls": ("pin", 0x481, 0x48D),
    "primary processor-based controls": ("primary", 0x482, 0x48E),
    "secondary processor-based controls": ("secondary", 0x48B, None),
    "tertiary processor-based controls": ("tertiary", 0x492, None),
    "vm-exit controls": ("exit", 0x483, 0x48F),
    "vm-entry controls": ("entry", 0x484, 0x490),
}
"""The headings of the report: the control, its MSR, and its TRUE MSR."""

_WHOLE: Final = {
    "basic vmx information": 0x480,
    "miscellaneous data": 0x485,
    "vpid and ept capabilities": 0x48C,
    "vm functions": 0x491,
}
_OTHER_NAMES: Final = {
    "activate secondary control": "ACTIVATE_SECONDARY_CONTROLS",
    "apic register emulation": "APIC_REGISTER_VIRTUALIZATION",
    "conceal non root operation from pt": "CONCEAL_VMX_FROM_PT",
    "conceal vm exits from pt": "CONCEAL_VMX_FROM_PT",
    "conceal vm entries from pt": "CONCEAL_VMX_FROM_PT",
    "mode based execute control": "MODE_BASED_EXECUTE_EPT",
    "sub page write permissions": "SUBPAGE_WRITE_EPT",
    "gpa translation for pt": "PT_USES_GPA",
    "tsc scaling": "USE_TSC_SCALING",
    "user wait and pause": "ENABLE_USER_WAIT_PAUSE",
    "enclv exiting": "ENABLE_ENCLV_EXITING",
    "enable ipi virtualization": "IPI_VIRTUALIZATION",
}
_VALUE: Final = re.compile(r"(?P<name>\S.*?)\s+(?P<answer>yes|no|default|forced)\s*$")
_HEX: Final = re.compile(r"Hex:\s*(?P<value>0x[0-9a-fA-F]+)\s*$")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower().partition("(")[0]).strip()


@functools.cache
def _bits(control: str) -> Mapping[str, int]:
    """The bits of a control by the words of their titles, and as the report calls them."""
    own = {row["id"]: row for row in rows("controls.csv") if row["control"] == control}
    found = {_plain(row["title"]): int(row["bit"]) for row in own.values()}
    return found | {name: int(own[known]["bit"]) for name, known in _OTHER_NAMES.items() if known in own}


def of_vmxcap(text: str) -> dict[str, Any] | None:
    """What a report of vmxcap says, as `capability_files.from_mapping` reads it; None if it is no such report."""
    msrs: dict[str, str] = {}
    bits: dict[int, list[int]] = {}
    section = ""
    for line in text.splitlines():
        heading = line.strip().lower()
        if heading in _SECTIONS or heading in _WHOLE:
            section = heading
        elif section in _WHOLE and (whole := _HEX.match(line.strip())):
            msrs[f"{_WHOLE[section]:#x}"] = whole["value"]
        elif section in _SECTIONS and (value := _VALUE.match(line.strip())):
            for number, ones, zeros in _told(section, value["name"], value["answer"]):
                kept = bits.setdefault(number, [0, 0])
                kept[0], kept[1] = kept[0] | ones, kept[1] | zeros
    if not bits:
        return None
    return {
        **msrs,
        "bits": {f"{number:#x}": [hex(ones), hex(zeros)] for number, (ones, zeros) in bits.items()},
    }


def _told(section: str, name: str, answer: str) -> Iterator[tuple[int, int, int]]:
    """MSR, bits that are 1, bits that are 0, by one line; low halves say what must be 1, high ones what may be."""
    control, plain, true = _SECTIONS[section]
    bit = _bits(control).get(_plain(name))
    if bit is None:
        return
    must, may = 1 << bit, 1 << bit + 32
    if control == "tertiary":
        yield (plain, 1 << bit, 0) if answer == "yes" else (plain, 0, 1 << bit)
        return
    ones, zeros = {
        "yes": (may, must),
        "no": (0, must | may),
        "forced": (must | may, 0),
        "default": (must | may, 0),
    }[answer]
    yield plain, ones, zeros
    if true is not None:
        yield (true, may, must) if answer == "default" else (true, ones, zeros)


# -- /proc/cpuinfo -------------------------------------------------------------------------

_VMX_FLAGS: Final[Mapping[str, tuple[int, int]]] = {
    "vnmi": (0x481, 5),
    "preemption_timer": (0x481, 6),
    "posted_intr": (0x481, 7),
    "tsc_offset": (0x482, 3),
    "vtpr": (0x482, 21),
    "mtf": (0x482, 27),
    "vapic": (0x48B, 0),
    "ept": (0x48B, 1),
    "vpid": (0x48B, 5),
    "unrestricted_guest": (0x48B, 7),
    "vapic_reg": (0x48B, 8),
    "vid": (0x48B, 9),
    "ple": (0x48B, 10),
    "shadow_vmcs": (0x48B, 14),
    "pml": (0x48B, 17),
    "ept_violation_ve": (0x48B, 18),
    "ept_mode_based_exec": (0x48B, 22),
    "tsc_scaling": (0x48B, 25),
    "usr_wait_pause": (0x48B, 26),
}
"""Controls that may be 1, as Linux calls them (arch/x86/include/asm/vmxfeatures.h): MSR and bit of its upper half."""

_SINCE_THE_FIRST: Final = frozenset(_VMX_FLAGS) - {
    "posted_intr", "vapic_reg", "vid", "shadow_vmcs", "pml", "ept_violation_ve", "ept_mode_based_exec", "tsc_scaling",
    "usr_wait_pause",
}  # fmt: skip
"""Flags that every kernel with ``vmx flags`` knows; that another one is missing may be the kernel's doing."""

_EPT_FLAGS: Final = {"ept_x_only": 0, "ept_5level": 7, "ept_1gb": 17, "ept_ad": 21, "invvpid": 32}
_FLAGS: Final = {
    "nx": "NX", "lm": "INTEL64", "syscall": "SYSCALL", "sgx": "SGX", "rtm": "RTM", "fred": "FRED", "lam": "LAM",
    "bus_lock_detect": "BUS_LOCK_DETECT", "ibt": "CET_IBT", "user_shstk": "CET_SS", "shstk": "CET_SS",
}  # fmt: skip
_ENTRY: Final = re.compile(r"^[>|+\s]*(?P<key>[A-Za-z_ ]+?)[\t ]*:[\t ]*(?P<value>.*)$", re.MULTILINE)
_SIZES: Final = re.compile(r"(\d+) bits physical, (\d+) bits virtual")


def of_cpuinfo(text: str) -> dict[str, Any] | None:
    """What ``/proc/cpuinfo`` says of the first processor, as `capability_files.from_mapping` reads it; None if none.

    A flag that is there is believed; of those that are not, only the ones that every kernel shows. With memory
    encryption Linux tells fewer physical-address bits than the processor has, and they are not taken.
    """
    told: dict[str, str] = {}
    for entry in _ENTRY.finditer(text):
        told.setdefault(entry["key"].strip().lower(), entry["value"])
    if "vmx flags" not in told:
        return None
    flags, vmx = set(told.get("flags", "").split()), set(told["vmx flags"].split())
    bits: dict[int, list[int]] = {}
    for name, (number, bit) in _VMX_FLAGS.items():
        if name in vmx or name in _SINCE_THE_FIRST:
            bits.setdefault(number, [0, 0])[name not in vmx] |= 1 << bit + 32
    for name, bit in _EPT_FLAGS.items():
        if name in vmx:
            bits.setdefault(0x48C, [0, 0])[0] |= 1 << bit
    # Without a secondary control there is no MSR to tell of them.
    if bits.get(0x48B, [0])[0]:
        bits.setdefault(0x482, [0, 0])[0] |= 1 << 63
    found: dict[str, Any] = {
        "name": told.get("model name", "cpuinfo").strip(),
        "features": {feature: True for flag, feature in _FLAGS.items() if flag in flags},
        "bits": {f"{number:#x}": [hex(ones), hex(zeros)] for number, (ones, zeros) in bits.items()},
    }
    if sizes := _SIZES.search(told.get("address sizes", "")):
        found["linear_address_width"] = int(sizes[2])
        if "tme" not in flags:
            found["maxphyaddr"] = int(sizes[1])
    return found


__all__ = ["of_cpuinfo", "of_vmxcap"]
