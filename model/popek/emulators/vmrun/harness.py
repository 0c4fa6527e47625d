"""Try VMRUN on the Bochs emulator: what happens to a VMCB, by a witness that shares no code with us.

`run_cases` takes VMCBs as differences from a baseline that enters, and says for each one with what exit code
VMRUN came back. The guest does next to nothing: its code is CPUID and VMMCALL, each of which leaves it at once,
and every other event and instruction that can be intercepted is, too. `processor` describes the emulated
processor by its own CPUID.

Memory as the guest sees it is that of `vmx_entry`. Above it lie, as physical addresses::

    00030000H  VMCB
    00031000H  I/O permission map, three pages of ones; 00034000H MSR permission map, two pages of ones
    00036000H  nested page tables; they map 00020000H-0002FFFFH onto itself

All of this is restored before each case; everything else below 01000000H belongs to the harness. A guest
without nested paging and without paging of its own reaches it: such a case should leave alone where the guest
executes and writes (`ROAMING`). A case without an answer is a ``hang``. A refused VMRUN always answers, so a
hang means that the guest was entered.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import attrs

from popek.architectures.svm.cpuid import Leaves, processor_of
from popek.architectures.svm.vmcb import FIELDS, SIZE, SvmProcessor
from popek.emulators.bochs.simulator import (
    BochsCrash,
    BochsError,
    BochsInterrupted,
    assemble,
    run_rom,
)
from popek.emulators.bochs.streams import ALIVE, END, disk, last_that_fits, pokes
from popek.emulators.vm_entry.harness import ARENA, CODE_PAGE, GUEST_CR3, STACK_TOP, guest_image, segments

Mode = Literal["64-bit", "pae", "32-bit", "v8086", "real", "paged-real"]
"""Operating mode of the guest; ``paged-real`` is real mode with paging, which only SVM has."""

MODES: Final[tuple[Mode, ...]] = ("64-bit", "pae", "32-bit", "v8086", "real", "paged-real")
MODELS: Final = ("ryzen", "trinity_apu", "zambezi", "phenom_8650_toliman")
"""The Bochs models with SVM."""

DEFAULT_MODEL: Final = "ryzen"
VMEXIT_INVALID: Final = (1 << 64) - 1
ROAMING: Final = frozenset({"RIP", "RAX", "RSP", "CS_BASE", "SS_BASE", "IDTR_BASE", "IDTR_LIMIT", "CR3"})
"""Fields that a case without nested paging should leave alone."""

Kind = Literal["exit", "host-fault", "hang", "crash"]
"""How a case ended; see `RunResult`."""

_VMCB, _IOPM, _MSRPM, _NESTED = 0x30000, 0x31000, 0x34000, 0x36000
_ALL = 0xFFFF_FFFF


@attrs.frozen
class RunCase:
    """A VMRUN to try.

    Attributes:
        mode: which baseline.
        nested: whether the baseline uses nested paging.
        fields: ids of VMCB fields, and values that replace the baseline's.
        memory: (physical address, bytes) to write before the entry, inside the guest's memory.
        host_paging: False for a host in 32-bit mode without paging.
    """

    mode: Mode = "64-bit"
    nested: bool = True
    fields: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()
    host_paging: bool = True


@attrs.frozen
class RunResult:
    """How a VMRUN ended.

    `kind` is ``exit`` (`exit_code`, of 64 bits, tells why), ``host-fault`` (VMRUN itself raised exception
    `vector`), ``hang`` (no answer) or ``crash`` (the emulator gave up). Fields that do not apply are None.
    """

    kind: Kind
    exit_code: int | None = None
    exit_info1: int | None = None
    exit_info2: int | None = None
    event: int | None = None
    vector: int | None = None


# --- the processor ------------------------------------------------------------------------------------------


@functools.cache
def cpuid(model: str = DEFAULT_MODEL) -> Leaves:
    """The leaves of CPUID that tell what VMRUN asks.

    Raises:
        BochsError: the model has no SVM, or Bochs or nasm is missing.
    """
    try:
        report = run_rom(_rom(), disk(_MAGIC, b"\1" + END), model=model, timeout=60, stall=1).lstrip(ALIVE)
    except BochsInterrupted as error:
        raise BochsError(f"Bochs model {model!r} cannot run the VMRUN harness: {error}") from error
    leaves: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    at = 0
    while report[at : at + 1] == b"P":
        leaf, subleaf, eax, ebx, ecx, edx = struct.unpack_from("<6I", report, at + 1)
        leaves[leaf, subleaf] = (eax, ebx, ecx, edx)
        at += 25
    if report[at : at + 1] != b"H":
        raise BochsError(f"the harness reported nonsense at byte {at}")
    return MappingProxyType(leaves)


def processor(model: str = DEFAULT_MODEL, *, host_paging: bool = True) -> SvmProcessor:
    """What VMRUN's checks ask of the emulated processor."""
    return processor_of(cpuid(model), host_paging=host_paging)


