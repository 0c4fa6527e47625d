"""Capabilities from presets and files: `rdmsr` listings, VirtualBox logs, reports of other programs, and JSON."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from popek.architectures.enclosures import decoded, looks_like_json
from popek.architectures.json_text import show
from popek.architectures.logs import unwrap
from popek.errors import PopekError
from popek_specs.vtx import presets, table

from . import processor_names
from .capabilities import FEATURES, MSR_NAMES, UNKNOWN, Capabilities, normalise_register
from .capability_reports import of_cpuinfo, of_vmxcap

__all__ = ["CapabilityError", "from_mapping", "from_text", "load_capabilities", "presets"]


class CapabilityError(PopekError):
    """Capabilities cannot be read; the message is one line that names the place."""


_NUMBERS: Final = {name: number for number, name in MSR_NAMES.items()}
_WIDTHS: Final = ("maxphyaddr", "linear_address_width")
# What the architecture allows; anything else is a typing error.
_MAXPHYADDR: Final = range(32, 53)
_LINEAR: Final = (32, 48, 57)


def load_capabilities(preset_or_path: str) -> Capabilities:
    """Capabilities by the name of a preset, or of a processor as people call it, or from a file.

    Raises:
        CapabilityError: there is no such preset or file, or it cannot be read, or nothing is known of the processor.
    """
    known = presets()
    if preset_or_path in known:
        return _preset(preset_or_path, preset_or_path)
    if preset_or_path == UNKNOWN.name:
        return UNKNOWN
    path = Path(preset_or_path)
    if not path.is_file():
        if (named := processor_names.find(preset_or_path)) is not None:
            return _preset(named.preset, named.title)
        if (compare := processor_names.compared(preset_or_path)) is not None:
            raise CapabilityError(
                f"{preset_or_path!r}: no public values of its VMX capabilities are known; to compare with the nearest "
                f"processor that has some, name {compare}, else give what rdmsr of 480H to 493H prints"
            )
        near = difflib.get_close_matches(preset_or_path, [*known, *processor_names.names()], n=3, cutoff=0.5)
        hint = f"; near: {', '.join(near)}" if near else f"; presets: {', '.join(known)}"
        raise CapabilityError(f"{preset_or_path!r} is neither a capability preset nor a file{hint}")
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise CapabilityError(f"{preset_or_path}: {error.strerror or error}") from None
    return from_text(text, name=preset_or_path)


def _preset(file: str, name: str) -> Capabilities:
    return attrs.evolve(from_mapping(table(f"capabilities/{file}.toml"), name=name), named=True)


def from_text(text: str, *, name: str = "capabilities") -> Capabilities:
    """Capabilities from the text of an `rdmsr` listing, a VirtualBox log, or JSON.

    A listing has one MSR a line, number or name and value, such as ``0x480: 00da040000000004``,
    ``rdmsr 0x481 = 0x7f00000016``, ``IA32_VMX_BASIC (480H) = 00DA040000000004H`` or WinDbg's
    ``msr[480] = 00da0400`00000004``, or the command ``# rdmsr 0x480`` with its answer below; values are hexadecimal,
    ``#`` starts a comment. ``maxphyaddr = 39``, ``linear_address_width = 48`` and ``cpuid.7.0.ebx = 0x…``
    may stand between them.

    Raises:
        CapabilityError: nothing useful is in the text, or a line is wrong.
    """
    stripped = text.lstrip("\ufeff \t\r\n")
    if looks_like_json(stripped):
        return _of_json(stripped, name)
    raw = list(enumerate(text.splitlines(), 1))
    # What stands before each line of a log is no part of a listing, whose numbers may look like it.
    plain = [(line.number, line.text) for lines in unwrap(text) for line in lines]
    for lines in (raw, plain):
        shown = "\n".join(line for _, line in lines).lstrip("\ufeff \t\r\n")
        reported = of_vmxcap(shown) or of_cpuinfo(shown)
        if reported is not None:
            return from_mapping(reported, name=name)
    found = max((_listed(lines, name) for lines in (raw, plain)), key=_number_of_msrs)
    if not _number_of_msrs(found):
        if stripped.startswith(("{", "[")):
            return _of_json(stripped, name)
        raise CapabilityError(
            f"{name}: no VMX capability MSR found; "
            "expected lines such as '0x480 0xda040000000004', a VirtualBox log, what vmxcap prints, or /proc/cpuinfo"
        )
    return from_mapping(found, name=name)


def _of_json(text: str, name: str) -> Capabilities:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise CapabilityError(f"{name}:{line}: not valid JSON ({getattr(error, 'msg', error)})") from None
    if not isinstance(loaded, dict):
        raise CapabilityError(f"{name}:1: expected a JSON object of capabilities")
    return from_mapping(loaded, name=name)


def _number_of_msrs(found: Mapping[str, Any]) -> int:
    return sum(key.startswith("0x4") for key in found)


def _listed(lines: list[tuple[int, str]], name: str) -> dict[str, Any]:
    """What the numbered lines of a listing or log say."""
    found: dict[str, Any] = {}
    asked: int | None = None
    for number, line in lines:
        if asked is not None and (answer := _ANSWER.match(line)):
            found[f"{asked:#x}"], asked = int(answer[1], 16), None
            continue
        if line.strip():
            asked = int(command[1], 16) if (command := _COMMAND.search(line)) else None
        for key, value in _line(line, f"{name}:{number}"):
            found[key] = value
    return found


_VBOX: Final = re.compile(r"MSR_(IA32_(?:VMX_|FEATURE_CONTROL|APIC_BASE)\w*)\s*=\s*(0x[0-9a-fA-F]+)")
_VBOX_WIDTH: Final = re.compile(
    r"Physical Address Width:\s*(\d+)|cMaxPhysAddrWidth\s*=\s*(\d+)", re.IGNORECASE
)
_LISTING: Final = re.compile(
    r"(?:rdmsr\s+(?:-\S+\s+)*)?(?:(?P<name>(?:MSR_)?IA32_\w+)\b\s*)?"
    r"\(?(?:(?:0x)?(?P<number>[0-9a-fA-F]{2,8})[hH]?)?\)?\s*[:=]?\s*"
    r"(?P<value>(?:0x)?[0-9a-fA-F]+)[hH]?\s*$"
)
_WINDBG: Final = re.compile(r"\bmsr\[(?P<number>[0-9a-fA-F]{1,8})\]\s*=\s*(?P<value>[0-9a-fA-F`]+)\s*$")
_COMMAND: Final = re.compile(
    r"(?:^|[#$>]\s*|sudo\s+)rdmsr\s+(?:-\S+\s+(?:\d+\s+)?)*(?:0x)?([0-9a-fA-F]{2,8})\s*$"
)
"""A command whose answer stands on a line of its own."""
_ANSWER: Final = re.compile(r"\s*((?:0x)?[0-9a-fA-F]{1,16})\s*$")
_SETTING: Final = re.compile(
    r"(?P<key>maxphyaddr|linear_address_width|cpuid[ .:]\S+?)\s*[:=]\s*(?P<value>\S+)$", re.IGNORECASE
)


