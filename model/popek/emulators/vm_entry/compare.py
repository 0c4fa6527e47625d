"""VM entries on Bochs beside what the checks say: cases, predictions and what is left to explain."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, get_args

import attrs

from popek.architectures.vtx.bochs import bochs_checks
from popek.architectures.vtx.capabilities import Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.entry_checks import Outcome
from popek.architectures.vtx.evaluation import Evaluator
from popek.architectures.vtx.fields import FIELDS, by_encoding
from popek.architectures.vtx.verdict import decide
from popek.architectures.vtx.vmcs import Launch, MemoryEntry, Vmcs
from popek_specs.vtx import rows

from .guest import image
from .harness import (
    ARENA,
    CONTROL_PAGES,
    CURRENT_VMCS,
    DEFAULT_MODEL,
    FIXED_FIELDS,
    SCRATCH,
    SPARE_VMCS,
    EntryCase,
    EntryResult,
    Mode,
    baseline,
    capabilities,
    has_mode,
    run_cases,
)

HANDS_OFF: Final = frozenset(
    {by_encoding(encoding)[0].id for encoding in FIXED_FIELDS}
    | {"EXIT_MSR_STORE_COUNT", "EXIT_MSR_LOAD_COUNT", "ENTRY_MSR_LOAD_COUNT"}
)
"""Fields that cases leave alone: the harness needs them, or what they count lies in memory."""

_SUSPICIOUS: Final = (
    *("PIN_CONTROLS", "PRIMARY_PROC_CONTROLS", "SECONDARY_PROC_CONTROLS", "EXIT_CONTROLS", "ENTRY_CONTROLS"),
    *("ENTRY_INTR_INFO", "ENTRY_EXCEPTION_ERROR_CODE", "ENTRY_INSTRUCTION_LENGTH"),
    *("GUEST_INTERRUPTIBILITY", "GUEST_ACTIVITY_STATE", "GUEST_PENDING_DEBUG_EXCEPTIONS", "GUEST_RFLAGS"),
    *("GUEST_CR0", "GUEST_CR4", "GUEST_IA32_EFER", "HOST_IA32_EFER", "HOST_CR0", "HOST_CR4"),
    *("GUEST_TR_ACCESS_RIGHTS", "GUEST_CS_ACCESS_RIGHTS", "GUEST_SS_ACCESS_RIGHTS", "GUEST_LDTR_ACCESS_RIGHTS"),
    *("GUEST_CS_SELECTOR", "GUEST_SS_SELECTOR", "GUEST_TR_SELECTOR", "GUEST_CS_LIMIT", "GUEST_TR_LIMIT"),
    *("EPTP", "CR3_TARGET_COUNT", "TPR_THRESHOLD", "VPID", "GUEST_PDPTE0", "VMCS_LINK_POINTER", "GUEST_RIP"),
)  # fmt: skip
_BOUNDARIES: Final = (
    0,
    1,
    2,
    3,
    0xFFF,
    0xFFFF,
    0x8_0000,
    0x10_0000,
    0xFFFF_FFFF,
    *(1 << n for n in (32, 40, 47, 48)),
)
_MSR_LOADING: Final = 34  # basic exit reason
_VECTORS: Final = (0, 1, 2, 3, 6, 8, 13, 14, 18, 21, 32, 255)


Load = tuple[int, int, int]
"""An entry of the VM-entry MSR-load area: index, bits 63:32, value."""


@attrs.frozen
class VmEntryCase:
    """A VM entry to try: a baseline's mode, the fields that differ, by id, and the VM-entry MSR-load area."""

    mode: Mode
    changes: Mapping[str, int]
    origin: str = "random"
    loads: tuple[Load, ...] = ()


@attrs.frozen
class ComparedEntry:
    """A case with what Bochs did, what the checks admit, which of them fail, and whether they decide it."""

    case: VmEntryCase
    result: EntryResult
    admissible: tuple[Outcome, ...]
    violated: tuple[str, ...]
    decided: bool

    @property
    def outcome(self) -> Outcome | None:
        """What Bochs did; None if the harness could not try."""
        return outcome_of(self.result)

    @property
    def explained(self) -> bool:
        """Whether Bochs did what the checks, with the listed deviations, admit."""
        outcome = self.outcome
        if outcome is None or not self.decided:
            return False
        if outcome.kind == "vmfail-valid":
            return any(outcome.errors[0] in admitted.errors for admitted in self.admissible)
        # Where MSRs are loaded it may be open which entry is the first that fails.
        anywhere = attrs.evolve(outcome, qualification=None)
        return outcome in self.admissible or (outcome.reason == _MSR_LOADING and anywhere in self.admissible)


def preset(model: str = DEFAULT_MODEL) -> Capabilities:
    """The capabilities of a Bochs model."""
    return load_capabilities("bochs-" + model.replace("_", "-"))


def modes(model: str = DEFAULT_MODEL) -> tuple[Mode, ...]:
    """The guest modes that a model can run."""
    return tuple(mode for mode in get_args(Mode) if has_mode(model, mode))


