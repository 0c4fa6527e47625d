"""Set witnesses up for an emulator: a state of the IA-32 model as a case of the step harness.

A witness starts from a minimal state of the *model*, which the harness cannot take as it is: hidden parts of
segment registers come from descriptors only, and its own descriptors, gates and stack must be somewhere.
So what a run does not depend on is given the harness's own plain value, which is found out by running the model
again: the change is kept where every run of the witness still does the same.  Hidden parts become descriptors in
the table that the register's selector names; where the model's memory holds something else there, that is
written after the loads, so that the descriptor cache is as stale as in the witness.  In the end the model runs
from the state that the harness will really be in, and a witness that does something else there is refused, with
the components that could not be set up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from popek.architectures.ia32.state import Ia32
from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.emulators.witnesses import WitnessRun
from popek.emulators.x86.expectation import OutsideError
from popek.emulators.x86.witness import Refused, TracedRun, joined, measured, traced, unlike, with_plain
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next

from .assembly import assemble_all, assembly_text
from .expectation import UNOBSERVED, initial_state
from .step import (
    ARENA_BYTES,
    FREE_SELECTOR,
    LANDING_BYTE,
    TSS_BASE,
    Ia32StepCase,
    StepCaseError,
    default_tss,
    initial_registers,
    segment_descriptor,
)
from .step_case import PLAIN_REGISTERS
from .witness_run import Patch, WitnessSetup

_PLAIN_FIRST: Final = (
    "reserved",
    "read_only",
    "idtr",
    "ldtr",
    "tr",
    "gs",
    "fs",
    "es",
    "ds",
    "ss",
    "cs",
    "gdtr",
)
_TABLES: Final = ("gdtr.base", "gdtr.limit", "idtr.base", "idtr.limit")
_PLAIN_CODE, _PLAIN_DATA, _PLAIN_TSS = 0xF00, 0xF08, 0xF10
_LDT_RIGHTS, _DATA_RIGHTS = 0x82, 0xC0F3
_HIDDEN: Final = ("base", "limit", "rights")
_REASONS: Final[Mapping[str, str]] = {
    **UNOBSERVED,
    "halted": "a processor that has halted runs nothing",
    "cpuid": "what a processor says of itself cannot be set",
}


# -- what a run depends on ------------------------------------------------------------------------


def _trace(machine: Machine[Ia32], run: WitnessRun) -> TracedRun:
    return traced(machine, run, ("memory", "msr"))


def _landing(found: TracedRun) -> int | None:
    """Where a run arrives that is not behind its last instruction."""
    before, outcome = found.run.before, found.after
    if not isinstance(outcome, Next):
        return None
    target = int(outcome.state.cs.base) + int(outcome.state.eip) & 0xFFFFFFFF
    length = sum(line.operands["operand length"] for line in found.run.lines)
    return target if target != int(before.cs.base) + int(before.eip) + length & 0xFFFFFFFF else None


# -- setting up -----------------------------------------------------------------------------------


class _CannotError(Exception):
    """A state cannot be set up; the message says why."""


def set_up(machine: Machine[Ia32], runs: Sequence[WitnessRun]) -> list[WitnessSetup | Refused]:
    """The runs of one witness for the harness; what they share and do not depend on is made plain in all of them.

    Raises:
        BochsError: nasm is missing.
    """
    texts = [[assembly_text(line.instruction, line.operands) for line in run.lines] for run in runs]
    codes = assemble_all(text for several in texts for text in several)
    sized = [
        measured(run, [len(codes[text]) for text in several])
        for run, several in zip(runs, texts, strict=True)
    ]
    programs = [b"".join(codes[text] for text in several) for several in texts]
    plains = [_plain(program, int(run.before.cpl)) for run, program in zip(sized, programs, strict=True)]
    wanted = [_trace(machine, run) for run in sized]
    for name in _PLAIN_FIRST:
        changed = [with_plain(run, name, plain) for run, plain in zip(sized, plains, strict=True)]
        if all(_trace(machine, run).same(found) for run, found in zip(changed, wanted, strict=True)):
            sized = changed
    sized = [_loadable(machine, run, found) for run, found in zip(sized, wanted, strict=True)]
    found: list[WitnessSetup | Refused] = []
    for run, program, wish, several in zip(sized, programs, wanted, texts, strict=True):
        code = tuple((text, codes[text]) for text in several)
        try:
            patches, stale = _memory(machine, run)
            step = _step(machine, run, program, patches, stale)
            _check(machine, run, step, wish)
        except (_CannotError, StepCaseError, OutsideError) as error:
            found.append(Refused(run.label, str(error)))
        else:
            found.append(WitnessSetup(run, step, code, wish.effect, patches, stale))
    return found


def _plain(code: bytes, level: int) -> Ia32:
    """The harness's plain state, with descriptors that a witness is unlikely to need for itself."""
    selectors = {"cs": _PLAIN_CODE | level, "tr": _PLAIN_TSS}
    plain = initial_state(Ia32StepCase(code, level))
    for name in (*SEGMENT_NAMES, "tr"):
        plain[f"{name}.selector"] = selectors.get(name, _PLAIN_DATA | level)
    return plain


