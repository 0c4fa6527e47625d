"""Bochs does what the checks say, check by check, but for the deviations that are listed with evidence."""

from __future__ import annotations

import functools
import random
from typing import get_args

import attrs
import pytest

from popek.architectures.vtx.bochs import bochs_checks, deviations
from popek.architectures.vtx.capabilities import Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.entry_checks import CHECKS, Outcome
from popek.architectures.vtx.evaluation import Evaluator
from popek.architectures.vtx.fields import FIELDS, by_encoding
from popek.architectures.vtx.verdict import decide, judge
from popek.architectures.vtx.vmcs import Launch, MemoryEntry, Vmcs
from popek.emulators.vm_entry.guest import image as image_of
from popek.emulators.vm_entry.harness import (
    ARENA,
    CURRENT_VMCS,
    HOST_CR3,
    HOST_RIP,
    EntryCase,
    EntryResult,
    Mode,
    baseline,
    capabilities,
    cpuid,
    has_mode,
    linear_address_bits,
    physical_address_bits,
    run_cases,
    writable_fields,
)
from popek_specs.vtx import table

pytestmark = pytest.mark.emulator

MODELS = ("tigerlake", "corei7_icelake_u", "corei7_haswell_4770", "core2_penryn_t9600")


def preset(model: str) -> Capabilities:
    return load_capabilities("bochs-" + model.replace("_", "-"))


@functools.cache
def base(model: str, mode: Mode) -> dict[str, int]:
    """The harness's baseline by field id."""
    return {by_encoding(encoding)[0].id: value for encoding, value in baseline(model, mode).items()}


@functools.cache
def image() -> dict[int, int]:
    """The harness's memory, byte by byte; what is not in it is 0."""
    revision = capabilities("tigerlake")[0x480] & 0x7FFF_FFFF
    return {start + offset: byte for start, data in image_of(revision) for offset, byte in enumerate(data)}


def memory(fields: dict[str, int]) -> tuple[MemoryEntry, ...]:
    """What the harness has in memory where the checks look; anything outside its memory reads as all ones."""

    def word(address: int, size: int) -> MemoryEntry:
        if address not in ARENA or address + size - 1 not in ARENA:
            return (address, size, (1 << 8 * size) - 1)
        content = bytes(image().get(address + offset, 0) for offset in range(size))
        return (address, size, int.from_bytes(content, "little"))

    table = fields["GUEST_CR3"] & 0xFFFF_FFE0
    return (
        word(fields["VMCS_LINK_POINTER"], 4),
        word(fields.get("VIRTUAL_APIC_ADDR", 0) + 0x80, 1),
        *(word(table + 8 * number, 8) for number in range(4)),
    )


def vmcs_of(model: str, mode: Mode, changes: dict[str, int]) -> Vmcs:
    fields = {**base(model, mode), **changes}
    return Vmcs(fields=fields, memory=memory(fields), launch=Launch(current_vmcs=CURRENT_VMCS))


def case_of(mode: Mode, changes: dict[str, int]) -> EntryCase:
    return EntryCase({FIELDS[name].encoding: value for name, value in changes.items()}, mode=mode)


def outcome_of(result: EntryResult) -> Outcome:
    if result.kind == "vmfail-valid":
        assert result.error is not None
        return Outcome("vmfail-valid", errors=(result.error,))
    if result.kind == "entry-failure":
        return Outcome("entry-failure", reason=result.basic_reason, qualification=result.qualification)
    # A guest that stays silent has entered: a refused entry always answers.
    assert result.kind in ("enters", "hang"), result
    return Outcome("enters")


def parse(text: str) -> Outcome:
    kind, *numbers = text.split()
    if kind == "vmfail-valid":
        return Outcome("vmfail-valid", errors=(int(numbers[0]),))
    if kind == "entry-failure":
        return Outcome("entry-failure", reason=int(numbers[0]), qualification=int(numbers[1]))
    assert kind == "enters"
    return Outcome("enters")


def admits(admissible: tuple[Outcome, ...], actual: Outcome) -> bool:
    if actual.kind == "vmfail-valid":
        return any(actual.errors[0] in outcome.errors for outcome in admissible)
    return actual in admissible


