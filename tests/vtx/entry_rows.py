"""The rows of `entry_rows.toml`: states of numbers and which VM-entry checks they fail, as the manual says.

A state is a line of words. It starts from a baseline that enters and changes it:

    pae                     the guest's mode, if it is not 64-bit
    on:narrow               the processor, if it is not the one with everything
    GUEST_CR4=0x2020        a field's value;  GUEST_CR4+17,5 sets bits of it, GUEST_CR4-5 clears them
    entry+9                 the same of a control: pin, pri, sec, ter, exit, exit2, entry; it is activated
    launch.in_smm=True      what the processor is doing
    cap.SGX=0               a feature; cap.pa and cap.lw are widths; msr.485+30 a bit of a capability MSR
    mem.0x5000/4=7          what is in memory: address, bytes, value
    entry:2                 the number of the MSR-load entry that fails, if it is not the first
    !GUEST-MSR-05           another check that fails too; # is the number of a segment register: 01 CS … 06 GS
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, cast

import attrs

from popek.architectures.vtx.baselines import MODES, Mode, baseline
from popek.architectures.vtx.capabilities import FEATURES, Capabilities
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.vmcs import Launch, Vmcs

Says = Literal["fails", "passes", "doubts", "tolerates", "unknown"]
"""Of a check: the state fails it; passes it; fails it on some processors; fails it, and may enter on some; the
processor is not known well enough to say."""

SAYS: Final[tuple[Says, ...]] = ("fails", "passes", "doubts", "tolerates", "unknown")
WORDS: Final = {
    "pin": "PIN_CONTROLS",
    "pri": "PRIMARY_PROC_CONTROLS",
    "sec": "SECONDARY_PROC_CONTROLS",
    "ter": "TERTIARY_PROC_CONTROLS",
    "exit": "EXIT_CONTROLS",
    "exit2": "SECONDARY_EXIT_CONTROLS",
    "entry": "ENTRY_CONTROLS",
}
ACTIVATED: Final = {"sec": ("pri", 31), "ter": ("pri", 17), "exit2": ("exit", 31)}
TOKEN: Final = re.compile(r"(?P<name>[A-Za-z_0-9.x/]+?)(?P<how>[=+-])(?P<value>\S+)")


@attrs.frozen
class Row:
    """A state, and what one check says of it; `also` are the other checks that fail."""

    check: str
    says: Says
    text: str
    also: frozenset[str] = frozenset()
    exact: bool = True
    """Whether the other checks are told too."""
    bit: tuple[str, int] | None = None
    """A bit of a field that differs from what the text says."""


@functools.cache
def document() -> dict[str, Any]:
    """The file."""
    return tomllib.loads(Path(__file__).with_name("entry_rows.toml").read_text("utf-8"))


def checks() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Ids, what the file says of them, and what stands for `@` there."""
    for name, told in document().items():
        if name == "processors":
            continue
        twins = told.get("twins", [""])
        ids = told.get("ids") or [name.replace("@", twin) for twin in twins]
        for check_id, twin in zip(ids, twins, strict=True):
            yield check_id, told, twin


@functools.cache
def rows() -> tuple[Row, ...]:
    """All of them."""
    found: list[Row] = []
    for check_id in dict.fromkeys(check_id for check_id, _, _ in checks()):
        found += [Row(check_id, "passes", mode) for mode in MODES]
    for check_id, told, twin in checks():
        for says in SAYS:
            for text in told.get(says, ()):
                line = text.replace("@", twin).replace("#", _number_of(twin))
                also = frozenset(word[1:] for word in line.split() if word.startswith("!"))
                found.append(Row(check_id, says, line, also))
        for text in told.get("bits", ()):  # `?15`: some processors refuse this bit
            state, _, wanted = text.replace("@", twin).partition(";")
            field, *ranges = wanted.split()
            refused = {bit for one in ranges for bit in _bits(one.lstrip("?"))}
            unsure = {bit for one in ranges if one.startswith("?") for bit in _bits(one[1:])}
            before = vmcs_of(state)[0].fields[field]
            for bit in range(FIELDS[field].width):
                if not before >> bit & 1:
                    says = "doubts" if bit in unsure else "fails" if bit in refused else "passes"
                    found.append(Row(check_id, says, state, exact=False, bit=(field, bit)))
        for text in told.get("heals", ()):
            state, _, wanted = text.replace("@", twin).partition(";")
            field, *ranges = wanted.split()
            found.append(Row(check_id, "fails", state, exact=False))
            healing = {bit for one in ranges for bit in _bits(one)}
            found += [
                Row(check_id, "passes" if bit in healing else "fails", state, exact=False, bit=(field, bit))
                for bit in range(FIELDS[field].width)
            ]
    return tuple(found)