def _loadable(machine: Machine[Ia32], run: WitnessRun, wanted: TracedRun) -> WitnessRun:
    """The run with registers that a load can give, where nothing depends on what no load gives.

    A usable register with a null selector, or with that of another one and unlike hidden parts, gets a selector
    of its own; an unusable one with a selector becomes usable; a data segment that IRET would take away because
    its DPL is below CPL gets that of CPL.
    """
    slot = FREE_SELECTOR
    for name in ("ldtr", "tr", "es", "ds", "fs", "gs"):
        before = run.before.copy()
        if int(before[f"{name}.rights"]) >> 16:
            if int(before[f"{name}.selector"]) < 4:
                continue
            before[f"{name}.rights"] = _LDT_RIGHTS if name == "ldtr" else _DATA_RIGHTS
        elif _needs_selector(before, name):
            before[f"{name}.selector"] = slot
            slot += 8
        else:
            continue
        run = _if_same(machine, run, before, wanted)
    for name in ("es", "ds", "fs", "gs"):
        rights = run.before[f"{name}.rights"]
        conforming = rights[3] & rights[2]
        if rights[16].value == 0 and conforming.value == 0 and int(rights[6:5]) < int(run.before.cpl):
            before = run.before.copy()
            before[f"{name}.rights.dpl"] = before.cpl
            run = _if_same(machine, run, before, wanted)
    return run


def _if_same(machine: Machine[Ia32], run: WitnessRun, before: Ia32, wanted: TracedRun) -> WitnessRun:
    """The run from another start, if it does the same there."""
    changed = attrs.evolve(run, before=before)
    return changed if _trace(machine, changed).same(wanted) else run


def _needs_selector(before: Ia32, name: str) -> bool:
    """Whether its selector is null though it is usable, or is another register's with unlike hidden parts."""
    selector = int(before[f"{name}.selector"])
    return selector < 4 or any(
        int(before[f"{other}.selector"]) & 0xFFFC == selector & 0xFFFC
        and any(int(before[f"{other}.{part}"]) != int(before[f"{name}.{part}"]) for part in _HIDDEN)
        for other in ("ldtr", "tr", *SEGMENT_NAMES)
        if other != name
    )


def _memory(machine: Machine[Ia32], run: WitnessRun) -> tuple[tuple[Patch, ...], tuple[Patch, ...]]:
    """What must be in memory before the loads, and what after them."""
    before, found = run.before, _trace(machine, run)
    patches: list[Patch] = []
    if int(before.cpl) > 0 and int(before.tr.base) != TSS_BASE:
        tss = default_tss()[: int(before.tr.limit) + 1]
        patches.append(Patch(int(before.tr.base), tss, "a TSS with the stacks of the inner rings"))
    descriptors = _descriptors(before)
    patches += descriptors
    covered = {p.address + i: byte for p in descriptors for i, byte in enumerate(p.data)}
    read = {a: v for a, v in found.read["memory"].items() if a not in covered}
    stale = {a: v for a, v in found.read["memory"].items() if covered.get(a, v) != v}
    if any(address >= ARENA_BYTES for address in (*read, *stale)):
        raise _CannotError(f"memory that it reads lies above {ARENA_BYTES:#x}")
    patches += [Patch(address, data, "what the run reads") for address, data in joined(read)]
    landing = _landing(found)
    if landing is not None and landing < ARENA_BYTES and landing not in found.read["memory"]:
        patches.append(Patch(landing, bytes([LANDING_BYTE]), "where the run arrives: INT1"))
    _keep_gates(before, found, [*patches, *(Patch(address, b"x", "") for address in stale)])
    late = "what the table holds by now, which no register has been loaded from"
    return tuple(patches), tuple(Patch(address, data, late) for address, data in joined(stale))


