"""Try VM entries on the Bochs emulator: what happens to a VMCS, by a witness that shares no code with us.

`run_cases` takes VMCSs as differences from a baseline that enters, and says for each one how the VM entry
ended. `capabilities`, `cpuid` and `writable_fields` describe the emulated processor in the same words the
model uses. The guest does next to nothing: its only code is CPUID, which leaves it at once in every mode.

Memory as the guest and the cases see it (physical addresses)::

    00020000H  code page, all CPUID
    00021000H  stack, grows down from 00021800H
    00022000H  GDT, 00022800H TSS, 00022C00H LDT
    00023000H  64-bit IDT, 00024000H 32-bit IDT, 0002C000H real-mode vectors
    00025000H  paging: PML4, PDPT, PD; 00028000H PT (64-bit and PAE), 00029000H PAE PDPT, 0002A000H
               32-bit PD, 0002B000H 32-bit PT; they map 00020000H-0002FFFFH onto itself, user and writable
    00030000H  `CONTROL_PAGES`: bitmaps, virtual-APIC page, MSR areas, EPT, ...
    01000000H  16 MiB that hold zeros

All of this is restored before each case. Everything else below 01000000H belongs to the harness. An MSR that
a case loads through its VM-entry MSR-load area is restored if it is IA32_APIC_BASE, IA32_EFER, IA32_PAT,
IA32_S_CET or part of the host-state area; any other one keeps its value for the cases that follow.

Two things a case must not do, because the harness then loses control; such a case is reported as ``hang``:

* set a field of `FIXED_FIELDS` to another value that the processor accepts (an illegal one is welcome). The
  other host-state fields are free: the exit handler trusts none of them;
* let the processor write over the harness at a VM exit (MSR-store area, page-modification log, ... outside
  the memory above), or use a VM-exit MSR area with an entry that cannot be stored or loaded (a VMX abort;
  the baseline's areas hold entries that can, 64 of them and more).

A guest that stays silent for good, as after an entry to the wait-for-SIPI state, is a ``hang`` too. A failed
entry never is one, so a ``hang`` of a case that respects the rules means that the entry succeeded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

import attrs

from popek.emulators.bochs.simulator import BochsError, BochsInterrupted, run_rom
from popek.emulators.bochs.streams import ALIVE, END, disk, last_that_fits, pokes

from .guest import (
    ARENA,
    CODE_PAGE,
    CONTROL_PAGES,
    CURRENT_VMCS,
    GUEST_CR3,
    HOST_CR3,
    HOST_RIP,
    SCRATCH,
    SPARE_VMCS,
    STACK_TOP,
    Mode,
    allowed_controls,
    baseline,
    guest_image,
    has_mode,
    image,
    segments,
)
from .processor import (
    DEFAULT_MODEL,
    MAGIC,
    HostState,
    capabilities,
    cpuid,
    field_list,
    host_state,
    linear_address_bits,
    physical_address_bits,
    rom,
    writable_fields,
)

EntryEnd = Literal[
    "enters", "vmfail-invalid", "vmfail-valid", "entry-failure", "vmwrite-failed", "host-fault", "hang"
]
"""How a case ended; see `EntryResult`."""

FIXED_FIELDS = frozenset({HOST_CR3, HOST_RIP})
"""Encodings that a case may not set to another *legal* value; see the notes of this module."""


@attrs.frozen
class EntryCase:
    """One VM entry to try.

    `fields` maps VMCS encodings to values that replace those of the baseline of `mode`. `memory` lists
    (physical address, bytes) to write before the entry, inside `ARENA` or `SCRATCH`. `resume` uses VMRESUME
    instead of VMLAUNCH. `launched` says whether the baseline is entered once beforehand, so that the launch
    state is "launched"; by default that is so for `resume` only. `current` = False makes no VMCS the current
    one. `mov_ss` puts blocking by MOV SS around the instruction.
    """

    fields: Mapping[int, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()
    resume: bool = False
    mode: Mode = "64-bit"
    launched: bool | None = None
    current: bool = True
    mov_ss: bool = False


@attrs.frozen
class EntryResult:
    """How a VM entry ended.

    `kind` is one of

    * ``enters``: the guest ran, or an event came first; `exit_reason` and the rest tell why it left;
    * ``vmfail-invalid``: no current VMCS;
    * ``vmfail-valid``: `error` is the VM-instruction error;
    * ``entry-failure``: bit 31 of `exit_reason` is set, `qualification` says more;
    * ``vmwrite-failed``: the processor refused to write field `encoding` (with error `error`), and the VM
      entry was not tried;
    * ``host-fault``: the monitor took exception `error` (a vector) after the exit;
    * ``hang``: no answer; see the notes of this module.

    Fields that do not apply are None. `exit_reason` is the whole 32-bit field. `complaints` is what Bochs
    says about a refusal, if `run_cases` was asked to explain; it stops at the first check that fails.
    """

    kind: EntryEnd
    error: int | None = None
    exit_reason: int | None = None
    qualification: int | None = None
    interruption_info: int | None = None
    interruption_error: int | None = None
    instruction_length: int | None = None
    idt_vectoring_info: int | None = None
    guest_rip: int | None = None
    encoding: int | None = None
    complaints: tuple[str, ...] = ()

    @property
    def basic_reason(self) -> int | None:
        """Bits 15:0 of the exit reason."""
        return None if self.exit_reason is None else self.exit_reason & 0xFFFF


# --- what the ROM reads and writes --------------------------------------------------------------------------

_CASES_PER_RUN = 4096

_USE_VMRESUME, _LAUNCHED, _NO_CURRENT, _MOV_SS, _MARK = 1, 2, 4, 8, 16
_MARK_LINE = "VMWRITE: not supported field 0x00007ffe"  # what Bochs logs at a mark

RESULT = struct.Struct("<IBIIIQIIIIQ")
_KINDS: tuple[EntryEnd, ...] = (
    "vmfail-invalid",
    "vmfail-valid",
    "enters",
    "vmwrite-failed",
    "host-fault",
    "hang",  # the ROM calls this "setup failed"; `run_cases` raises before it gets here
)
_SETUP_FAILED = 5


# --- running ------------------------------------------------------------------------------------------------


def _check(case: EntryCase) -> None:
    for encoding, value in case.fields.items():
        if not 0 <= encoding < 1 << 32 or not 0 <= value < 1 << 64:
            raise BochsError(f"field {encoding:#x} = {value:#x} does not fit VMWRITE")
    for address, data in case.memory:
        last = address + max(len(data), 1) - 1
        if not any(address in area and last in area for area in (ARENA, SCRATCH)):
            raise BochsError(f"a case may not write memory at {address:#x}: outside ARENA and SCRATCH")


def _encode(index: int, case: EntryCase, baseline_id: int, mark: bool) -> bytes:
    launched = case.resume if case.launched is None else case.launched
    flags = (
        (_USE_VMRESUME if case.resume else 0)
        | (_LAUNCHED if launched else 0)
        | (0 if case.current else _NO_CURRENT)
        | (_MOV_SS if case.mov_ss else 0)
        | (_MARK if mark else 0)
    )
    header = struct.pack("<BIBBII", 5, index, baseline_id, flags, len(case.fields), len(case.memory))
    return header + field_list(case.fields.items()) + pokes(case.memory)


def _prologue(model: str) -> tuple[bytes, dict[Mode, int]]:
    """Return the operations that come before the cases, and the number of each mode's baseline."""
    revision = capabilities(model)[0x480] & 0x7FFF_FFFF
    filled = [(address, data) for address, data in image(revision) if data]
    stream = struct.pack("<BI", 3, len(filled)) + pokes(filled)
    numbers: dict[Mode, int] = {}
    for mode in get_args(Mode):
        if has_mode(model, mode):
            numbers[mode] = len(numbers)
            fields = baseline(model, mode)
            stream += struct.pack("<BBI", 4, numbers[mode], len(fields)) + field_list(fields.items())
    return stream, numbers


