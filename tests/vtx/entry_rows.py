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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

import number_rows
from number_rows import Row, changed, number
from popek.architectures.vtx.baselines import MODES, Mode, baseline
from popek.architectures.vtx.capabilities import FEATURES, Capabilities
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.vmcs import Vmcs

FILE: Final = Path(__file__).with_name("entry_rows.toml")
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


def checks() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Ids, what the file says of them, and what stands for `@` there."""
    return number_rows.rules(FILE)


@functools.cache
def rows() -> tuple[Row, ...]:
    """All of them."""
    return number_rows.rows(
        FILE, lambda text, field: (vmcs_of(text)[0].fields[field], FIELDS[field].width), MODES
    )


@functools.cache
def processor(name: str) -> Capabilities:
    """A processor of the file."""
    told = number_rows.document(FILE)["processors"][name]
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
def vmcs_of(text: str) -> tuple[Vmcs, Capabilities]:
    """The state and its processor."""
    first, _, rest = text.partition(" ")
    mode: Mode = "64-bit"
    if first in MODES:
        mode, text = first, rest
    first, _, rest = text.partition(" ")
    name = "all"
    if first.startswith("on:"):
        name, text = first[3:], rest
    capabilities, changes, launch, memory = (
        processor(name),
        list[tuple[str, str, str]](),
        dict[str, Any](),
        [],
    )
    for target, how, value in number_rows.words(text):
        if target.startswith("launch."):
            launch[target[7:]] = number(value)
        elif target.startswith("mem."):
            address, _, size = target[4:].partition("/")
            memory.append((int(address, 16), int(size), number(value)))
        elif target in ("cap.pa", "cap.lw"):
            field = {"cap.pa": "maxphyaddr", "cap.lw": "linear_address_width"}[target]
            capabilities = attrs.evolve(capabilities, **{field: number(value)})
        elif target.startswith("cap."):
            features = {**capabilities.features, target[4:]: bool(number(value))}
            capabilities = attrs.evolve(capabilities, features=features)
        elif target.startswith("msr."):
            index = int(target[4:], 16)
            value_ = changed(capabilities.msrs.get(index, 0), how, value)
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
        fields[field] = changed(fields[field], how, value)
    started = attrs.evolve(base.launch, **{"vmxon_pointer": 0x1_2000, **launch})
    return attrs.evolve(base, fields=fields, memory=tuple(memory), launch=started), capabilities


def state(row: Row) -> tuple[Vmcs, Capabilities]:
    """The state of a row and its processor."""
    vmcs, capabilities = vmcs_of(row.text)
    if row.bit is not None:
        vmcs = attrs.evolve(vmcs, fields=number_rows.flipped(vmcs.fields, row.bit))
    return vmcs, capabilities
