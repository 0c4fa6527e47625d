"""Run single x86-64 instructions on Unicorn, the processor of QEMU, for a second opinion.

Only what Unicorn does faithfully is asked of it; `LEFT_OUT` and `refuses` say what is not, with the reason.
Unicorn does not deliver interrupts and shows neither error codes nor hidden parts of segment registers, so a
result is the vector of the fault, or the visible registers and the memory.  It is asked in 64-bit mode alone,
at CPL 0 and 3, with the plain segments of the harness.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from popek.architectures.x86.descriptors import in_table, read_descriptor
from popek.architectures.x86_64.access import linear
from popek.architectures.x86_64.state import GPR_NAMES
from popek.emulators.x86.compare import Emulator, without_code
from popek.emulators.x86.deviations import explainer
from popek.emulators.x86.expectation import Expectation, StepResult
from popek.emulators.x86.unicorn import SCRATCH, SELECTORS, UnicornProcessor
from popek.emulators.x86_64.cases import X64Case
from popek.emulators.x86_64.compare import X86_64
from popek.emulators.x86_64.deviations import X64Difference
from popek.emulators.x86_64.expectation import initial_state, memory_differences
from popek.emulators.x86_64.step import (
    ARENA_BYTES,
    CODE_SELECTORS,
    CR3,
    DATA_SELECTORS,
    READ_ONLY_BASE,
    USER_BASE,
    X64StepCase,
    initial_memory,
)
from popek.kernel.words import Word

FORMS: Final = frozenset(
    (
        *(
            "NOP",
            "PAUSE",
            "LFENCE",
            "MFENCE",
            "SFENCE",
            "MOV",
            "PUSH",
            "POP",
            "LEA",
            "XCHG",
            "BSWAP",
            "MOVZX",
        ),
        *(
            "MOVSX",
            "MOVSXD",
            "ADD",
            "SUB",
            "CMP",
            "AND",
            "OR",
            "XOR",
            "TEST",
            "INC",
            "DEC",
            "NEG",
            "NOT",
            "CMPXCHG",
        ),
        *("CMPXCHG16B", "STOS", "MOVS", "Jcc", "JMP near", "CALL near", "RET near", "LEAVE"),
        *("PUSHF", "POPF", "CLI", "STI", "LAHF", "SAHF", "CLC", "STC", "CMC", "CLD", "STD"),
        *("LAR", "LSL", "VERR", "VERW", "MOV sreg", "PUSH sreg", "POP sreg", "LFS", "LGS", "LSS"),
        *("SGDT", "SIDT", "SLDT", "STR", "SMSW", "LMSW", "CLTS", "MOV from CR", "UD2"),
    )
)
"""The mnemonics that Unicorn is asked about."""

LEFT_OUT: Final = {
    "LGDT LIDT LLDT LTR HLT INVD WBINVD INVLPG RDMSR WRMSR, MOV to control and debug registers": (
        "they change what only Unicorn's own interface shows"
    ),
    "IN OUT INS OUTS": "Unicorn does not look at IOPL or the permission map",
    "INT n INT3 INT1 IRET, far CALL JMP RET": "Unicorn reports interrupts before the IDT is looked at",
    "SYSCALL SYSRET SYSENTER SYSEXIT SWAPGS": "Unicorn completes them without a transfer",
    "MOV r64, CR8": "Unicorn has no local APIC",
    "RDTSC RDTSCP RDPMC CPUID RDPID INVPCID MONITOR MWAIT XGETBV RDPKRU CLAC": "the clock, and its processor model",
}
"""The other instructions, each with the reason."""

_ZF: Final = 0x40
_PRESENT, _WRITABLE, _USER = 1, 2, 4


def refuses(case: X64Case, step: X64StepCase, expected: Expectation) -> str | None:
    """Why a case says nothing about Unicorn; None when it does."""
    state = step.state
    plain = (state["cs.selector"], state["ss.selector"]) == (
        CODE_SELECTORS[case.cpl],
        DATA_SELECTORS[case.cpl],
    )
    nulls = any(state[f"{name}.rights"] >> 16 for name in SELECTORS)
    if not plain or nulls:
        return "Unicorn loads segment registers by instructions: plain ones alone"
    if expected.storage and expected.vector != 14:
        return "QEMU checks neither canonical addresses nor alignment when memory is accessed"
    if case.form.startswith(("SGDT", "SIDT", "SLDT", "STR", "SMSW")) and state["cr4"] >> 11 & 1 and case.cpl:
        return "Unicorn does not know CR4.UMIP"
    if case.form in ("CLI", "STI") and state["cr4"] >> 1 & 1 and case.cpl == 3:
        return "QEMU does not implement CR4.PVI"
    if any(state[f"{name}.base"] for name in ("ds", "es")):
        return "plain segments alone"
    return None


class _Unicorn(UnicornProcessor):
    """A processor that is brought to a new state for every case."""

    def __init__(self) -> None:
        names = (*GPR_NAMES, "rip", "rflags", "cr0", "cr2", "cr3", "cr4", *SELECTORS, "msr")
        super().__init__(64, (*names, "gdtr", "idtr", "ldtr", "tr", "fs_base", "gs_base"))

    def run(self, case: X64StepCase) -> StepResult:
        """One instruction, on a fresh engine."""
        self.start(ARENA_BYTES, 0x40000)
        self.engine.mem_write(0, initial_memory(case))
        self._page_tables()
        state = case.state
        self.write("gdtr", (0, state["gdtr.base"], state["gdtr.limit"], 0))
        self.write("idtr", (0, state["idtr.base"], state["idtr.limit"], 0))
        level = state["cs.selector"] & 3
        self.write("msr", (0xC0000080, state["efer"]))
        self.write("cr3", state["cr3"])
        self.write("cr4", state["cr4"] | 0x20)
        self.write("cr0", state["cr0"])
        self.write("cr2", state["cr2"])
        for name in SELECTORS:
            self.write(name, (CODE_SELECTORS if name == "cs" else DATA_SELECTORS)[0])
        if level == 3 and not self._to_user(state):
            return StepResult("hang")
        for name in ("ldtr", "tr"):
            flags = (state[f"{name}.rights"] & 0xFF) << 8
            parts = state[f"{name}.selector"], state[f"{name}.base"], state[f"{name}.limit"], flags
            self.write(name, parts if not state[f"{name}.rights"] >> 16 else (parts[0], 0, 0, 0))
        for name in ("fs", "gs"):
            self.write(f"{name}_base", state[f"{name}.base"])
        for name in GPR_NAMES:
            self.write(name, state[name])
        self.write("rflags", state["rflags"])
        vector = self.go(state["rip"], 1)
        found = {name: self.read(name) for name in (*GPR_NAMES, "rip", "rflags", "cr0", "cr3", "cr4")}
        found |= {f"{name}.selector": self.read(name) for name in SELECTORS}
        found["rflags"] &= ~(1 << 16)
        if vector is not None:
            found = {}
        return StepResult("next" if vector is None else "trap", vector, None, found, self.watched(case.watch))

    def _page_tables(self) -> None:
        """As the harness's: the arena, of which one part is for users."""
        tables = [[0] * 512 for _ in range(4)]
        for level in range(3):
            tables[level][0] = CR3 + 0x1000 * (level + 1) | _PRESENT | _WRITABLE | _USER
        for page in range(ARENA_BYTES >> 12):
            user = _USER if page << 12 >= USER_BASE else 0
            tables[3][page] = page << 12 | _PRESENT | _WRITABLE | user
        tables[3][READ_ONLY_BASE >> 12] &= ~_WRITABLE
        tables[2][SCRATCH >> 21] = SCRATCH | 0x80 | _PRESENT | _WRITABLE
        for level, table in enumerate(tables):
            self.engine.mem_write(CR3 + 0x1000 * level, struct.pack("<512Q", *table))

    def _to_user(self, state: Any) -> bool:
        self.engine.mem_write(SCRATCH, b"\x48\xcf")
        wanted = state["rip"], CODE_SELECTORS[3], state["rsp"], DATA_SELECTORS[3]
        self.write("rsp", self.frame_for_iret("Q", *wanted))
        self.write("rflags", 2)
        done = self.go(SCRATCH, 1) is None and self.read("cs") == CODE_SELECTORS[3]
        for name in ("ds", "es", "fs", "gs"):
            self.write(name, DATA_SELECTORS[3])
        return done