@pytest.mark.parametrize("model", MODELS)
def test_the_presets_are_what_the_models_report(model: str) -> None:
    known = preset(model)
    assert known.msrs == capabilities(model)
    assert known.maxphyaddr == physical_address_bits(model)
    assert known.linear_address_width == linear_address_bits(model)
    for register, value in known.cpuid.items():
        leaf, subleaf, name = register.split(".")
        index = ("eax", "ebx", "ecx", "edx").index(name)
        assert cpuid(model)[int(leaf, 16), int(subleaf, 16)][index] == value, register


@pytest.mark.parametrize("model", MODELS)
def test_each_deviation_can_be_seen(model: str) -> None:
    """Bochs does what the evidence says, and our verdict is the manual's."""
    shown = [item for item in deviations() if item.applies(preset(model)) and has_mode(model, item.mode)]  # type: ignore[arg-type]
    shown = [item for item in shown if set(item.fields) <= set(base(model, "64-bit"))]
    assert shown
    changes = [item.changed(base(model, item.mode)) for item in shown]  # type: ignore[arg-type]
    results = run_cases(
        (case_of(item.mode, change) for item, change in zip(shown, changes, strict=True)),  # type: ignore[arg-type]
        model=model,
    )
    for item, change, result in zip(shown, changes, results, strict=True):
        assert outcome_of(result) == parse(item.bochs), item.id
        verdict = judge(vmcs_of(model, item.mode, change), preset(model))  # type: ignore[arg-type]
        assert verdict.outcome == parse(item.manual), (item.id, verdict.failed, verdict.undecided)


def test_every_deviation_is_seen_on_some_model() -> None:
    seen = {item.id for model in MODELS for item in deviations() if item.applies(preset(model))}
    assert seen == {item.id for item in deviations()}
    assert {row for item in deviations() for row in item.rows} <= set(CHECKS)


SUSPICIOUS = (
    "PIN_CONTROLS",
    "PRIMARY_PROC_CONTROLS",
    "SECONDARY_PROC_CONTROLS",
    "EXIT_CONTROLS",
    "ENTRY_CONTROLS",
    "ENTRY_INTR_INFO",
    "ENTRY_EXCEPTION_ERROR_CODE",
    "ENTRY_INSTRUCTION_LENGTH",
    "GUEST_INTERRUPTIBILITY",
    "GUEST_ACTIVITY_STATE",
    "GUEST_RFLAGS",
    "GUEST_CR0",
    "GUEST_CR4",
    "GUEST_TR_ACCESS_RIGHTS",
    "GUEST_CS_ACCESS_RIGHTS",
    "GUEST_SS_ACCESS_RIGHTS",
    "GUEST_CS_SELECTOR",
    "GUEST_SS_SELECTOR",
    "EPTP",
    "CR3_TARGET_COUNT",
    "TPR_THRESHOLD",
    "GUEST_IA32_EFER",
    "HOST_IA32_EFER",
    "GUEST_PDPTE0",
)
"""Fields that many checks look at."""

BOUNDARIES = (0, 1, 2, 3, 0xFFF, 0xFFFF, 0x8_0000, 0x10_0000, 0xFFFF_FFFF, 1 << 32, 1 << 40, 1 << 47, 1 << 48)


def mutate(rnd: random.Random, model: str, mode: Mode) -> dict[str, int]:
    """One to three fields changed: a bit or two, a boundary value, or an event."""
    original = base(model, mode)
    # MSR areas are for other tests: their entries lie in memory.
    hands_off = {by_encoding(HOST_CR3)[0].id, by_encoding(HOST_RIP)[0].id}
    names = [name for name in original if not name.endswith("_COUNT") and name not in hands_off]
    favourites = [name for name in SUSPICIOUS if name in original]
    changes: dict[str, int] = {}
    for _ in range(rnd.choice((1, 1, 1, 2, 2, 3))):
        name = rnd.choice(favourites if rnd.random() < 0.5 else names)
        width = FIELDS[name].width
        value = changes.get(name, original[name])
        way = rnd.random()
        if name == "ENTRY_INTR_INFO" and way < 0.7:
            value = 1 << 31 | rnd.randrange(16) << 8 | rnd.choice((0, 1, 2, 3, 6, 8, 13, 14, 18, 21, 32, 255))
        elif way < 0.6:
            value ^= 1 << rnd.randrange(width)
        elif way < 0.8:
            value ^= 1 << rnd.randrange(width) | 1 << rnd.randrange(width)
        else:
            value = rnd.choice(BOUNDARIES) & FIELDS[name].mask
        changes[name] = value
        if name == "SECONDARY_PROC_CONTROLS" and rnd.random() < 0.9:
            changes["PRIMARY_PROC_CONTROLS"] = original["PRIMARY_PROC_CONTROLS"] | 1 << 31
    return changes