def decode(report: bytes) -> dict[int, EntryResult]:
    """Return the results in a report, by index; a record that is cut off is left out."""
    results: dict[int, EntryResult] = {}
    size = 1 + RESULT.size
    report = report.lstrip(ALIVE)
    for at in range(0, len(report) - size + 1, size):
        if report[at : at + 1] != b"R":
            break
        index, kind, error, encoding, reason, qualification, info, code, length, vectoring, rip = (
            RESULT.unpack_from(report, at + 1)
        )
        name = _KINDS[kind]
        if kind == _SETUP_FAILED:
            raise BochsError(f"the baseline did not enter: error {error}, field {encoding:#x}")
        if name == "enters":
            results[index] = EntryResult(
                kind="entry-failure" if reason >> 31 else "enters",
                exit_reason=reason,
                qualification=qualification,
                interruption_info=info,
                interruption_error=code,
                instruction_length=length,
                idt_vectoring_info=vectoring,
                guest_rip=rip,
            )
        else:
            results[index] = EntryResult(
                kind=name,
                error=None if name == "vmfail-invalid" else error,
                encoding=encoding if name == "vmwrite-failed" else None,
            )
    return results


def _run_chunk(
    prologue: bytes, cases: Sequence[bytes], model: str, stall: float, explain: bool
) -> tuple[dict[int, EntryResult], list[tuple[str, ...]]]:
    """Run cases until the end, or until one hangs; return the results there are, and complaints in order."""
    contents = disk(MAGIC, prologue + b"".join(cases) + END)
    log: list[str] = []
    try:
        report = run_rom(
            rom(),
            contents,
            model=model,
            timeout=60 + len(cases),
            stall=stall,
            complaints=log.append if explain else None,
        )
    except BochsInterrupted as interrupted:
        report = interrupted.partial
    complaints: list[tuple[str, ...]] = []
    for line in log:
        if line == _MARK_LINE:
            complaints.append(())
        elif complaints:
            complaints[-1] += (line,)
    return decode(report), complaints