def run_steps(cases: Sequence[X64StepCase]) -> list[StepResult]:
    """Run cases on Unicorn, in order."""
    processor = _Unicorn()
    return [processor.run(case) for case in cases]


# -- known deviations -----------------------------------------------------------------------------


def _missing_register(found: X64Difference) -> bool:
    return "CR1" in found.case.form and found.vectors == (6, 13)


def _far_pointer(found: X64Difference) -> bool:
    return found.case.form in ("LFS r64, m16:64", "LGS r64, m16:64", "LSS r64, m16:64")


def _releases_signed(found: X64Difference) -> bool:
    released = found.case.operands.get("operand imm16", 0)
    return found.case.form == "RET imm16" and released >= 0x8000 and found.differing == {"rsp"}


def _other_system_types(found: X64Difference) -> bool:
    """The selector names a system descriptor that the model refuses and Unicorn accepts."""
    if found.case.form.split()[0] not in ("LAR", "LSL") or found.expected.registers["rflags"] & _ZF:
        return False
    state, operands = initial_state(found.step), found.case.operands
    if "operand m16.offset" in operands:
        number, offset = operands["operand m16.segment"], operands["operand m16.offset"]
        address = linear(state, state.segment(number), Word(3, number), Word(64, offset))
        selector = state.memory.load_little_endian(address, 2)
    else:
        last = [name for name in operands if name.startswith("operand r16")][-1]
        selector = state.gpr[operands[last]].truncate(16)
    return bool(in_table(state, selector)) and not read_descriptor(state, selector).s


def _stores_before(found: X64Difference) -> bool:
    same = found.vectors[0] == found.vectors[1] and found.expected.kind == "trap"
    return same and found.differing == {"memory"}


def _pushes_rf(found: X64Difference) -> bool:
    """Only bit 16 of the image differs."""
    if found.case.form != "PUSHFQ" or found.differing != {"memory"}:
        return False
    changed = [
        (at, wanted ^ byte)
        for at, wanted, byte in memory_differences(found.step, found.expected, found.result)
    ]
    return changed == [(min(found.expected.memory) + 2, 1)]


_RECOGNISED: Final[Mapping[str, Callable[[X64Difference], bool]]] = {
    "pushf-shows-rf": _pushes_rf,
    "stores-before-a-fault": _stores_before,
    "privilege-before-missing-control-register": _missing_register,
    "far-pointer-of-64-bits": _far_pointer,
    "near-return-releases-signed": _releases_signed,
    "lar-of-types-that-ia-32e-mode-lacks": _other_system_types,
}


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


explain: Final = explainer(X64Difference, _RECOGNISED)
"""The name of the entry of ``unicorn-deviations.toml`` that explains a difference, if one does."""


UNICORN: Final = Emulator(
    "unicorn",
    run_steps,
    explain,
    modes=(True,),
    refuses=refuses,
    ends=without_code,
    levels=(0, 3),
    mnemonics=FORMS,
    left_out=frozenset(LEFT_OUT),
)

difftest: Final = X86_64.with_emulator(UNICORN)
