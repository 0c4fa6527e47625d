"""The MSR areas of VM entry and VM exit, compared with Bochs.

A case fills the three areas; its guest does nothing but VMCALL.  Compared are whether the entry fails and at which
entry of its area, whether the exit ends in a VMX abort (Bochs then shuts down, which is a ``hang``), and what is
stored.  MSRs that an exit loads show in the next case, which stores them.

Cases draw from MSRs, and values, that a processor with Intel 64 treats as one without.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Final

import attrs

from popek.architectures.vtx.operation.msr_areas import ENTRY_BYTES, MsrArea, MsrAreas
from popek.architectures.vtx.operation.state import VmxIa32
from popek.architectures.vtx.operation.transitions import (
    VMX_ABORT,
    Host,
    after_failed_entry,
    save_guest,
    vm_entry,
    vm_exit,
)
from popek.emulators.ia32.step import CODE_BASE
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import Word

from .harness import GUEST_PAGES, MARKER, TSC_AUX, VmxGuestResult, VmxGuestStep, baseline, run_guests

Entry = tuple[int, int, int]
"""Index, bits 63:32 and value."""

ENTRY_LOAD, EXIT_STORE, EXIT_LOAD = (GUEST_PAGES.msr_areas + offset for offset in (0, 0x400, 0x800))
_COUNTS: Final = {"entry_load": 0x4014, "exit_store": 0x400E, "exit_load": 0x4010}
_PLACES: Final = {"entry_load": ENTRY_LOAD, "exit_store": EXIT_STORE, "exit_load": EXIT_LOAD}
_FIELDS: Final = {0x174: 0x482A, 0x175: 0x6824, 0x176: 0x6826, 0x277: 0x2804}
_PAT: Final = 0x277


@attrs.frozen
class AreaCase:
    """What the three areas hold."""

    entry_load: tuple[Entry, ...] = ()
    exit_store: tuple[Entry, ...] = ()
    exit_load: tuple[Entry, ...] = ()


@attrs.frozen
class AreaOutcome:
    """What becomes of a case.

    Attributes:
        kind: ``exit``, ``entry-failure``, ``abort``, or something that should not be.
        failing: the number of the entry at which the VM entry failed.
        stored: index and value of each entry of the store area afterwards, where there is an afterwards.
    """

    kind: str
    failing: int = 0
    stored: tuple[tuple[int, int], ...] = ()


def _bytes(entries: Sequence[Entry]) -> bytes:
    return b"".join(struct.pack("<IIQ", *entry) for entry in entries)


def expected(cases: Sequence[AreaCase], *, model: str = DEFAULT_MODEL) -> list[AreaOutcome]:
    """What the model says of cases that follow one another on one processor."""
    cpu, found = _vmm(model), []
    for case in cases:
        outcome, state = _run(case, cpu)
        found.append(outcome)
        if state is not None:
            # The harness restores what it uses itself.
            auxiliary = state.msr.load(Word(32, TSC_AUX))
            cpu = _vmm(model)
            cpu.msr = cpu.msr.store(Word(32, TSC_AUX), auxiliary)
    return found


def _run(case: AreaCase, cpu: VmxIa32) -> tuple[AreaOutcome, VmxIa32 | None]:
    """One case, and the VMM's state after it."""
    areas = MsrAreas(
        *(
            MsrArea(Word(32, _PLACES[name]), len(getattr(case, name)))
            for name in ("entry_load", "exit_store", "exit_load")
        )
    )
    for name, place in _PLACES.items():
        for offset, byte in enumerate(_bytes(getattr(case, name))):
            cpu.memory = cpu.memory.store(Word(32, place + offset), Word(8, byte))
    entered = vm_entry(cpu, save_guest(cpu), areas=areas)
    failing = 0
    ended: Outcome[VmxIa32]
    if isinstance(entered, Trap):
        failing = int(entered.state.exit_qualification)
        ended = after_failed_entry(entered.state, _host(cpu), areas)
    else:
        assert isinstance(entered, Next)
        _, ended = vm_exit(entered.state, _host(cpu), areas)
    if isinstance(ended, Trap):
        assert ended.vector is VMX_ABORT
        return AreaOutcome("abort"), None
    assert isinstance(ended, Next)
    data = bytes(
        int(ended.state.memory.load(Word(32, EXIT_STORE + n)))
        for n in range(ENTRY_BYTES * len(case.exit_store))
    )
    return AreaOutcome("entry-failure" if failing else "exit", failing, _stored(data)), ended.state


