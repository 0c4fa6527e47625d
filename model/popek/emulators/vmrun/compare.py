"""VMRUN on Bochs beside what the checks say: cases, predictions and what is left to explain."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from popek.architectures.svm.bochs import Outcome, bochs_checks, fetched_through, oddity
from popek.architectures.svm.verdict import VmrunVerdict, judge
from popek.architectures.svm.vmcb import FIELDS, SvmProcessor, Vmcb

from .harness import (
    DEFAULT_MODEL,
    MODES,
    ROAMING,
    VMEXIT_INVALID,
    RunCase,
    RunResult,
    baseline,
    processor,
    quadword,
    run_cases,
)

_VIRTUAL_8086: Final = 1 << 17
_PAGE: Final = 4096
_TYPES: Final = range(8)
_VECTORS: Final = (0, 1, 2, 3, 4, 5, 6, 8, 9, 13, 14, 15, 18, 20, 28, 30, 31, 32, 33, 128, 255)
_MEMORY_TYPES: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0x40, 0x80, 0xFF)
_CHANGED_BIT_BY_BIT: Final = (
    *("INTERCEPTS_3", "INTERCEPTS_4", "TLB_CONTROL", "VINTR_CONTROL", "NP_CONTROL", "EVENTINJ"),
    *("N_CR3", "IOPM_BASE", "MSRPM_BASE", "CS_ATTRIBUTES", "EFER", "CR0", "CR3", "CR4", "DR6", "DR7"),
    *("S_CET", "G_PAT", "RFLAGS"),
)
"""Fields that some check looks at, and RFLAGS, which none does."""


@attrs.frozen
class VmrunCase:
    """A VMRUN to try, and where it comes from."""

    run: RunCase
    origin: str = "random"


@attrs.frozen
class ComparedVmrun:
    """A case with what Bochs did, what the checks with the listed deviations make of it, and which fail without."""

    case: VmrunCase
    result: RunResult
    verdict: VmrunVerdict
    oddity: Outcome | None
    violated: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """What Bochs did."""
        return outcome_of(self.result)

    @property
    def admissible(self) -> tuple[Outcome, ...]:
        """What the checks admit: both outcomes where only checks fail that not all processors do."""
        if self.oddity is not None:
            return (self.oddity,)
        match self.verdict.outcome:
            case "vmexit-invalid":
                return ("vmexit-invalid",)
            case "enters":
                return ("enters", "vmexit-invalid") if self.verdict.warnings else ("enters",)
        return ()

    @property
    def explained(self) -> bool:
        """Whether Bochs did something admissible."""
        return self.outcome in self.admissible


def outcome_of(result: RunResult) -> Outcome:
    """How a VMRUN ended, in the words of the checks."""
    match result.kind:
        case "exit":
            return "vmexit-invalid" if result.exit_code == VMEXIT_INVALID else "enters"
        case "hang":
            return "enters"  # a guest that stays silent; a refused VMRUN always answers
    return result.kind


def vmcb_of(case: RunCase) -> Vmcb:
    """The whole VMCB of a case, with memory where the checks look."""
    fields = {**baseline(case.mode, case.nested), **case.fields}
    table = fields["CR3"] & 0xFFFF_FFE0
    words = {address: quadword(address, case.memory) for address in range(table, table + 32, 8)}
    vmcb = Vmcb("case", fields, {address: word for address, word in words.items() if word is not None})
    beside = {address: quadword(address, case.memory) for address in fetched_through(vmcb)}
    known = {address: word for address, word in beside.items() if word is not None}
    return attrs.evolve(vmcb, memory={**vmcb.memory, **known})


# --- cases --------------------------------------------------------------------------------------------------


def edges(fields: Mapping[str, int], known: SvmProcessor) -> Iterator[tuple[str, dict[str, int]]]:
    """Changes to a VMCB around the edge of each check, and the name of the field or rule they are about."""
    for name in _CHANGED_BIT_BY_BIT:
        for number in range(FIELDS[name].width):
            yield name, {name: fields[name] ^ 1 << number}
    limit = 1 << (known.maxphyaddr or 52)
    for name, pages, below in itertools.product(("IOPM_BASE", "MSRPM_BASE"), range(-1, 5), (0, 1, 0xFFF)):
        yield name, {name: limit - pages * _PAGE + below}
    for value in range(-2, 2):
        yield "N_CR3", {"N_CR3": limit + value * _PAGE}
    for value in (0, 1, 2, 0xFFFF_FFFF):
        yield "ASID", {"ASID": value}
    for value in (*range(9), 0x80, 0xFF):
        yield "TLB_CONTROL", {"TLB_CONTROL": value}
    for byte, value in itertools.product(range(8), _MEMORY_TYPES):
        yield "G_PAT", {"G_PAT": fields["G_PAT"] & ~(0xFF << 8 * byte) | value << 8 * byte}
    for kind, vector, code in itertools.product(_TYPES, _VECTORS, (0, 1)):
        yield "EVENTINJ", {"EVENTINJ": 1 << 31 | code << 11 | kind << 8 | vector}
    for masks in itertools.product((0, 1 << 26), (0, 2), (0, 1)):
        yield (
            "virtual NMI",
            _cleared(fields, {"INTERCEPTS_3": 2, "NP_CONTROL": 1, "VINTR_CONTROL": 1 << 26}, masks),
        )
    for avic, nested in itertools.product((0, 1 << 31), (0, 1)):
        for name in ("AVIC_BACKING_PAGE", "AVIC_LOGICAL_TABLE", "AVIC_PHYSICAL_TABLE"):
            for address in (0, limit - _PAGE, limit):
                yield "AVIC", {"VINTR_CONTROL": avic, "NP_CONTROL": nested, name: address}
    # Long mode, paging, PAE and the width of the code segment hang together; so do CD and NW, and WP and CET.
    for lme, paging, pae, protected, width in itertools.product((0, 1), (0, 1), (0, 1), (0, 1), range(4)):
        yield (
            "mode",
            {
                "EFER": fields["EFER"] & ~0x500 | lme << 8,
                "CR0": fields["CR0"] & ~0x8000_0001 | paging << 31 | protected,
                "CR4": fields["CR4"] & ~0x20 | pae << 5,
                "CS_ATTRIBUTES": fields["CS_ATTRIBUTES"] & ~0x600 | width << 9,
            },
        )
    yield "SVME", {"EFER": fields["EFER"] & ~(1 << 12)}
    for number in range(48, 64):
        yield "upper half", {"CR3": fields["CR3"] | 1 << number}
    for vector in range(8):
        yield "exception", {"EVENTINJ": 1 << 31 | 3 << 8 | vector}
    for caching in range(4):
        yield "caching", {"CR0": fields["CR0"] & ~(3 << 29) | caching << 29}
    for wp, cet in itertools.product((0, 1), (0, 1)):
        yield "CET", {"CR0": fields["CR0"] & ~(1 << 16) | wp << 16, "CR4": fields["CR4"] | cet << 23}


def _cleared(fields: Mapping[str, int], masks: Mapping[str, int], values: Sequence[int]) -> dict[str, int]:
    return {
        name: fields[name] & ~mask | value & mask
        for (name, mask), value in zip(masks.items(), values, strict=True)
    }


def make_cases(count: int, seed: int, model: str = DEFAULT_MODEL) -> list[VmrunCase]:
    """Cases in all guest modes; the same seed gives the same cases.

    Half of them change a baseline around the edge of one check, a quarter around two, and the others flip
    bits anywhere in the VMCB.
    """
    rnd = random.Random(f"vmrun {seed}")
    known = processor(model)
    around = {
        (mode, nested): _by_name(edges(baseline(mode, nested), known))
        for mode in MODES
        for nested in (True, False)
    }
    made: list[VmrunCase] = []
    while len(made) < count:
        mode, nested = rnd.choice(MODES), rnd.random() < 0.6
        host_paging = rnd.random() < 0.9
        if mode == "v8086":
            # Bochs gives up on the way back from a virtual-8086 guest to a 64-bit host: one such case in fifty.
            nested, host_paging = False, rnd.random() < 0.02
        way = rnd.random()
        changes: dict[str, int] = {}
        memory: tuple[tuple[int, bytes], ...] = ()
        if way < 0.75:
            names = rnd.choices(list(around[mode, nested]), k=1 if way < 0.5 else 2)
            origin = " and ".join(names)
            for name in names:
                changes |= rnd.choice(around[mode, nested][name])
            if mode == "pae" and rnd.random() < 0.3:
                origin, memory = f"{origin} and PDPTE", (_entry(rnd),)
        else:
            origin = "random"
            changes = _flipped(rnd, baseline(mode, nested))
        if not changes.get("NP_CONTROL", nested) & 0xFF:
            changes = {name: value for name, value in changes.items() if name not in ROAMING}
        if mode != "v8086" and changes.get("RFLAGS", 0) & _VIRTUAL_8086 and rnd.random() < 0.9:
            continue
        made.append(VmrunCase(RunCase(mode, nested, changes, memory, host_paging), origin))
    return made


def _by_name(found: Iterable[tuple[str, dict[str, int]]]) -> dict[str, list[dict[str, int]]]:
    groups: dict[str, list[dict[str, int]]] = {}
    for name, changes in found:
        groups.setdefault(name, []).append(changes)
    return groups


def _entry(rnd: random.Random) -> tuple[int, bytes]:
    """A page-directory-pointer-table entry of the ``pae`` baseline with one bit changed."""
    table = baseline("pae")["CR3"]
    address = table + 8 * rnd.randrange(4)
    value = (quadword(address) or 0) ^ 1 << rnd.randrange(64) | rnd.randrange(2)
    return address, value.to_bytes(8, "little")


def _flipped(rnd: random.Random, fields: Mapping[str, int]) -> dict[str, int]:
    changes: dict[str, int] = {}
    for _ in range(rnd.choice((1, 1, 2, 3))):
        name = rnd.choice([name for name in fields if name != "CPL"])
        changes[name] = changes.get(name, fields[name]) ^ 1 << rnd.randrange(FIELDS[name].width)
    if rnd.random() < 0.05:
        changes["CPL"] = rnd.randrange(4)
    return changes


# --- comparison ---------------------------------------------------------------------------------------------


def compare(
    cases: Sequence[VmrunCase],
    model: str = DEFAULT_MODEL,
    progress: Callable[[int, int], None] | None = None,
) -> list[ComparedVmrun]:
    """Try the cases on Bochs, and put what happened beside what the checks say, deviations included.

    Raises:
        BochsError: Bochs or nasm is missing, or the harness fails.
    """
    hosts = {paging: processor(model, host_paging=paging) for paging in (True, False)}
    checks = bochs_checks()
    results = run_cases((case.run for case in cases), model=model, progress=progress)
    found = []
    for case, result in zip(cases, results, strict=True):
        vmcb = vmcb_of(case.run)
        host = hosts[case.run.host_paging]
        verdict = judge(vmcb, host, checks)
        odd = oddity(vmcb, host, tuple(failure.id for failure in verdict.failed))
        plain = judge(vmcb, host)
        violated = tuple(failure.id for failure in (*plain.failed, *plain.warnings))
        found.append(ComparedVmrun(case, result, verdict, odd, violated))
    return found


def unexplained(compared: Iterable[ComparedVmrun]) -> list[ComparedVmrun]:
    """Those that the checks and the listed deviations do not account for."""
    return [item for item in compared if not item.explained]
