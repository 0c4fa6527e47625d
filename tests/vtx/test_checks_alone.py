"""For each check there is a VMCS that violates it and nothing else, and the verdict says so.

The solver finds the VMCSs near a baseline; what counts is what the checks make of them as integers, what the
ledger says must happen, and, where Bochs can tell, what Bochs does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest

from popek.architectures.vtx.baselines import MODES, Mode, baseline, has_mode
from popek.architectures.vtx.capabilities import FEATURES, Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.entry_checks import CHECKS, Check, Outcome, ledger
from popek.architectures.vtx.evaluation import reads
from popek.architectures.vtx.verdict import judge
from popek.architectures.vtx.view import field_symbol, symbolic_view
from popek.architectures.vtx.vmcs import Launch, MissingField, Vmcs
from popek.kernel.words import FALSE, TRUE, SymbolicConditionError, Word, all_of
from popek.solving.solver import Answer, Solver

ALL32 = 0xFFFF_FFFF


def controls(must: int, may: int) -> int:
    return may << 32 | must


EVERYTHING = Capabilities(
    "a processor with every feature",
    msrs={
        0x480: 4 | 1 << 55,
        0x481: controls(0x16, 0xFF),
        0x482: controls(0x0401_E172, 0xFFFF_FFFE),
        0x483: controls(0x0003_6DFF, ALL32),
        0x484: controls(0x0000_11FF, 0x01FF_FFFF),
        0x485: 0x7004_C1E7,
        0x486: 0x8000_0021,
        0x487: ALL32,
        0x488: 0x2000,
        0x489: 0x1_01FF_FFFF,
        0x48B: controls(0, ALL32),
        0x48C: 0xF01_06F3_41C1,
        0x48D: controls(0x16, 0xFF),
        0x48E: controls(0x0400_6172, 0xFFFF_FFFE),
        0x48F: controls(0x0003_6DFB, ALL32),
        0x490: controls(0x0000_11FB, 0x01FF_FFFF),
        0x491: 1,
        0x492: 0x1FF,
        0x493: 0xF,
    },
    features=dict.fromkeys(FEATURES, True),
    cpuid={
        "0xa.0.eax": 0x0830_0805,
        "0xa.0.edx": 0x604,
        "0x14.0.ebx": 0x1F,
        "0x14.0.ecx": 7,
        "0x14.1.eax": 2,
    },
    maxphyaddr=46,
    linear_address_width=57,
)
LITTLE = attrs.evolve(
    EVERYTHING,
    name="a processor with few features",
    msrs={
        **EVERYTHING.msrs,
        0x48B: controls(0, 0x00FF_FFFF),
        0x48C: 0x4140,
        0x48D: controls(0x16, 0x7F),
        0x48E: controls(0x0400_6172, 0xF7F9_FFFE),
    },
    features={**dict.fromkeys(FEATURES, False), "INTEL64": True, "NX": True, "SYSCALL": True},
    maxphyaddr=36,
    linear_address_width=48,
)
NARROW = attrs.evolve(LITTLE, name="a processor without Intel 64", features=dict.fromkeys(FEATURES, False))
OUTSIDE = Launch(current_vmcs=0x1_1000, vmxon_pointer=0x1_2000, x2apic=False)
INSIDE_SMM = attrs.evolve(OUTSIDE, in_smm=True)
FROM_32_BIT = attrs.evolve(OUTSIDE, efer_lma=False)
TRACING = attrs.evolve(OUTSIDE, trace_enabled=True)

SEGMENT_FIELDS = tuple(
    f"GUEST_{segment}_{part}"
    for segment in ("CS", "SS", "DS", "ES", "FS", "GS")
    for part in ("SELECTOR", "BASE", "LIMIT", "ACCESS_RIGHTS")
)
MORE_FIELDS = (
    "PIN_CONTROLS",
    "PRIMARY_PROC_CONTROLS",
    "SECONDARY_PROC_CONTROLS",
    "EXIT_CONTROLS",
    "ENTRY_CONTROLS",
    "ENTRY_INTR_INFO",
    "GUEST_RFLAGS",
    "GUEST_INTERRUPTIBILITY",
    "GUEST_CR0",
    "GUEST_CR4",
    "HOST_CR4",
    "HOST_IA32_EFER",
    "GUEST_IA32_EFER",
    "EXECUTIVE_VMCS_PTR",
    *SEGMENT_FIELDS,
)

# Checks with tables of their own, below.
BY_HAND = {name for name, check in CHECKS.items() if check.group.name in ("basic", "msr-load-area")}
WARNINGS = {name for name, check in CHECKS.items() if check.certainty == "warning"}
# Whatever violates one of these violates another check too.
SHADOWED = {
    "HOST-ASZ-01": "entry[9] = 1 outside IA-32e mode: exit[9] violates HOST-ASZ-02 if 1, HOST-ASZ-04 if 0",
    "HOST-ASZ-04": "entry[9] = 1, exit[9] = 0: HOST-ASZ-01 outside IA-32e mode, HOST-ASZ-03 in it",
    "HOST-ASZ-11": "a processor without Intel 64 is never in IA-32e mode: HOST-ASZ-01 or HOST-ASZ-02",
}


@attrs.frozen
class Alone:
    """A VMCS that violates one check only."""

    mode: Mode
    capabilities: Capabilities
    vmcs: Vmcs
    changes: dict[str, int]


def _violation(check: Check, view: object) -> Word | None:
    """The formula of a violation; None if the check cannot be decided on symbols here."""
    try:
        values = [*(gate.test(view) for gate in check.gates), check.holds(view)]  # type: ignore[arg-type]
    except (MissingField, SymbolicConditionError):
        return None
    *gates, holds = [value if isinstance(value, Word) else TRUE if value else FALSE for value in values]
    return all_of([*gates, ~holds])


def search(
    check: Check, mode: Mode, capabilities: Capabilities, launch: Launch, free: set[str]
) -> Alone | None:
    base = baseline(mode, capabilities)
    free &= set(base.fields)
    fixed = {name: value for name, value in base.fields.items() if name not in free}
    symbols = {name: field_symbol(name) for name in sorted(free)}
    places = _places({**fixed, **symbols})
    # Where the place is known there are zeros, and what the solver places lies elsewhere.
    zeros = tuple((place, size, 0) for place, size in places if not isinstance(place, Word))
    view = symbolic_view(Vmcs(fields=fixed, memory=zeros, launch=launch), capabilities, symbols)
    solver = Solver()
    for place, _ in places:
        if isinstance(place, Word):
            solver.add(all_of(place >> 12 != known >> 12 for known, _, _ in zeros))
    for other in CHECKS.values():
        violation = _violation(other, view)
        if violation is None or (other.certainty == "warning" and other is not check):
            continue
        wanted = violation if other is check else ~violation
        if wanted.concrete and not wanted.value:
            return None
        solver.add(wanted)
    if solver.check() is not Answer.SAT:
        return None
    model = solver.model()
    found = {name: model(word.term) for name, word in symbols.items()}
    changes = {name: value for name, value in found.items() if value != base.fields[name]}
    fields = {**base.fields, **changes}
    memory = tuple(
        (address, size, model(view.read(place, size).term) if isinstance(place, Word) else 0)
        for (address, size), (place, _) in zip(_places(fields), places, strict=True)
    )
    vmcs = Vmcs(fields=fields, memory=memory, launch=launch)
    return Alone(mode, capabilities, vmcs, changes)


def _places(fields: Mapping[str, Any]) -> tuple[tuple[Any, int], ...]:
    """Where in memory the checks look, and at how many bytes."""
    return (
        *(((fields["GUEST_CR3"] & 0xFFFF_FFE0) + 8 * number, 8) for number in range(4)),
        (fields["VIRTUAL_APIC_ADDR"] + 0x80, 1),
        (fields["VMCS_LINK_POINTER"], 4),
        (fields["EXECUTIVE_VMCS_PTR"], 4),
    )


def _empty(fields: Mapping[str, int]) -> tuple[tuple[int, int, int], ...]:
    """Memory that holds zeros where the checks look."""
    return tuple((address, size, 0) for address, size in _places(fields))


def _tries() -> Iterator[tuple[Capabilities, Launch, Mode, bool]]:
    for more in (False, True):
        for capabilities, launch in (
            (EVERYTHING, OUTSIDE),
            (LITTLE, OUTSIDE),
            (EVERYTHING, INSIDE_SMM),
            (EVERYTHING, FROM_32_BIT),
            (EVERYTHING, TRACING),
            (NARROW, FROM_32_BIT),
        ):
            for mode in MODES:
                if has_mode(mode, capabilities):
                    yield capabilities, launch, mode, more


@functools.cache
def alone(check_id: str) -> Alone | None:
    check = CHECKS[check_id]
    for capabilities, launch, mode, more in _tries():
        free = {*reads(check), *(MORE_FIELDS if more else ())}
        found = search(check, mode, capabilities, launch, free)
        if found is not None:
            return found
    return None


def ledger_outcome(check_id: str) -> Outcome:
    """What the ledger's words say, read without looking at the check."""
    text = ledger()[check_id]["failure"]
    if "#UD" in text or "#GP" in text:
        return Outcome("fault")
    if "VMfailInvalid" in text:
        return Outcome("vmfail-invalid")
    match = re.search(r"VMfailValid\((\d+)", text)
    if match:
        return Outcome("vmfail-valid", errors=(int(match[1]),))
    match = re.search(r"ENTRY33\((\d)\)", text)
    if match:
        return Outcome("entry-failure", reason=33, qualification=int(match[1]))
    assert "ENTRY34" in text
    return Outcome("entry-failure", reason=34)