def _line(line: str, place: str) -> list[tuple[str, Any]]:
    """What a line of a listing or log says."""
    vbox = _VBOX.search(line)
    if vbox is not None:
        number = _msr_number(vbox[1])
        return [] if number is None else [(f"{number:#x}", vbox[2])]
    width = _VBOX_WIDTH.search(line)
    if width is not None:
        return [("maxphyaddr", int(width[1] or width[2]))]
    windbg = _WINDBG.search(line)
    if windbg is not None:
        return [(f"0x{int(windbg['number'], 16):x}", "0x" + windbg["value"].replace("`", ""))]
    text = line.split("#", 1)[0].strip()
    setting = _SETTING.match(text)
    if setting is not None:
        return [(setting["key"].lower(), setting["value"])]
    listed = _LISTING.match(text)
    if listed is None:
        return []
    number = _msr_number(listed["name"]) if listed["name"] else None
    if number is None and listed["number"]:
        number = int(listed["number"], 16)
    if number is None:
        return []
    value = int(listed["value"], 16)
    if value >> 64:
        raise CapabilityError(
            f"{place}: the value of MSR {number:#x} is wider than 64 bits: {listed['value']}"
        )
    return [(f"{number:#x}", value)]


def _msr_number(name: str) -> int | None:
    bare = name.upper().removeprefix("MSR_")
    # VirtualBox and older texts say CR0_FIXED0, ENTRY_CTLS and the like the same way.
    return _NUMBERS.get(bare)


