"""What kernels do on x86, what Uhlig et al. (2005) name as examples, and where a witness is easy to run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from popek.kernel.practice import Practice, Reloading, Step
from popek.kernel.state import State
from popek.kernel.words import Word

FS, EAX, ECX, EBX = 4, 0, 1, 3
LENGTH = 4  # of each instruction, where it does not matter
LOW = 0x40000


def practice(width: int) -> Practice:
    """For a machine whose widest general register has `width` bits, 32 or 64."""
    push, pop, back = {32: ("PUSHFD", "POPFD", "IRETD"), 64: ("PUSHFQ", "POPFQ", "IRETQ")}[width]
    stack, program = {32: ("esp", "eip"), 64: ("rsp", "rip")}[width]
    r, m = f"r{width}", f"m{width}"
    return Practice(
        examples={
            "ring-aliasing": ("PUSH CS", "MOV r32, Sreg"),
            "taken-addresses": ("MOV r32, m32",),
            "seen-storage": ("LSL r32, r16",),
            "silent-reads": ("SGDT m",),
            "transitions": ("SYSENTER", "SYSCALL", "INT imm8", "SYSEXIT", "SYSRET", back),
            "bypassed-kernel": ("SYSENTER", "SYSCALL"),
            "lost-interrupt-mask": (pop,),
            "trapping-interrupt-mask": ("CLI", "STI"),
            "shared-level": ("NOP",),
            "ring-compression": (f"MOV {m}, {r}", "MOV Sreg, r16"),
            "frequent-traps": ("MOV CR8, r64", f"MOV CR3, {r}"),
        },
        code={
            "critical section": (
                (push, {}),
                ("CLI", {}),
                (f"INC {r}", {}),
                (f"ADD {m}, {r}", {f"operand {m}.offset": 0x18000}),
                (pop, {}),
            ),
            "wait for interrupts": (("CLI", {}), ("STI", {}), ("HLT", {})),
            "context switch": (
                (f"MOV {r}, CR3", {}),
                (f"MOV CR3, {r}", {}),
                (f"MOV {r}, CR0", {}),
                ("CLTS", {}),
            ),
            "task priority": (("MOV CR8, r64", {}), ("NOP", {}), ("MOV CR8, r64", {})),
            "device": (("OUT imm8, AL", {"operand imm8": 0x20}), ("IN AL, imm8", {"operand imm8": 0x21})),
        },
        reloading=_reloading(shown={32: "ebx", 64: "rbx"}[width]),
        easy_end=lambda state: _easy_end(state, stack, program),
    )


def _reloading(shown: str) -> Reloading:
    """A segment register: an instruction saves the selector, and loading it gives what the table holds by then."""
    load: Step = ("MOV Sreg, r16", {"operand Sreg": FS, "operand r16": EAX})
    change: Mapping[str, int] = {"operand m32.segment": 3, "operand r32": ECX}
    use: Mapping[str, int] = {"operand m32.segment": FS, "operand r32": EBX}
    lengths = {"operand length": LENGTH}
    return Reloading(
        (load[0], {**load[1], **lengths}),
        ("MOV m32, r32", {**change, **lengths}),
        ("MOV r32, m32", {**use, **lengths}),
        place="operand m32.offset",
        shown=shown,
        easy=_low_and_in_the_gdt,
    )


def _low_and_in_the_gdt(undisturbed: Any, disturbed: Any) -> tuple[Word, ...]:
    bases = undisturbed.fs.base | disturbed.fs.base
    return bases < LOW, bases.truncate(16) == 0, undisturbed.fs.selector.ti == 0


def _easy_end(state: State, stack: str, program: str) -> Word:
    """The program goes on in low memory, off the first pages, and its stack is there, too."""
    words = state.words()
    target = words["cs.base"].zero_extend(words[program].width) + words[program]
    low = (words[stack] >= 0x8000) & (words[stack] < 0x40000)
    return low & (target >= 0x18000) & (target < 0x20000)