@functools.cache
def base_fields(model: str, mode: Mode) -> Mapping[str, int]:
    """The harness's baseline by field id."""
    return {by_encoding(encoding)[0].id: value for encoding, value in baseline(model, mode).items()}


@functools.cache
def _bytes(model: str) -> Mapping[int, int]:
    revision = capabilities(model)[0x480] & 0x7FFF_FFFF
    return {start + offset: byte for start, data in image(revision) for offset, byte in enumerate(data)}


def _words(model: str, *places: tuple[int, int]) -> tuple[MemoryEntry, ...]:
    """What memory holds at these addresses, so many bytes each; what belongs to the harness is left out."""
    found: list[MemoryEntry] = []
    for address, size in places:
        last = address + size - 1
        if address in ARENA and last in ARENA:
            content = bytes(_bytes(model).get(address + offset, 0) for offset in range(size))
            found.append((address, size, int.from_bytes(content, "little")))
        elif address in SCRATCH and last in SCRATCH:
            found.append((address, size, 0))
        elif address >= SCRATCH.stop:
            found.append((address, size, (1 << 8 * size) - 1))  # no memory there
    return tuple(found)


def vmcs_of(case: VmEntryCase, model: str = DEFAULT_MODEL) -> Vmcs:
    """The whole VMCS of a case, with memory where the checks look."""
    fields = {**base_fields(model, case.mode), **case.changes}
    table = fields["GUEST_CR3"] & 0xFFFF_FFE0
    fields |= _counted(case)
    memory = _words(
        model,
        (fields["VMCS_LINK_POINTER"], 4),
        (fields.get("VIRTUAL_APIC_ADDR", 0) + 0x80, 1),
        *((table + 8 * number, 8) for number in range(4)),
    )
    return Vmcs(fields=fields, memory=memory + _area(case, model), launch=Launch(current_vmcs=CURRENT_VMCS))


def _counted(case: VmEntryCase) -> dict[str, int]:
    return {"ENTRY_MSR_LOAD_COUNT": len(case.loads)} if case.loads else {}


def _area(case: VmEntryCase, model: str) -> tuple[MemoryEntry, ...]:
    """What the VM-entry MSR-load area of a case holds."""
    address = base_fields(model, case.mode)["ENTRY_MSR_LOAD_ADDR"]
    return tuple(
        (address + 16 * number + offset, size, value)
        for number, entry in enumerate(case.loads)
        for (offset, size), value in zip(((0, 4), (4, 4), (8, 8)), entry, strict=True)
    )


def base_vmcs(mode: Mode, model: str = DEFAULT_MODEL) -> Vmcs:
    """The harness's baseline of a mode, with the memory that cases may point to."""
    fields = base_fields(model, mode)
    table = fields["GUEST_CR3"] & 0xFFFF_FFE0
    memory = _words(
        model,
        (SPARE_VMCS, 4),
        (CONTROL_PAGES.virtual_apic + 0x80, 1),
        *((table + 8 * number, 8) for number in range(4)),
    )
    return Vmcs(fields=fields, memory=memory, launch=Launch(current_vmcs=CURRENT_VMCS, x2apic=False))


def case_of(case: VmEntryCase, model: str = DEFAULT_MODEL) -> EntryCase:
    """The case as the harness takes it."""
    changes = {**case.changes, **_counted(case)}
    fields = {FIELDS[name].encoding: value for name, value in changes.items()}
    memory = tuple((place, value.to_bytes(size, "little")) for place, size, value in _area(case, model))
    return EntryCase(fields, mode=case.mode, memory=memory)


def outcome_of(result: EntryResult) -> Outcome | None:
    """How an entry ended, in the words of the checks; None if it was not tried."""
    match result.kind:
        case "vmfail-valid":
            return Outcome("vmfail-valid", errors=(result.error or 0,))
        case "entry-failure":
            return Outcome("entry-failure", reason=result.basic_reason, qualification=result.qualification)
        case "enters" | "hang":
            # A guest that stays silent has entered: a refused entry always answers.
            return Outcome("enters")
    return None


def random_case(rnd: random.Random, mode: Mode, model: str = DEFAULT_MODEL) -> VmEntryCase:
    """A baseline with one field changed, or two, at times three: bits, boundary values or events."""
    original = base_fields(model, mode)
    names = [name for name in original if name not in HANDS_OFF]
    favourites = [name for name in _SUSPICIOUS if name in original]
    changes: dict[str, int] = {}
    for _ in range(rnd.choice((1, 1, 1, 2, 2, 2, 3))):
        name = rnd.choice(favourites if rnd.random() < 0.5 else names)
        changes[name] = _changed(rnd, name, changes.get(name, original[name]))
        if name == "SECONDARY_PROC_CONTROLS" and rnd.random() < 0.9:
            changes["PRIMARY_PROC_CONTROLS"] = (
                changes.get("PRIMARY_PROC_CONTROLS", original["PRIMARY_PROC_CONTROLS"]) | 1 << 31
            )
    return VmEntryCase(mode, changes)