def _integer(value: Any, place: str, bits: int) -> int:
    """A number given as such, or as a hexadecimal or decimal string."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise CapabilityError(f"{place}: expected a number such as '0x16', not {show(value)}")
    try:
        number = value if isinstance(value, int) else int(value, 0)
    except ValueError:
        raise CapabilityError(f"{place}: expected a number such as '0x16', not {show(value)}") from None
    if number < 0 or number >> bits:
        raise CapabilityError(f"{place}: {show(value)} does not fit {bits} bits")
    return number


def to_mapping(known: Capabilities) -> dict[str, Any]:
    """Capabilities as `from_mapping` reads them.

    >>> to_mapping(Capabilities(name="x", msrs={0x480: 4}, maxphyaddr=39))
    {'name': 'x', 'msrs': {'0x480': '0x4'}, 'cpuid': {}, 'features': {}, 'maxphyaddr': 39}
    """
    found: dict[str, Any] = {
        "name": known.name,
        "msrs": {hex(number): hex(value) for number, value in known.msrs.items()},
        "cpuid": {register: hex(value) for register, value in known.cpuid.items()},
        "features": dict(known.features),
    }
    if known.partial:
        found["bits"] = {
            hex(number): [hex(ones), hex(zeros)] for number, (ones, zeros) in known.partial.items()
        }
    widths = {"maxphyaddr": known.maxphyaddr, "linear_address_width": known.linear_address_width}
    return found | {key: width for key, width in widths.items() if width is not None}


def from_mapping(mapping: Mapping[str, Any], *, name: str = "capabilities") -> Capabilities:
    """Capabilities from an object such as the ``capabilities`` of the JSON input.

    Keys: MSR numbers (``0x480``) or names (``IA32_VMX_BASIC``), ``maxphyaddr``, ``linear_address_width``,
    ``cpuid.LEAF.SUBLEAF.REGISTER`` in hexadecimal (``cpuid.7.0.ebx``), ``features`` (an object of truth
    values), ``bits`` (by MSR, the bits known to be 1 and those known to be 0) and, as in the presets, ``name``,
    ``source``, ``unsure``, ``msrs`` and ``cpuid`` (objects).

    Raises:
        CapabilityError: a key is unknown or a value does not fit.
    """
    msrs: dict[int, int] = {}
    cpuid: dict[str, int] = {}
    features: dict[str, bool] = {}
    widths: dict[str, int | None] = dict.fromkeys(_WIDTHS)
    source, title = "", name
    unsure: tuple[str, ...] = ()
    partial: dict[int, tuple[int, int]] = {}
    for key, value in mapping.items():
        place = f"{name}: {key}"
        number = _key_number(key)
        if number is not None:
            msrs[number] = _integer(value, place, 64)
        elif key in _WIDTHS:
            widths[key] = _integer(value, place, 16)
        elif key == "name" and isinstance(value, str):
            title = value
        elif key == "source" and isinstance(value, str):
            source = value
        elif key == "unsure" and isinstance(value, list):
            unsure = tuple(str(item) for item in value)
        elif key in ("msrs", "cpuid", "features") and isinstance(value, Mapping):
            for inner, content in value.items():
                _nested(key, inner, content, f"{name}: {key}.{inner}", msrs, cpuid, features)
        elif key == "bits" and isinstance(value, Mapping):
            partial |= {
                _partial_number(n, f"{place}.{n}"): _partial(v, f"{place}.{n}") for n, v in value.items()
            }
        elif (register := normalise_register(key)) is not None:
            cpuid[register] = _integer(value, place, 32)
        else:
            near = difflib.get_close_matches(key, [*_WIDTHS, "features", *_NUMBERS], n=1, cutoff=0.6)
            hint = (
                f"; near: {near[0]}" if near else "; expected an MSR number such as '0x480', 'maxphyaddr' …"
            )
            raise CapabilityError(f"{place}: unknown capability{hint}")
    if widths["maxphyaddr"] is not None and widths["maxphyaddr"] not in _MAXPHYADDR:
        raise CapabilityError(f"{name}: maxphyaddr: {widths['maxphyaddr']} is not from 32 to 52")
    if widths["linear_address_width"] not in (None, *_LINEAR):
        raise CapabilityError(
            f"{name}: linear_address_width: {widths['linear_address_width']} is not 32, 48 or 57"
        )
    return Capabilities(
        name=title,
        msrs=msrs,
        cpuid=cpuid,
        features=features,
        maxphyaddr=widths["maxphyaddr"],
        linear_address_width=widths["linear_address_width"],
        partial={number: bits for number, bits in partial.items() if number not in msrs},
        source=source,
        unsure=unsure,
    )


def _key_number(key: str) -> int | None:
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}", key):
        return int(key, 16)
    return _msr_number(key)


def _partial_number(key: str, place: str) -> int:
    number = _key_number(key)
    if number is None:
        raise CapabilityError(f"{place}: no MSR number such as '0x480', and no name of a VMX capability MSR")
    return number


def _partial(value: Any, place: str) -> tuple[int, int]:
    """The bits of an MSR that are 1, and those that are 0."""
    if not isinstance(value, list) or len(value) != 2:
        raise CapabilityError(f"{place}: expected two numbers, the bits that are 1 and the bits that are 0")
    ones, zeros = (_integer(item, place, 64) for item in value)
    if ones & zeros:
        raise CapabilityError(f"{place}: bits {ones & zeros:#x} are said to be 1 and to be 0")
    return ones, zeros


def _nested(
    kind: str,
    key: str,
    value: Any,
    place: str,
    msrs: dict[int, int],
    cpuid: dict[str, int],
    features: dict[str, bool],
) -> None:
    if kind == "msrs":
        number = _key_number(key)
        if number is None:
            raise CapabilityError(
                f"{place}: no MSR number such as '0x480', and no name of a VMX capability MSR"
            )
        msrs[number] = _integer(value, place, 64)
    elif kind == "cpuid":
        register = normalise_register(key)
        if register is None:
            raise CapabilityError(f"{place}: expected LEAF.SUBLEAF.REGISTER such as '7.0.ebx'")
        cpuid[register] = _integer(value, place, 32)
    elif key not in FEATURES or not isinstance(value, bool):
        raise CapabilityError(f"{place}: expected true or false for one of {', '.join(FEATURES)}")
    else:
        features[key] = value
