"""Witnesses as assembly: a ROM image that sets each run up, runs it and reports what it did.

The source is self-contained: nasm makes a 64 KiB image of it that takes the place of the BIOS, under Bochs
(``romimage``), QEMU (``-bios``) or anything else that starts at the reset vector.  What each run did is written
to port E9H and to the first parallel port, as text; the run itself ends in a gate of the image, through INT1 where
the instruction completes.  See `popek.emulators.ia32.witness` for how a run is set up.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from popek.emulators.x86.witness import Refused

from .step import (
    ARENA_BYTES,
    GDT_BASE,
    IDT_BASE,
    LANDING_BYTE,
    RESERVED_SELECTOR,
    TSS_BASE,
    default_tss,
    initial_registers,
    reserved_descriptors,
)
from .witness_run import Patch, WitnessSetup

_WIDTH: Final = 100
_PREAMBLE: Final = 0x3F000  # where the code lies that writes what tables hold after the loads
_ERROR_CODES: Final = (8, 10, 11, 12, 13, 14, 17, 21, 29, 30)
_GENERAL: Final = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")
_CONTROL: Final = ("cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7")


@attrs.frozen(eq=False)
class Listing:
    """A witness to write down.

    Attributes:
        title: what it is a witness of.
        story: what a reader should see, one line each.
        runs: its runs, as they can be set up.
    """

    title: str
    story: tuple[str, ...]
    runs: tuple[WitnessSetup | Refused, ...]


def nasm_source(subject: str, listings: Sequence[Listing]) -> str:
    """One source for all witnesses of an instruction; `-DWITNESS=n` chooses, the first by default."""
    lines = [*_header(subject, listings)]
    for number, listing in enumerate(listings, 1):
        lines += ["", f"%if WITNESS = {number}", f"; ---- Witness {number}: {listing.title} " + "-" * 40]
        lines += [f"; {line}" for text in listing.story for line in textwrap.wrap(text, _WIDTH)]
        setups = [run for run in listing.runs if isinstance(run, WitnessSetup)]
        for run in listing.runs:
            if isinstance(run, Refused):
                text = f"The run {run.label!r} cannot be set up by instructions alone: {run.reason}."
                lines += ["", *(f"; {line}" for line in textwrap.wrap(text, _WIDTH))]
        for index, run in enumerate(setups, 1):
            lines += ["", *_run(index, len(setups), run)]
        if not setups:
            lines += ["run_1:", "        jmp finish"]
        lines += ["%endif"]
    return "\n".join([*lines, "", _part("end"), ""])


def _part(name: str) -> str:
    """What every image has, before or after its runs; names in braces are `_CONSTANTS`."""
    text = Path(__file__).with_name(f"witness_{name}.asm").read_text(encoding="ascii")
    return text.format(**_CONSTANTS)


def _header(subject: str, listings: Sequence[Listing]) -> Iterator[str]:
    yield f"; {subject}: witnesses, as a ROM image of 64 KiB."
    yield ";"
    yield ";   nasm -f bin -DWITNESS=1 -o witness.bin THIS-FILE"
    yield ";   qemu-system-i386 -bios witness.bin -display none -debugcon stdio -device isa-debug-exit"
    yield ";   or, in a bochsrc: romimage: file=witness.bin, address=0xffff0000"
    yield ";"
    for number, listing in enumerate(listings, 1):
        yield f";   WITNESS={number}  {listing.title}"
    yield ""
    yield _part("top").rstrip("\n")


_PLAIN: Final = {"cr0": 0x11, "dr6": 0xFFFF0FF0, "dr7": 0x400} | dict.fromkeys(
    ("cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3"), 0
)


# -- one run --------------------------------------------------------------------------------------


def _run(number: int, last: int, setup: WitnessSetup) -> Iterator[str]:
    step, registers = setup.step, initial_registers(setup.step)
    texts = "; ".join(text for text, _ in setup.code)
    yield f"; Run {number}: {setup.run.label}.  At CPL {step.cpl}: {texts}"
    for line in _expectation(setup):
        yield from (f";   {part}" for part in textwrap.wrap(line, _WIDTH - 4, subsequent_indent="  "))
    yield f"run_{number}:"
    yield f"        mov esp, {_hex(_STACK)}"
    yield (
        f"        tables {_hex(registers['gdtr.base'])}, {_hex(registers['gdtr.limit'])}, "
        f"{_hex(registers['idtr.base'])}, {_hex(registers['idtr.limit'])}"
    )
    for patch in setup.patches:
        yield from _put(patch)
    yield f"        put {_hex(_code_at(setup))}, {_bytes(step.code)}  ; {texts}"
    if setup.stale:
        yield "        ; Code of the witness's own level changes the tables when the loads are done."
        yield f"        put {_hex(_PREAMBLE)}, {_bytes(_preamble(setup))}"
        for patch in setup.stale:
            yield f"        ;   {_hex(patch.address)}: {patch.data.hex(' ')}: {patch.why}"
    yield f"        lgdt [gdtr_{number}]"
    yield f"        jmp {_hex(RESERVED_SELECTOR)}:.loaded"
    yield ".loaded:"
    yield f"        mov eax, {_hex(RESERVED_SELECTOR + 8)}"
    yield "        mov ss, eax"
    for name, instruction in (("ldtr", "lldt"), ("tr", "ltr")):
        yield f"        mov eax, {_hex(registers[name])}"
        yield f"        {instruction} ax"
    yield "        plain"
    for name in _CONTROL:
        if registers[name] != _PLAIN[name]:
            yield f"        mov eax, {_hex(registers[name])}"
            yield f"        mov {name}, eax"
    for number_, value in sorted(step.msrs.items()):
        yield f"        mov ecx, {_hex(number_)}  ; an MSR"
        yield f"        mov eax, {_hex(value & 0xFFFFFFFF)}"
        yield f"        mov edx, {_hex(value >> 32)}"
        yield "        wrmsr"
    yield f"        mov dword [RUN], {number}"
    watch = _ranges(address for (name, address) in setup.effect.cells if name == "memory")
    yield f"        mov dword [WATCH], watch_{number}"
    next_run = f"run_{number + 1}" if number < last else "finish"
    yield f"        mov dword [NEXT], {next_run}"
    yield f"        lidt [idtr_{number}]"
    for name in ("es", "fs", "gs", "ds"):
        yield f"        mov eax, {_hex(registers[name])}"
        yield f"        mov {name}, eax"
    yield from _enter(setup, registers)
    yield f"gdtr_{number}: dw {_hex(registers['gdtr.limit'])}"
    yield f"        dd {_hex(registers['gdtr.base'])}"
    yield f"idtr_{number}: dw {_hex(registers['idtr.limit'])}"
    yield f"        dd {_hex(registers['idtr.base'])}"
    yield f"watch_{number}: dd {', '.join([*(f'{_hex(a)}, {n}' for a, n in watch), '0, 0'])}"


def _enter(setup: WitnessSetup, registers: Mapping[str, int]) -> Iterator[str]:
    """To the witness's CS:EIP, SS:ESP, EFLAGS and general registers."""
    start = _PREAMBLE - _cs_base(setup) & 0xFFFFFFFF if setup.stale else registers["eip"]
    pushed = [("SS", "ss"), ("ESP", "esp")] if setup.step.cpl else []
    for title, name in (*pushed, ("EFLAGS", "eflags")):
        yield f"        push dword {_hex(registers[name])}  ; {title}"
    if setup.step.cpl:
        yield f"        push dword {_hex(registers['cs'])}  ; CS"
        yield f"        push dword {_hex(start)}  ; EIP"
    for name in _GENERAL:
        value = registers[name]
        yield f"        mov {name}, {_hex(value)}" if value else f"        xor {name}, {name}"
    if setup.step.cpl:
        yield "        iretd"
        return
    yield "        popfd"
    yield "        lss esp, [cs:.stack]"
    yield f"        jmp {_hex(registers['cs'])}:{_hex(start)}"
    yield f".stack: dd {_hex(registers['esp'])}"
    yield f"        dw {_hex(registers['ss'])}"