def run_cases(
    cases: Iterable[EntryCase],
    *,
    model: str = DEFAULT_MODEL,
    progress: Callable[[int, int], None] | None = None,
    stall: float = 0.3,
    explain: bool = False,
) -> list[EntryResult]:
    """Try each VM entry and return the results in order.

    Each case starts from the same memory and the same monitor, so the order does not matter. `progress` is
    called with the number of cases done and the total, now and then. A case without an answer for `stall`
    seconds of the emulator's processor time, a hundred times what a case needs, is called a ``hang``.
    `explain` fills in `EntryResult.complaints`, at some cost of speed.

    Raises `BochsError` if Bochs or nasm is missing, if the model cannot run a case's mode, if a case does
    not fit the rules of this module, or if the harness itself fails.
    """
    todo = list(cases)
    if not todo:
        return []
    prologue, numbers = _prologue(model)
    encoded: list[bytes] = []
    for index, case in enumerate(todo):
        _check(case)
        if case.mode not in numbers:
            raise BochsError(f"Bochs model {model!r} cannot run a guest in mode {case.mode!r}")
        encoded.append(_encode(index, case, numbers[case.mode], explain))
    results: list[EntryResult] = []
    while len(results) < len(todo):
        first = len(results)
        last = last_that_fits(encoded, first, prologue, _CASES_PER_RUN)
        found, complaints = _run_chunk(prologue, encoded[first:last], model, stall, explain)
        done = first
        while done < last and done in found:
            results.append(found[done])
            done += 1
        if done < last:
            results.append(EntryResult(kind="hang"))
        for number, lines in enumerate(complaints):
            results[first + number] = attrs.evolve(results[first + number], complaints=lines)
        if progress is not None:
            progress(len(results), len(todo))
    return results


__all__ = [
    "ARENA",
    "CODE_PAGE",
    "CONTROL_PAGES",
    "CURRENT_VMCS",
    "DEFAULT_MODEL",
    "FIXED_FIELDS",
    "GUEST_CR3",
    "HOST_CR3",
    "HOST_RIP",
    "MAGIC",
    "RESULT",
    "SCRATCH",
    "SPARE_VMCS",
    "STACK_TOP",
    "EntryCase",
    "EntryEnd",
    "EntryResult",
    "HostState",
    "Mode",
    "allowed_controls",
    "baseline",
    "capabilities",
    "cpuid",
    "decode",
    "field_list",
    "guest_image",
    "has_mode",
    "host_state",
    "linear_address_bits",
    "physical_address_bits",
    "run_cases",
    "segments",
    "writable_fields",
]