# --- the baseline -------------------------------------------------------------------------------------------


def _image() -> list[tuple[int, bytes]]:
    """What the arena holds before each case, as (address, bytes); the rest is zero."""
    user_writable = 7
    pages = b"".join(struct.pack("<Q", page | user_writable) for page in range(0x20000, 0x30000, 0x1000))
    return [
        *guest_image(),
        (CODE_PAGE, b"\x0f\xa2\x0f\x01\xd9" * 819),  # CPUID, VMMCALL
        (_IOPM, b"\xff" * 0x3000),
        (_MSRPM, b"\xff" * 0x2000),
        (_NESTED, struct.pack("<Q", _NESTED + 0x1000 | user_writable)),
        (_NESTED + 0x1000, struct.pack("<Q", _NESTED + 0x2000 | user_writable)),
        (_NESTED + 0x2000, struct.pack("<Q", _NESTED + 0x3000 | user_writable)),
        (_NESTED + 0x3000 + 8 * 0x20, pages),
    ]


@functools.cache
def _memory() -> Mapping[int, int]:
    """The bytes of the arena that are not zero."""
    return {start + offset: byte for start, data in _image() for offset, byte in enumerate(data)}


def quadword(address: int, changes: Iterable[tuple[int, bytes]] = ()) -> int | None:
    """What the arena holds at an address, 8 bytes, with a case's changes; None outside of it."""
    if address not in ARENA or address + 7 not in ARENA:
        return None
    content = dict(_memory())
    for start, data in changes:
        content.update((start + offset, byte) for offset, byte in enumerate(data))
    return int.from_bytes(bytes(content.get(address + offset, 0) for offset in range(8)), "little")


# The names of VMCB fields in the order of VMCS encodings, which the guest's segments come in.
_IN_VMCS_ORDER: Final = ("ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR")


def _segments(mode: Mode) -> dict[str, int]:
    found: dict[str, int] = {}
    vmcs = segments("real" if mode == "paged-real" else mode)
    for number, name in enumerate(_IN_VMCS_ORDER):
        rights = vmcs[0x4814 + 2 * number]
        found |= {
            f"{name}_SELECTOR": vmcs[0x0800 + 2 * number],
            f"{name}_ATTRIBUTES": rights & 0xFF | rights >> 4 & 0xF00,
            f"{name}_LIMIT": vmcs[0x4800 + 2 * number],
            f"{name}_BASE": vmcs[0x6806 + 2 * number],
        }
    return found | {
        "GDTR_BASE": vmcs[0x6816],
        "GDTR_LIMIT": vmcs[0x4810],
        "IDTR_BASE": vmcs[0x6818],
        "IDTR_LIMIT": vmcs[0x4812],
    }


@functools.cache
def baseline(mode: Mode = "64-bit", nested: bool = True) -> Mapping[str, int]:
    """A VMCB that enters: every field by id."""
    low = mode in ("v8086", "real", "paged-real")
    protected, paged = mode not in ("real", "paged-real"), mode != "real"
    fields = {
        **dict.fromkeys(FIELDS, 0),
        "CR_INTERCEPTS": _ALL,
        "DR_INTERCEPTS": _ALL,
        "EXCEPTION_INTERCEPTS": _ALL,
        "INTERCEPTS_3": _ALL,
        "INTERCEPTS_4": 0x7FFF,
        "IOPM_BASE": _IOPM,
        "MSRPM_BASE": _MSRPM,
        "ASID": 1,
        "NP_CONTROL": int(nested),
        "N_CR3": _NESTED,
        "CPL": 3 if mode == "v8086" else 0,
        "EFER": 0x1000 | (0x500 if mode == "64-bit" else 0),  # SVME; LMA, LME
        "CR0": 0x1_0030 | protected | paged << 31,  # WP, NE, ET; PE, PG
        "CR3": GUEST_CR3["32-bit" if mode == "real" or mode == "paged-real" else mode],
        "CR4": 0x20 if mode in ("64-bit", "pae") else 0,  # PAE
        "DR6": 0xFFFF_0FF0,
        "DR7": 0x400,
        "RFLAGS": 0x2_0002 if mode == "v8086" else 2,
        "RIP": 0 if low else CODE_PAGE,
        "RSP": STACK_TOP - CODE_PAGE if low else STACK_TOP,
        "G_PAT": 0x0007_0406_0007_0406,
        **_segments(mode),
    }
    return MappingProxyType(fields)