def _preamble(setup: WitnessSetup) -> bytes:
    """MOV BYTE [SS:address], value for each stale byte, and a jump to the instruction."""
    base = int(setup.run.before.ss.base)
    code = b""
    for patch in setup.stale:
        for index, byte in enumerate(patch.data):
            where = patch.address + index - base & 0xFFFFFFFF
            code += b"\x36\xc6\x05" + where.to_bytes(4, "little") + bytes([byte])
    distance = _code_at(setup) - (_PREAMBLE + len(code) + 5) & 0xFFFFFFFF
    return code + b"\xe9" + distance.to_bytes(4, "little")


def _expectation(setup: WitnessSetup) -> Iterator[str]:
    yield f"Expected: {setup.effect.end}."
    before = setup.run.before
    changed = [
        f"{name} {int(before[name]):#x} -> {value:#x}"
        for name, value in setup.effect.leaves.items()
        if name != "eip"
    ]
    if setup.effect.end == "completes":
        yield "Changes: " + ("; ".join(changed) or "no register but EIP") + "."
    stored = sorted((a, v) for (name, a), v in setup.effect.cells.items() if name == "memory")
    if stored:
        yield "Stores: " + ", ".join(f"[{a:#x}] = {v:#04x}" for a, v in stored) + "."


def _put(patch: Patch) -> Iterator[str]:
    data = patch.data
    if patch.why.startswith("descriptor") and "TR" in patch.why.partition("of ")[2].split(", "):
        data = data[:5] + bytes([data[5] & ~2]) + data[6:]  # LTR wants an available TSS, and makes it busy
    yield f"        put {_hex(patch.address)}, {_bytes(data)}  ; {patch.why}"


