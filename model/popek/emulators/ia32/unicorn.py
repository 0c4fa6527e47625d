"""Run single IA-32 instructions on Unicorn, the processor of QEMU, for a second opinion.

Only what Unicorn does faithfully is asked of it; `LEFT_OUT` and `refuses` say what is not, with the reason.
Unicorn does not deliver interrupts and shows neither error codes nor hidden parts of segment registers, so a
result is the vector of the fault, or the visible registers and the memory.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import attrs

from popek.architectures.ia32.state import GPR_NAMES
from popek.emulators.ia32.cases import CaseMode, Ia32Case
from popek.emulators.ia32.compare import IA32
from popek.emulators.ia32.step import (
    ARENA_BYTES,
    GDT_BASE,
    RESERVED_SELECTOR,
    Ia32StepCase,
    initial_memory,
    initial_registers,
    reserved_descriptors,
)
from popek.emulators.ia32.unicorn_deviations import explain, image_has_vm
from popek.emulators.x86.compare import Emulator, as_raised
from popek.emulators.x86.expectation import Expectation, StepResult
from popek.emulators.x86.unicorn import SCRATCH, SELECTORS, UnicornProcessor

_NAMES: Final = (*GPR_NAMES, "eip", "eflags", "cr0", "cr2", "cr3", "cr4")
# MOV ES, BX; MOV FS, CX; MOV GS, DX; MOV DS, AX; then IRETD, or MOV SS, SI; JMP FAR [scratch].
_LOAD = bytes.fromhex("8ec38ee18eea8ed8")
_TO_OUTER = _LOAD + b"\xcf"
_TO_RING_0 = _LOAD + b"\x8e\xd6\x2e\xff\x2d" + struct.pack("<I", SCRATCH + 0x800)

FORMS: Final = (
    *("NOP", "MOV", "PUSH", "POP", "LEA", "XCHG", "BSWAP", "ADD", "SUB", "CMP", "AND", "OR", "XOR", "TEST"),
    *("INC", "DEC", "Jcc", "JMP near", "CALL near", "RET near", "LEAVE"),
    *("PUSHF", "POPF", "CLI", "STI", "LAHF", "SAHF", "CLC", "STC", "CMC", "CLD", "STD"),
    *(
        "LAR",
        "LSL",
        "VERR",
        "VERW",
        "ARPL",
        "MOV sreg",
        "PUSH sreg",
        "POP sreg",
        "LDS",
        "LES",
        "LFS",
        "LGS",
        "LSS",
    ),
    *("SGDT", "SIDT", "SLDT", "STR", "SMSW", "CALL far", "JMP far", "RET far", "IRET"),
    *(
        "ADC",
        "SBB",
        "NEG",
        "NOT",
        "SHL",
        "SHR",
        "SAR",
        "ROL",
        "ROR",
        "MUL",
        "IMUL",
        "DIV",
        "AAM",
        "XADD",
        "CMPXCHG",
    ),
    *("CMPXCHG8B", "MOVZX", "MOVSX", "CBW", "CWDE", "CWD", "CDQ", "XLAT", "SETcc", "CMOVcc", "LOOP", "BOUND"),
    *("PUSHA", "POPA", "ENTER", "PAUSE", "LFENCE", "MFENCE", "SFENCE"),
    *("UD0", "UD1", "UD2", "RSM"),
    *(f"{name}{letter} seg" for name in ("MOVS", "LODS", "CMPS") for letter in "BWD"),
    *(f"{name}{letter}" for name in ("STOS", "SCAS") for letter in "BWD"),
)
"""The mnemonics, and of string instructions the forms, that Unicorn is asked about."""

LEFT_OUT: Final = {
    "LGDT LIDT LLDT LTR LMSW CLTS HLT INVD WBINVD INVLPG RDMSR WRMSR, MOV of control and debug registers": (
        "they change what only Unicorn's own interface shows"
    ),
    "IN OUT INS OUTS": "Unicorn does not look at IOPL or the permission map",
    "INT n INT3 INTO INT1": "Unicorn reports them before the IDT is looked at",
    "string instructions with REP": "Unicorn stops in the middle of them, and on them after the last iteration",
    "RDTSC RDTSCP RDPMC": "the clock, and no performance counters",
    "SYSENTER SYSEXIT SYSCALL SYSRET": "Unicorn completes them without a transfer",
    "CPUID RDPID RDRAND RDSEED INVPCID CLAC STAC MONITOR MWAIT WBNOINVD CLFLUSH": (
        "what Unicorn's processor model has differs from ours"
    ),
    "XGETBV XSETBV RDPKRU WRPKRU XSAVE XSAVEOPT XSAVEC XSAVES XRSTOR XRSTORS FXSAVE FXRSTOR FWAIT FNOP EMMS": (
        "Unicorn sets CR4.OSXSAVE by itself and takes little notice of CR0.TS and EM"
    ),
    "VMXON VMXOFF VMCALL VMCLEAR VMPTRLD VMPTRST VMREAD VMWRITE VMLAUNCH VMRESUME VMFUNC INVEPT INVVPID GETSEC": (
        "QEMU has no VMX"
    ),
    "VMRUN VMLOAD VMSAVE VMMCALL STGI CLGI INVLPGA SKINIT": "Unicorn's processor model has SVM, ours not",
}
"""The other instructions, each with the reason."""


def refuses(case: Ia32Case, step: Ia32StepCase, expected: Expectation) -> str | None:
    """Why a case says nothing about Unicorn; None when it does."""
    registers = initial_registers(step)
    if expected.storage:
        return "QEMU checks neither limits nor rights nor alignment when memory is accessed"
    if (
        case.form.startswith(("SGDT", "SIDT", "SLDT", "STR", "SMSW"))
        and registers["cr4"] >> 11 & 1
        and step.cpl
    ):
        return "Unicorn does not know CR4.UMIP"
    if case.form == "IRETD" and step.cpl == 0 and image_has_vm(step):
        return "Unicorn tells CPL from CS, which says nothing in virtual-8086 mode, and takes any EIP there"
    if case.form in ("CLI", "STI") and registers["cr4"] >> 1 & 1 and step.cpl == 3:
        return "QEMU does not implement CR4.PVI"
    return None


class _Unicorn(UnicornProcessor):
    """A processor that is brought to a new state for every case."""

    def __init__(self) -> None:
        super().__init__(32, (*_NAMES, *SELECTORS, "gdtr", "idtr", "ldtr", "tr"))
        self.start(ARENA_BYTES + 0x1000, 0x10000)  # an access may run past the end
        self.engine.mem_write(GDT_BASE + RESERVED_SELECTOR, reserved_descriptors())
        self.write("gdtr", (0, GDT_BASE, 0xFFF, 0))
        self.write("cs", RESERVED_SELECTOR)
        for name in ("ss", "ds", "es", "fs", "gs"):
            self.write(name, RESERVED_SELECTOR + 8)
        self.write("cr0", 0x11)
        self.at_ring_0 = self.engine.context_save()

    def table(self, name: str, selector: int, arena: bytes) -> None:
        """LDTR or TR, from its descriptor in the GDT."""
        if selector < 4:
            self.write(name, (selector, 0, 0, 0))
            return
        low, high = struct.unpack_from("<II", arena, GDT_BASE + (selector & 0xFFF8))
        limit = low & 0xFFFF | high & 0xF0000
        limit = limit << 12 | 0xFFF if high >> 23 & 1 else limit
        base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000
        busy = 1 << 9 if name == "tr" else 0  # QEMU keeps what was there before LTR
        self.write(name, (selector, base, limit, high & 0xF0FF00 & ~busy))

    def run(self, case: Ia32StepCase) -> StepResult:
        """One instruction."""
        registers = initial_registers(case)
        arena = initial_memory(case)
        loaded = bytearray(initial_memory(attrs.evolve(case, stale=())))
        at = GDT_BASE + RESERVED_SELECTOR
        loaded[at : at + 32] = reserved_descriptors()
        self.engine.context_restore(self.at_ring_0)
        self.engine.ctl_flush_tb()
        self.engine.mem_write(0, bytes(loaded))
        self.write("gdtr", (0, registers["gdtr.base"], registers["gdtr.limit"], 0))
        self.write("idtr", (0, registers["idtr.base"], registers["idtr.limit"], 0))
        if not self._enter(case.cpl, registers, bytes(loaded)):
            return StepResult("setup-failed", self.vector)
        self.engine.mem_write(0, arena)
        for name in _NAMES:
            if name != "eip":
                self.write(name, registers[name])
        vector = self.go(registers["eip"], 1)
        found = {name: self.read(name) for name in (*_NAMES, *SELECTORS)}
        found["eflags"] &= ~(1 << 16)
        found["cpl"] = found["cs"] & 3
        return StepResult("next" if vector is None else "trap", vector, None, found, self.watched(case.watch))

    def _enter(self, cpl: int, registers: dict[str, int], arena: bytes) -> bool:
        """Load the segment registers by instructions at CPL 0 that end at the case's CS:EIP and CPL."""
        self.table("ldtr", registers["ldtr"], arena)
        self.table("tr", registers["tr"], arena)
        for register, segment in (("eax", "ds"), ("ebx", "es"), ("ecx", "fs"), ("edx", "gs"), ("esi", "ss")):
            self.write(register, registers[segment])
        wanted = registers["eip"], registers["cs"], registers["esp"], registers["ss"]
        self.write("esp", self.frame_for_iret("I", *wanted))
        self.write("eflags", 2)
        self.engine.mem_write(SCRATCH + 0x800, struct.pack("<IH", registers["eip"], registers["cs"]))
        code = _TO_RING_0 if cpl == 0 else _TO_OUTER
        self.engine.mem_write(SCRATCH, code)
        vector = self.go(SCRATCH, 6 if cpl == 0 else 5)
        if vector is not None or self.read("cs") != registers["cs"]:
            return False
        for name in ("ds", "es", "fs", "gs"):
            if registers[name] < 4:  # IRET drops the RPL of a null selector
                self.write(name, registers[name])
        return True


def run_steps(cases: Sequence[Ia32StepCase]) -> list[StepResult]:
    """Run cases on Unicorn, in order."""
    processor = _Unicorn()
    return [processor.run(case) for case in cases]


UNICORN: Final = Emulator(
    "unicorn", run_steps, explain, modes=(CaseMode.PROTECTED,), refuses=refuses, ends=as_raised
)

difftest: Final = IA32.with_emulator(UNICORN, FORMS)
