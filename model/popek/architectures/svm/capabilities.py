"""What is known of a processor with SVM: by name, from JSON, or from what CPUID and Linux print."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from popek.architectures.dump import DumpError
from popek.architectures.enclosures import decoded, looks_like_json
from popek.architectures.json_text import JsonError, decode, show, unknown_key
from popek_specs.svm import table

from .cpuid import processor_of
from .vmcb import SvmProcessor

_KEYS: Final = tuple(
    field.name for field in attrs.fields(SvmProcessor) if field.name not in ("named", "unsure")
)
_MASKS: Final = ("efer", "cr4")
_FLAGS: Final[Mapping[str, str]] = {
    "flushbyasid": "flush_by_asid",
    "lm": "long_mode",
    "shstk": "cet",
    "user_shstk": "cet",
    "ibt": "ibt",
    "vnmi": "vnmi",
    "sev": "sev",
    "gmet": "gmet",
    "sss": "sss",
    "bus_lock_threshold": "bus_lock_threshold",
}
"""Flags of /proc/cpuinfo that show something; one that is missing shows nothing, as Linux may have hidden it."""
_WIDTH = re.compile(r"^address sizes\s*:\s*(\d+) bits physical", re.MULTILINE)
_CPUINFO = re.compile(r"^flags\s*:\s*(.*)$", re.MULTILINE)
_LEAF = re.compile(
    r"^\s*(?:CPU \d+:\s*)?0x(?P<leaf>[0-9a-f]{8})\s+0x(?P<sub>[0-9a-f]+):\s*eax\s*=\s*0x(?P<eax>[0-9a-f]{8})"
    r"\s+ebx\s*=\s*0x(?P<ebx>[0-9a-f]{8})\s+ecx\s*=\s*0x(?P<ecx>[0-9a-f]{8})\s+edx\s*=\s*0x(?P<edx>[0-9a-f]{8})",
    re.MULTILINE | re.IGNORECASE,
)
"""A line of `cpuid -r`."""
_FEATURES: Final = 0x8000_000A


@functools.cache
def presets() -> Mapping[str, Mapping[str, Any]]:
    """The rows of ``capabilities.toml`` by name."""
    return {row["name"]: row for row in table("capabilities.toml")["processor"]}


_NOISE = re.compile(r"\b(?:amd|processors?|cpu|\d+-core|family|series|with radeon.*)\b|\((?:r|tm)\)|@.*")
_APART = re.compile(r"[\s_-]+")


def _row(kind: str, name: str) -> Mapping[str, Any] | None:
    """The row of a processor that people call so: by its name, a name of its family, or the number on the box."""
    plain = _APART.sub("", _NOISE.sub("", name.lower()))
    if not plain:
        return None
    for row in table("capabilities.toml")[kind]:
        own = _APART.sub("", row.get("name", ""))
        if plain in (own, *row["names"]) or (row["models"] and re.fullmatch(row["models"], plain)):
            return dict(row)
    return None


def _named(row: Mapping[str, Any], name: str) -> SvmProcessor:
    title = name if name == row["name"] else f"{name} ({row['name']})"
    return attrs.evolve(from_mapping(row["vmrun"]), named=title, unsure=tuple(row["unsure"]))


def explained(name: str) -> list[str]:
    """What is known of a processor that people call so, in lines; none if nothing is.

    >>> explained("EPYC 7763")[0]
    'EPYC 7763  processor: family 19H, 2020: EPYC 7003, Ryzen 5000 and 6000'
    """
    if (row := _row("processor", name)) is None:
        other = _row("unknown", name)
        if other is None:
            return []
        return [f"{name}  a name that does not tell one processor", f"  compare    {other['compare']}"]
    known = ", ".join(f"{key} {value}" for key, value in to_mapping(_named(row, name)).items())
    return [
        f"{name}  processor: {row['title']}",
        f"  known as   {row['name']}",
        f"  known      {known}",
        *([f"  unsure     {', '.join(row['unsure'])}: these accuse nobody"] if row["unsure"] else []),
        f"  confidence {row['confidence']}",
        f"  source     {row['source']}",
    ]


def load_capabilities(preset_or_path: str) -> SvmProcessor:
    """A processor by the name of a preset, or as people call it, or from a file.

    A file is a JSON object with the names of `SvmProcessor`, what ``cpuid -1 -r`` prints, or /proc/cpuinfo.

    Raises:
        DumpError: there is no such preset or file, or it cannot be read.
    """
    if (row := presets().get(preset_or_path)) is not None:
        return _named(row, preset_or_path)
    path = Path(preset_or_path)
    try:
        found = path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        if (named := _row("processor", preset_or_path)) is not None:
            return _named(named, preset_or_path)
        if (other := _row("unknown", preset_or_path)) is not None:
            raise DumpError(
                f"{show(preset_or_path)}: not one processor, or one of which no values are known; "
                f"compare: {other['compare']}"
            )
        near = unknown_key(preset_or_path, "", presets()).partition(": ")[2]
        raise DumpError(f"{show(preset_or_path)} is neither a processor nor a file: {near}")
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise DumpError(f"{preset_or_path}: {error.strerror or error}") from None
    try:
        return from_text(text)
    except DumpError as error:
        place = f"{preset_or_path}:{error.line}" if error.line else preset_or_path
        raise DumpError(f"{place}: {error.message}") from None


def from_text(text: str) -> SvmProcessor:
    """A processor from JSON, from lines of ``cpuid -r``, or from /proc/cpuinfo.

    Raises:
        DumpError: it is none of these, or damaged.
    """
    if looks_like_json(text):
        try:
            return from_mapping(decode(text))
        except JsonError as error:
            raise DumpError(error.message, error.line) from None
    leaves = {
        (int(match["leaf"], 16), int(match["sub"], 16)): tuple(
            int(match[register], 16) for register in ("eax", "ebx", "ecx", "edx")
        )
        for match in _LEAF.finditer(text)
    }
    if leaves:
        if (_FEATURES, 0) not in leaves:
            raise DumpError("no leaf 8000000AH: expected what `cpuid -1 -r` prints on a processor with SVM")
        return processor_of(leaves)  # type: ignore[arg-type]  # four registers each
    if (flags := _CPUINFO.search(text)) is not None:
        names = frozenset(flags[1].split())
        if "svm" not in names:
            raise DumpError("the flags of /proc/cpuinfo have no svm: expected a processor with SVM")
        width = _WIDTH.search(text)
        known: dict[str, Any] = {_FLAGS[name]: True for name in names if name in _FLAGS}
        return SvmProcessor(**known, maxphyaddr=int(width[1]) if width else None)
    raise DumpError(
        'nothing of a processor: expected JSON such as {"maxphyaddr": 48}, what `cpuid -1 -r` prints, or /proc/cpuinfo'
    )


def from_mapping(given: object) -> SvmProcessor:
    """A processor from a JSON object with the names of `SvmProcessor`; None is one of which nothing is known.

    Raises:
        DumpError: something in it is not as documented.
    """
    if given is None:
        return SvmProcessor()
    if isinstance(given, str):
        return load_capabilities(given)
    if not isinstance(given, dict):
        raise DumpError(f"capabilities: expected an object with keys among {', '.join(_KEYS)}")
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in _KEYS:
            raise DumpError(unknown_key(key, "capabilities: ", _KEYS))
        if key == "maxphyaddr":
            if type(value) is not int or not 32 <= value <= 52:
                raise DumpError("maxphyaddr: expected a number from 32 to 52")
        elif key in _MASKS:
            value = hexadecimal(value, key, (1 << 64) - 1)
        elif not isinstance(value, bool):
            raise DumpError(f"{key}: expected true or false")
        values[key] = value
    return SvmProcessor(**values)


def hexadecimal(raw: object, key: str, mask: int) -> int:
    """A number as JSON gives it: a hexadecimal string, or a number.

    Raises:
        DumpError: it is neither, or does not fit into the mask.
    """
    try:
        number = int(raw, 16) if isinstance(raw, str) and raw[:2].lower() == "0x" else raw
    except ValueError:
        number = None
    if type(number) is not int or not 0 <= number <= mask:
        raise DumpError(
            f"{key}: {show(raw)}: expected a hexadecimal string of {mask.bit_length()} bits, such as 0x1"
        )
    return number


def completed(processor: SvmProcessor, maxphyaddr: int | None = None) -> SvmProcessor:
    """A processor of which everything is known: what is not said of it it does not have, and its width is 48."""
    lacks = {
        name: False
        for name in _KEYS
        if name not in ("maxphyaddr", *_MASKS) and getattr(processor, name) is None
    }
    return attrs.evolve(
        processor, **lacks, named="", unsure=(), maxphyaddr=maxphyaddr or processor.maxphyaddr or 48
    )


def to_mapping(processor: SvmProcessor) -> dict[str, Any]:
    """What is known of a processor, as `from_mapping` reads it."""
    known = {name: getattr(processor, name) for name in _KEYS}
    return {
        name: hex(value) if name in _MASKS else value for name, value in known.items() if value is not None
    }