def _number_of(segment: str) -> str:
    """The number that the manual's lists give a segment register."""
    order = ("", "CS", "SS", "DS", "ES", "FS", "GS")
    return f"{order.index(segment):02}" if segment in order else ""


def _bits(text: str) -> range:
    high, _, low = text.partition(":")
    return range(int(low or high), int(high) + 1)


@functools.cache
def processor(name: str) -> Capabilities:
    """A processor of the file."""
    told = document()["processors"][name]
    base = processor(told["like"]) if "like" in told else Capabilities(name)
    msrs = {**base.msrs, **{int(number, 16): value for number, value in told.get("msrs", {}).items()}}
    features = {**base.features}
    if "features" in told:
        features = {feature: feature in told["features"] for feature in FEATURES}
    return attrs.evolve(
        base,
        name=name,
        msrs=msrs,
        features=features,
        cpuid=told.get("cpuid", base.cpuid),
        maxphyaddr=told.get("pa", base.maxphyaddr),
        linear_address_width=told.get("lw", base.linear_address_width),
    )


@functools.cache
def _number(text: str) -> Any:
    return eval(text, {"__builtins__": {}}, {})  # an expression of numbers in a file of ours


@functools.cache
def vmcs_of(text: str) -> tuple[Vmcs, Capabilities]:
    """The state and its processor."""
    words = [word for word in text.split() if not word.startswith(("!", "entry:"))]
    mode: Mode = "64-bit"
    if words and words[0] in MODES:
        mode = cast(Mode, words.pop(0))
    name = "all"
    if words and words[0].startswith("on:"):
        name = words.pop(0)[3:]
    capabilities, changes, launch, memory = (
        processor(name),
        list[tuple[str, str, str]](),
        dict[str, Any](),
        [],
    )
    for word in words:
        match = TOKEN.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} in {text!r} is no change of a state")
        target, how, value = match["name"], match["how"], match["value"]
        if target.startswith("launch."):
            launch[target[7:]] = _number(value)
        elif target.startswith("mem."):
            address, _, size = target[4:].partition("/")
            memory.append((int(address, 16), int(size), _number(value)))
        elif target in ("cap.pa", "cap.lw"):
            field = {"cap.pa": "maxphyaddr", "cap.lw": "linear_address_width"}[target]
            capabilities = attrs.evolve(capabilities, **{field: _number(value)})
        elif target.startswith("cap."):
            features = {**capabilities.features, target[4:]: bool(_number(value))}
            capabilities = attrs.evolve(capabilities, features=features)
        elif target.startswith("msr."):
            index = int(target[4:], 16)
            value_ = _changed(capabilities.msrs.get(index, 0), how, value)
            capabilities = attrs.evolve(capabilities, msrs={**capabilities.msrs, index: value_})
        else:
            changes.append((target, how, value))
    base = baseline(mode, capabilities)
    fields = dict(base.fields)
    for target, how, value in changes:
        if target in ACTIVATED:
            word, bit = ACTIVATED[target]
            fields[WORDS[word]] |= 1 << bit
        field = WORDS.get(target, target)
        fields[field] = _changed(fields[field], how, value)
    started = attrs.evolve(base.launch, **{"vmxon_pointer": 0x1_2000, **launch})
    return attrs.evolve(base, fields=fields, memory=tuple(memory), launch=started), capabilities


def _changed(before: int, how: str, value: str) -> int:
    if how == "=":
        number = _number(value)
        assert isinstance(number, int)
        return number
    for bit in value.split(","):
        before = before | 1 << int(bit) if how == "+" else before & ~(1 << int(bit))
    return before


def state(row: Row) -> tuple[Vmcs, Capabilities]:
    """The state of a row and its processor."""
    vmcs, capabilities = vmcs_of(row.text)
    if row.bit is not None:
        field, bit = row.bit
        vmcs = vmcs.with_fields(**{field: vmcs.fields[field] ^ 1 << bit})
    return vmcs, capabilities


__all__ = ["Launch", "Row", "checks", "document", "rows", "state", "vmcs_of"]