def _vmm(model: str) -> VmxIa32:
    """The VMM; what the guest-state area holds is in its registers."""
    state = VmxIa32.reset(cr0=0x80000031, cr4=0x2000)
    msrs = {number: baseline(model)[field] for number, field in _FIELDS.items()}
    state.msr = Memory(32, 64, {**msrs, 0x3A: 5})
    return state


def _host(cpu: VmxIa32) -> Host:
    zero = Word(32, 0)
    return Host(
        cpu.cr0.value, cpu.cr3, cpu.cr4.value, zero, zero,
        dict.fromkeys(("es", "cs", "ss", "ds", "fs", "gs", "tr"), Word(16, 8)),
        dict.fromkeys(("fs", "gs", "tr", "gdtr", "idtr"), zero), {},
    )  # fmt: skip


def _stored(data: bytes) -> tuple[tuple[int, int], ...]:
    return tuple((index, value) for index, _, value in struct.iter_unpack("<IIQ", data))


def observed(cases: Sequence[AreaCase], *, model: str = DEFAULT_MODEL, stall: float = 1) -> list[AreaOutcome]:
    """What Bochs does.

    Raises:
        BochsError: Bochs or nasm is missing.
    """
    return [
        _seen(case, result)
        for case, result in zip(
            cases, run_guests([_step(c) for c in cases], model=model, stall=stall), strict=True
        )
    ]


def _step(case: AreaCase) -> VmxGuestStep:
    fields = {0x681E: CODE_BASE}
    memory: list[tuple[int, bytes]] = [(CODE_BASE, MARKER)]
    for name, place in _PLACES.items():
        entries = getattr(case, name)
        fields[_COUNTS[name]] = len(entries)
        if entries:
            memory.append((place, _bytes(entries)))
    return VmxGuestStep(fields, {}, tuple(memory), ((EXIT_STORE, ENTRY_BYTES * len(case.exit_store)),))


def _seen(case: AreaCase, result: VmxGuestResult) -> AreaOutcome:
    entry = result.entry
    if entry.kind == "hang":
        return AreaOutcome("abort")
    if entry.kind == "entry-failure" and entry.basic_reason == 34:
        return AreaOutcome("entry-failure", entry.qualification or 0, _stored(result.memory[0]))
    if entry.kind == "enters" and entry.basic_reason == 18:
        return AreaOutcome("exit", 0, _stored(result.memory[0]))
    return AreaOutcome(f"{entry.kind} (exit {entry.basic_reason})")


# -- cases ------------------------------------------------------------------------------------------

_TYPES: Final = (0, 1, 4, 5, 6, 7)


def _good(rng: random.Random) -> Entry:
    index = rng.choice((TSC_AUX, 0x174, 0x175, 0x176, _PAT))
    if index == _PAT:
        return index, 0, sum(rng.choice(_TYPES) << 8 * n for n in range(8))
    return index, 0, rng.getrandbits(31)


def _bad(rng: random.Random) -> Entry:
    """An entry of a load area that fails, for one reason.

    Not for bits 63:32 of IA32_TSC_AUX, which Bochs takes (``popek_specs/vtx/bochs-deviations.toml``).
    """
    index, _, value = _good(rng)
    return rng.choice(
        (
            (index, 1 << rng.randrange(32), value),
            (rng.choice((0xC0000100, 0xC0000101)), 0, value),
            (rng.randrange(0x800, 0x900), 0, value),
            (0x9B, 0, 0),
            (0x3A, 0, 5),  # locked
            (_PAT, 0, rng.choice((2, 3, 8, 0xFF)) << 8 * rng.randrange(8)),
        )
    )


def random_area_case(rng: random.Random) -> AreaCase:
    """Areas of which the one for VM entry may fail; the others do what they should."""
    loads = [_good(rng) for _ in range(rng.randrange(5))]
    if rng.random() < 0.5:
        loads.insert(rng.randrange(len(loads) + 1), _bad(rng))
    # An entry of a store area has a value that is overwritten.
    stores = [(_good(rng)[0], 0, rng.getrandbits(64)) for _ in range(rng.randrange(1, 5))]
    return AreaCase(tuple(loads), tuple(stores), ((TSC_AUX, 0, rng.getrandbits(32)),))


__all__ = ["AreaCase", "AreaOutcome", "Entry", "expected", "observed", "random_area_case"]