def _keep_gates(before: Ia32, found: TracedRun, patches: Sequence[Patch]) -> None:
    """Refuse a run whose tables lie over the gates through which its step ends."""
    if _landing(found) is None and found.effect.end == "completes" and int(before.cpl) == 0:
        return
    for vector in (1, 6, 8, 13):
        gate = int(before.idtr.base) + 8 * vector
        if any(p.address < gate + 8 and gate < p.address + len(p.data) for p in patches):
            raise _CannotError("what it reads lies in the IDT, over the gates that must end the step")


def _step(
    machine: Machine[Ia32], run: WitnessRun, code: bytes, patches: Sequence[Patch], stale: Sequence[Patch]
) -> Ia32StepCase:
    """The case of the harness for the start of a run."""
    before = run.before
    if not int(before.cr0.pe) or int(before.eflags.vm):
        raise _CannotError("only runs in protected mode are set up")
    level = int(before.cpl)
    defaults = initial_registers(Ia32StepCase(code, level))
    values = {name: int(before[name]) for name in (*PLAIN_REGISTERS, *_TABLES)}
    values |= {name: int(before[f"{name}.selector"]) for name in (*SEGMENT_NAMES, "ldtr", "tr")}
    registers = {name: value for name, value in values.items() if value != defaults[name]}
    return Ia32StepCase(
        code,
        level,
        registers,
        _trace(machine, run).read["msr"],
        tuple((patch.address, patch.data) for patch in patches),
        tuple((patch.address, patch.data) for patch in stale),
    )


def _descriptors(before: Ia32) -> list[Patch]:
    """The descriptors that the registers are loaded from."""
    made: dict[int, tuple[list[str], bytes]] = {}
    for name in ("ldtr", "tr", *SEGMENT_NAMES):
        selector, rights = int(before[f"{name}.selector"]), int(before[f"{name}.rights"])
        if rights >> 16:  # unusable
            if selector >= 4:
                raise _CannotError(
                    f"{name.upper()}: unusable with selector {selector:#x}: no load gives that"
                )
            continue
        if selector < 4:
            raise _CannotError(f"{name.upper()}: usable with a null selector: no load gives that")
        base, limit = int(before[f"{name}.base"]), int(before[f"{name}.limit"])
        granular = rights >> 15 & 1
        if (granular and limit & 0xFFF != 0xFFF) or (not granular and limit >> 20):
            raise _CannotError(
                f"{name.upper()}.limit is {limit:#x} with G = {granular}: no descriptor gives that"
            )
        access = (rights & 0xFF) << 8 | (rights & 0xF000) << 8
        data = segment_descriptor(base, limit >> 12 if granular else limit, access)
        table = "ldtr" if selector & 4 else "gdtr"
        if (selector | 7) > int(before[f"{table}.limit"]):
            raise _CannotError(f"{name.upper()}: selector {selector:#x} is outside the table")
        where = int(before[f"{table}.base"]) + (selector & 0xFFF8)
        others, there = made.setdefault(where, ([], data))
        if there != data:
            raise _CannotError(
                f"{name.upper()} and {others[0].upper()} have one selector and unlike hidden parts"
            )
        others.append(name)
    return [
        Patch(where, data, f"descriptor of {', '.join(name.upper() for name in names)}")
        for where, (names, data) in made.items()
    ]


def _check(machine: Machine[Ia32], run: WitnessRun, step: Ia32StepCase, wanted: TracedRun) -> None:
    """Refuse a case from whose start the model does something else than in the witness."""
    real = initial_state(step)
    real._undefined = run.before._undefined
    if _trace(machine, attrs.evolve(run, before=real)).same(wanted):
        return
    raise _CannotError(unlike(real, run.before, _REASONS))