_LOADED: Final = (
    *(0x10, 0x17, 0x3A, 0x3B, 0x48, 0xFE, 0x174, 0x175, 0x176, 0x179, 0x200, 0x201, 0x250, 0x277, 0x2FF, 0x480),
    *(0x48B, 0x491, 0x6A0, 0x6A2, 0x6A4, 0x6A7, 0x6A8, 0x6E0, 0x6E1, 0x808, 0x83F, 0x79, 0x8B, 0x9B, 0x9E, 0xDA0),
    *(0xC0000080, 0xC0000081, 0xC0000082, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102, 0xC0000103),
)  # fmt: skip
_LOADED_VALUES: Final = (
    *(0, 1, 2, 4, 6, 0x0007_0406_0007_0406, 0x500, 0xD01, 0xC06, 0x7FFF_FFFF_F000),
    *(1 << 47, 0xFFFF_8000_0000_0000, (1 << 64) - 1),
)  # fmt: skip
_IA32_APIC_BASE: Final = 0x1B
_IA32_TSC_AUX: Final = 0xC000_0103
_X2APIC, _APIC_ON = 1 << 10, 1 << 11


def random_area_case(rnd: random.Random, mode: Mode, *, every: bool = False) -> VmEntryCase:
    """A baseline that loads one to three MSRs, some of which cannot be loaded.

    Args:
        every: draw them from every MSR that the manual lists, and now and then beside those.
    """
    loads: list[Load] = []
    for _ in range(rnd.choice((1, 2, 2, 3))):
        index = rnd.choice(_LOADED)
        if every and rnd.random() < 0.7:
            index = rnd.choice(_listed()) ^ (1 << rnd.randrange(13) if rnd.random() < 0.05 else 0)
        value = rnd.choice(_LOADED_VALUES) ^ (1 << rnd.randrange(64) if rnd.random() < 0.4 else 0)
        if every and rnd.random() < 0.4:
            value = 0  # which most registers take
        if index == _IA32_APIC_BASE:
            # One that is off takes anything from then on (see Bochs' deviations), and x2APIC mode is left by that only.
            value = value & ~_X2APIC | _APIC_ON
        if index == _IA32_TSC_AUX:
            value &= 0xFFFF_FFFF  # Bochs drops the other bits; see its deviations
        loads.append((index, rnd.choice((0,) * 12 + (1, 1 << 31)), value))
    return VmEntryCase(mode, {}, loads=tuple(loads))


@functools.cache
def _listed() -> tuple[int, ...]:
    """One of each row of the table, and of a run of registers its first, second and last."""
    runs = ((int(row["first"], 16), int(row["last"], 16)) for row in rows("msrs.csv"))
    return tuple(sorted({number for first, last in runs for number in (first, min(first + 1, last), last)}))


def _changed(rnd: random.Random, name: str, value: int) -> int:
    width, mask, way = FIELDS[name].width, FIELDS[name].mask, rnd.random()
    if name == "ENTRY_INTR_INFO" and way < 0.7:
        return 1 << 31 | rnd.randrange(16) << 8 | rnd.choice(_VECTORS)
    if way < 0.6:
        return value ^ 1 << rnd.randrange(width)
    if way < 0.8:
        return value ^ (1 << rnd.randrange(width) | 1 << rnd.randrange(width))
    if way < 0.9:
        return rnd.choice(_BOUNDARIES) & mask
    # Beside a boundary.
    return (rnd.choice(_BOUNDARIES) + rnd.choice((-1, 1))) & mask


def predictable(case: VmEntryCase, model: str = DEFAULT_MODEL) -> bool:
    """Whether the checks decide a case; they do not where it points into memory of the harness."""
    evaluator = _evaluator(model)
    vmcs = vmcs_of(case, model)
    view = evaluator.look(vmcs)
    return decide(evaluator.run(vmcs, view), view)[0].kind != "undecided"


@functools.cache
def _evaluator(model: str) -> Evaluator:
    return Evaluator(preset(model), bochs_checks(preset(model)))


def compare(
    cases: Sequence[VmEntryCase],
    model: str = DEFAULT_MODEL,
    progress: Callable[[int, int], None] | None = None,
) -> list[ComparedEntry]:
    """Try the cases on Bochs, and put what happened beside what the checks say, deviations included.

    Raises:
        BochsError: Bochs or nasm is missing, or the harness fails.
    """
    known = preset(model)
    evaluator = Evaluator(known, bochs_checks(known))
    results = run_cases((case_of(case, model) for case in cases), model=model, progress=progress)
    return [_compared(evaluator, case, result, model) for case, result in zip(cases, results, strict=True)]


def _compared(evaluator: Evaluator, case: VmEntryCase, result: EntryResult, model: str) -> ComparedEntry:
    vmcs = vmcs_of(case, model)
    view = evaluator.look(vmcs)
    findings = evaluator.run(vmcs, view)
    outcome, admissible = decide(findings, view)
    return ComparedEntry(
        case,
        result,
        admissible,
        tuple(check.id for check in findings.violated),
        outcome.kind != "undecided",
    )


def unexplained(compared: Iterable[ComparedEntry]) -> list[ComparedEntry]:
    """Those that the checks and the listed deviations do not account for."""
    return [item for item in compared if not item.explained]
