"""Run single IA-32 instructions on Bochs, thousands in one boot, each from a complete given state.

How it works
------------
The ROM `step.asm` loads what only loads can establish (GDTR, LDTR, TR, DS, ES, FS, GS; SS and CS by
IRET to the wanted CPL), so that every check of the processor applies to the initial state. Two bytes at
the case's own CS:EIP then raise a system-management interrupt, whose handler sets the rest (general
registers, EIP, EFLAGS, IDTR, CR0, CR3, CR4, DR6, DR7) in the saved state and resumes at the case's
instruction. A system-management interrupt also ends the step. It saves the state without using any stack,
table or selector, and it saves the hidden part of each segment register too.

The end of a step
-----------------
* The instruction is followed by ``OUT 0B2H, AL``, which raises that interrupt if the CPL may use the
  port; otherwise it gives #GP at the fall-through address, which is recognised.
* Every other byte of the memory that the case does not set is F1H (INT1): a transfer that lands there is
  recognised too. The INT1 of a landing place, and every exception, goes through a gate of the IDT, so
  these need a gate and, from CPL > 0, a ring-0 stack in the TSS (see the contract).
* An instruction that does not end (HLT, a jump to itself) is ended after about 50,000 emulated
  instructions.

Contract
--------
* Protected mode with CR0.PG = 0, where CPL is the RPL of CS; real-address mode (CR0.PE = 0, CPL 0) and
  virtual-8086 mode (EFLAGS.VM = 1, CPL 3), in which the segment registers are not loaded but set, by the
  system-management interrupt's handler, with the hidden parts that `hidden_parts` tells. In real-address mode the
  interrupt vector table lies at `VECTOR_TABLE` by default and leads to the harness.
* Memory is the arena, linear 0 to `ARENA_BYTES`; `initial_memory` tells what is in it. It is the same for
  every case except for what the case sets. Memory elsewhere (F1H from 40000H to A0000H and from 100000H
  to 1000000H) is *not* restored after a case that writes to it; 1000000H to 2000000H is the harness's
  own, F0000H its ROM.
* `reserved` is the selector of four descriptors of the harness, which the case's GDT limit must include;
  they are written last. Default `RESERVED_SELECTOR`, at the end of a GDT of 4 KiB.
* Each vector within the IDT's limit has an interrupt gate with DPL 0 to the harness, unless the case's
  memory overwrites it, usually with a gate to a landing place. #DF and #TS have task gates, so that they
  work whatever the case's stacks are.
* At CPL > 0 TR must select a TSS whose SS0:ESP0 is good; the default one is. At CPL 0 an exception or a
  landing elsewhere than after the instruction uses the current stack, which must have room.
* The frames that gates push are not part of the result: `memory` shows the bytes as they were before the
  step. What the instruction itself wrote to these bytes (the 24 below ESP0 or, at CPL 0, below ESP) is
  lost.
* An instruction that changes GDTR or IDTR, and then ends elsewhere than right after itself at CPL 0,
  needs its new tables to hold `reserved_descriptors` and `default_gates`.
* RF is not observable: it is reported as at the start for faults, and as 0 otherwise.
* A fault with an EIP or CS other than the first is the next instruction's, so the kind is ``next``,
  except for faults in the middle of a task switch.
* Ports must be left alone except those that are harmless to read, such as 70H, 80H and E9H.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from popek.emulators.bochs.step_boots import StepRom, patch_list
from popek.emulators.ia32.step_case import (
    ARENA_BYTES,
    CODE_BASE,
    CODE_SELECTORS,
    DATA_BASE,
    DATA_SELECTORS,
    DEFAULTS,
    FREE_SELECTOR,
    GDT_BASE,
    IDT_BASE,
    INNER_STACK_TOPS,
    LANDING_BYTE,
    REGISTER_NAMES,
    RESERVED_SELECTOR,
    STACK_TOPS,
    TSS_BASE,
    TSS_SELECTOR,
    VECTOR_TABLE,
    Ia32StepCase,
    Prepared,
    StepCaseError,
    default_descriptors,
    default_gates,
    default_tss,
    direct,
    gate_descriptor,
    hidden_parts,
    initial_memory,
    initial_registers,
    msr_reads,
    prepare,
    reserved_descriptors,
    segment_descriptor,
)
from popek.emulators.ia32.step_case import STUBS as STUBS
from popek.emulators.ia32.step_case import TEMPLATE as TEMPLATE
from popek.emulators.ia32.step_report import WITH_ERROR_CODE as WITH_ERROR_CODE
from popek.emulators.ia32.step_report import decode_all
from popek.emulators.x86.expectation import StepResult

_HEADER = struct.Struct("<4I32sI34I7I72s")


def _record(prepared: Prepared) -> bytes:
    case, registers = prepared.case, prepared.registers
    reads = msr_reads(case)
    lists = b"".join(
        (
            *(struct.pack("<IQ", number, value) for number, value in case.msrs.items()),
            patch_list(prepared.patches),
            patch_list(case.stale),
            *(struct.pack("<II", address, length) for address, length in case.watch),
            *(struct.pack("<I", number) for number in reads),
        )
    )
    code = prepared.code
    return lists.join(
        (
            _HEADER.pack(
                _HEADER.size + len(lists),
                0 if prepared.segments else case.cpl,
                prepared.code_at,
                len(code),
                code,
                case.reserved,
                *({**registers, **prepared.loaded}[name] for name in REGISTER_NAMES),
                len(case.msrs),
                len(prepared.patches),
                len(case.stale),
                len(case.watch),
                len(reads),
                bool(prepared.segments),
                registers["eip"],
                prepared.segments,
            ),
            b"",
        )
    )


_ROM: Final = StepRom(Path(__file__).with_name("step.asm"), DEFAULTS, _record, decode_all, StepResult)


def run_steps(cases: Iterable[Ia32StepCase], *, model: str = "tigerlake") -> list[StepResult]:
    """Run cases on a processor of Bochs and return their results, in order.

    Raises:
        StepCaseError: a case is outside the contract.
        BochsError: Bochs or nasm is missing.
    """
    return _ROM.run(map(prepare, cases), model=model)


__all__ = [
    "ARENA_BYTES",
    "CODE_BASE",
    "CODE_SELECTORS",
    "DATA_BASE",
    "DATA_SELECTORS",
    "FREE_SELECTOR",
    "GDT_BASE",
    "IDT_BASE",
    "INNER_STACK_TOPS",
    "LANDING_BYTE",
    "REGISTER_NAMES",
    "RESERVED_SELECTOR",
    "STACK_TOPS",
    "STUBS",
    "TEMPLATE",
    "TSS_BASE",
    "TSS_SELECTOR",
    "VECTOR_TABLE",
    "WITH_ERROR_CODE",
    "Ia32StepCase",
    "StepCaseError",
    "StepResult",
    "default_descriptors",
    "default_gates",
    "default_tss",
    "direct",
    "gate_descriptor",
    "hidden_parts",
    "initial_memory",
    "initial_registers",
    "prepare",
    "reserved_descriptors",
    "run_steps",
    "segment_descriptor",
]