def _bytes(fields: Mapping[str, int]) -> bytes:
    page = bytearray(SIZE)
    for name, value in fields.items():
        field = FIELDS[name]
        page[field.offset : field.offset + field.width // 8] = value.to_bytes(field.width // 8, "little")
    return bytes(page)


# --- running ------------------------------------------------------------------------------------------------

_MAGIC = b"PSVM"
_CASES_PER_RUN = 4096
_NO_PAGING = 1
_RESULT = struct.Struct("<IBIQQQQ")
_BASELINES: Final = tuple((mode, nested) for mode in MODES for nested in (False, True))


def _rom() -> bytes:
    return assemble(Path(__file__).with_name("vmrun.asm"))


def _prologue() -> bytes:
    image = _image()
    stream = struct.pack("<BI", 2, len(image)) + pokes(image)
    for number, (mode, nested) in enumerate(_BASELINES):
        stream += struct.pack("<BB", 3, number) + _bytes(baseline(mode, nested))
    return stream


def _encode(index: int, case: RunCase) -> bytes:
    for address, data in case.memory:
        if address not in ARENA or address + max(len(data), 1) - 1 not in ARENA:
            raise BochsError(f"a case may not write memory at {address:#x}: outside the arena")
    for name, value in case.fields.items():
        if not 0 <= value <= FIELDS[name].mask:
            raise BochsError(f"{name} = {value:#x} does not fit in {FIELDS[name].width} bits")
    fields = [
        (_VMCB + FIELDS[name].offset, value.to_bytes(FIELDS[name].width // 8, "little"))
        for name, value in case.fields.items()
    ]
    written = [*case.memory, *fields]
    flags = 0 if case.host_paging else _NO_PAGING
    which = _BASELINES.index((case.mode, case.nested))
    return struct.pack("<BIBBI", 4, index, which, flags, len(written)) + pokes(written)


def _decode(report: bytes) -> dict[int, RunResult]:
    results: dict[int, RunResult] = {}
    report = report.lstrip(ALIVE)
    size = 1 + _RESULT.size
    for at in range(0, len(report) - size + 1, size):
        if report[at : at + 1] != b"R":
            break
        index, kind, vector, code, info1, info2, event = _RESULT.unpack_from(report, at + 1)
        results[index] = (
            RunResult("host-fault", vector=vector) if kind else RunResult("exit", code, info1, info2, event)
        )
    return results


def _run_chunk(
    prologue: bytes, cases: Sequence[bytes], model: str, stall: float
) -> tuple[dict[int, RunResult], Kind]:
    """Run cases until the end, or until one does not come back; the results, and what that one did."""
    contents = disk(_MAGIC, prologue + b"".join(cases) + END)
    lost: Kind = "hang"
    try:
        report = run_rom(_rom(), contents, model=model, timeout=60 + len(cases), stall=stall)
    except BochsInterrupted as interrupted:
        report = interrupted.partial
        if isinstance(interrupted, BochsCrash):
            lost = "crash"
    return _decode(report), lost


def run_cases(
    cases: Iterable[RunCase],
    *,
    model: str = DEFAULT_MODEL,
    progress: Callable[[int, int], None] | None = None,
    stall: float = 0.3,
) -> list[RunResult]:
    """Try each VMRUN and return the results in order.

    Each case starts from the same memory, so the order does not matter. `progress` is called with the number
    of cases done and the total. A case without an answer for `stall` seconds of the emulator's processor time
    is called a ``hang``.

    Raises:
        BochsError: Bochs or nasm is missing, the model has no SVM, a case does not fit the rules of this
            module, or the harness itself fails.
    """
    todo = list(cases)
    cpuid(model)
    prologue = _prologue()
    encoded = [_encode(index, case) for index, case in enumerate(todo)]
    results: list[RunResult] = []
    while len(results) < len(todo):
        first = len(results)
        last = last_that_fits(encoded, first, prologue, _CASES_PER_RUN)
        found, lost = _run_chunk(prologue, encoded[first:last], model, stall)
        while len(results) < last and len(results) in found:
            results.append(found[len(results)])
        if len(results) < last:
            results.append(RunResult(lost))
        if progress is not None:
            progress(len(results), len(todo))
    return results