def test_the_baselines_violate_nothing() -> None:
    for capabilities in (EVERYTHING, LITTLE, load_capabilities("bochs-tigerlake")):
        for mode in MODES:
            vmcs = baseline(mode, capabilities)
            vmcs = attrs.evolve(vmcs, memory=_empty(vmcs.fields))
            verdict = judge(vmcs, capabilities)
            assert verdict.outcome.kind == "enters", (capabilities.name, mode, verdict.failed)
            assert verdict.failed == verdict.undecided == verdict.warnings == ()


@pytest.mark.parametrize("check_id", sorted(set(CHECKS) - BY_HAND - WARNINGS))
def test_a_vmcs_violates_this_check_alone(check_id: str) -> None:
    found = alone(check_id)
    if check_id in SHADOWED:
        assert found is None
        return
    assert found is not None
    verdict = judge(found.vmcs, found.capabilities)
    check = CHECKS[check_id]
    wanted = ledger_outcome(check_id)
    if check.certainty == "may":
        assert [item.id for item in verdict.warnings] == [check_id]
        assert verdict.outcome.kind == "enters"
        assert wanted in verdict.admissible
        return
    assert [item.id for item in verdict.failed] == [check_id]
    assert verdict.outcome == wanted
    assert verdict.failed[0].section == ledger()[check_id]["section"]
    assert "{" not in verdict.failed[0].message
    assert "\n" not in verdict.failed[0].message