@pytest.mark.parametrize("model", MODELS)
def test_random_mutations_end_as_predicted(model: str) -> None:
    """With the deviations taken into account nothing is left to explain."""
    rnd = random.Random(f"vm entry on {model}")
    modes = [mode for mode in get_args(Mode) if has_mode(model, mode)]
    cases = [(mode, mutate(rnd, model, mode)) for mode in (rnd.choice(modes) for _ in range(1200))]
    results = run_cases((case_of(mode, changes) for mode, changes in cases), model=model)
    evaluator = Evaluator(preset(model), bochs_checks(preset(model)))
    unexplained = []
    seen: set[str] = set()
    for (mode, changes), result in zip(cases, results, strict=True):
        assert result.kind != "vmwrite-failed"
        vmcs = vmcs_of(model, mode, changes)
        view = evaluator.look(vmcs)
        findings = evaluator.run(vmcs, view)
        outcome, admissible = decide(findings, view)
        seen |= {check.id for check in findings.violated}
        if outcome.kind == "undecided" or not admits(admissible, outcome_of(result)):
            names = [check.id for check in findings.violated]
            unexplained.append((mode, {k: hex(v) for k, v in changes.items()}, outcome_of(result), names))
    assert unexplained == []
    assert len(seen) > 100


MSR_ENTRIES = (
    (0xC000_0100, 0, 0),
    (0xC000_0101, 0, 0),
    (0xC000_0102, 0, 0),
    (0xC000_0102, 0, 1 << 47),
    (0x808, 0, 0),
    (0x9B, 0, 0),
    (0x174, 1, 0),
    (0x79, 0, 0),
    (0x8B, 0, 0),
    (0x277, 0, 2),
    (0x277, 0, 6),
    (0x175, 0, 1 << 47),
    (0x176, 0, (1 << 47) - 1),
    (0xC000_0080, 0, 0x502),
    (0xC000_0080, 0, 0),
    (0xC000_0080, 0, 0x500),
    (0xC000_0082, 0, 1 << 47),
    (0x6A2, 0, 0x40),
    (0x6A2, 0, 0xC00),
    (0x6A4, 0, 1),
    (0x6A8, 0, 1 << 47),
)
"""Index, bits 63:32 and value of an entry of the VM-entry MSR-load area."""


def test_msr_load_entries_end_as_predicted() -> None:
    model = "tigerlake"
    known = {
        (int(item["index"], 16), 0, int(item["value"], 16))
        for item in table("bochs-deviations.toml")["msr_load"]
    }
    address = base(model, "64-bit")["ENTRY_MSR_LOAD_ADDR"]
    count = {"ENTRY_MSR_LOAD_COUNT": 2}
    harmless = (0xC000_0081, 0, 5)  # IA32_STAR
    cases, vmcss = [], []
    entries = [*MSR_ENTRIES, *sorted(known)]
    for entry in entries:
        words = [
            (address + 16 * number + offset, size, value)
            for number, item in enumerate((harmless, entry))
            for (offset, size), value in zip(((0, 4), (4, 4), (8, 8)), item, strict=True)
        ]
        data = tuple((place, value.to_bytes(size, "little")) for place, size, value in words)
        cases.append(attrs.evolve(case_of("64-bit", count), memory=data))
        vmcs = vmcs_of(model, "64-bit", count)
        vmcss.append(attrs.evolve(vmcs, memory=tuple(words)))
    for entry, vmcs, result in zip(entries, vmcss, run_cases(cases, model=model), strict=True):
        verdict = judge(vmcs, preset(model))
        assert verdict.undecided == ()
        assert (verdict.outcome == outcome_of(result)) == (entry not in known), (entry, verdict.failed)


def test_the_harness_accepts_every_field_the_cases_change() -> None:
    for model in MODELS:
        assert {FIELDS[name].encoding for name in base(model, "64-bit")} <= writable_fields(model)