def _cs_base(setup: WitnessSetup) -> int:
    return int(setup.run.before.cs.base)


def _code_at(setup: WitnessSetup) -> int:
    return _cs_base(setup) + int(setup.run.before.eip) & 0xFFFFFFFF


def _ranges(addresses: Iterator[int]) -> list[tuple[int, int]]:
    found: list[list[int]] = []
    for address in sorted(addresses):
        if found and sum(found[-1]) == address:
            found[-1][1] += 1
        else:
            found.append([address, 1])
    return [(start, length) for start, length in found]


def _hex(number: int) -> str:
    return f"{number:#x}"


def _bytes(data: bytes) -> str:
    return ", ".join(f"{byte:#04x}" for byte in data)


# -- what every image has -------------------------------------------------------------------------

_STACK: Final = 0x9F000
_TSS: Final = default_tss()
# What a report has, and where it lies above the stack pointer of the code that reports.
_FIELDS: Final = {
    "vector": 48,
    "error": 52,
    "eip": 56,
    "cs": 60,
    "eflags": 64,
    "esp": 68,
    "ss": 72,
    "eax": 44,
    "ecx": 40,
    "edx": 36,
    "ebx": 32,
    "ebp": 24,
    "esi": 20,
    "edi": 16,
    "ds": 12,
    "es": 8,
    "fs": 4,
    "gs": 0,
}
_CONSTANTS: Final = {
    "arena": _hex(ARENA_BYTES),
    "filler": _hex(LANDING_BYTE * 0x01010101),
    "gdt": _hex(GDT_BASE),
    "idt": _hex(IDT_BASE),
    "tss": _hex(TSS_BASE),
    "stack": _hex(_STACK),
    "reserved": _hex(RESERVED_SELECTOR),
    "descriptors": _bytes(reserved_descriptors()[:16]),
    "stacks": "\n".join(
        f"        mov dword [{TSS_BASE + at:#x}], {value:#x}"
        for at, value in ((i, int.from_bytes(_TSS[i : i + 4], "little")) for i in range(0, len(_TSS), 4))
        if value
    ),
    "error_codes": " || ".join(f"v = {number}" for number in _ERROR_CODES),
    "fields": "\n".join(f"        dd text_{name}, SEEN + {place}" for name, place in _FIELDS.items()),
    "texts": "\n".join(f"text_{name}: db ' {name}=', 0" for name in _FIELDS),
}
