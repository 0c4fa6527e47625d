"""VM exits: raised as a fault of a vector of their own, with the VM-exit information recorded in the state.

The state of the trap is the one before the instruction, as nearly all VM exits are fault-like, with the fields of the
VM-exit information filled in (SDM vol. 3C, "VM-Exit Information Fields"); its error code is the basic exit
reason.  Fields that the manual does not define for an exit keep what they held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from popek.architectures.x86.exceptions import (
    BP,
    DB,
    OF,
    PF,
)
from popek.kernel.outcome import Fault, Vector
from popek.kernel.words import Word, concat, ite

from .state import Vmx

VM_EXIT: Final = Vector("VM exit", 256, 16)

# Basic exit reasons (SDM vol. 3D, appendix C).
EXCEPTION_OR_NMI, EXTERNAL_INTERRUPT, TRIPLE_FAULT, INTERRUPT_WINDOW, NMI_WINDOW, TASK_SWITCH = (
    0,
    1,
    2,
    7,
    8,
    9,
)
REASONS: Final = {
    "CPUID": 10,
    "GETSEC": 11,
    "HLT": 12,
    "INVD": 13,
    "INVLPG": 14,
    "RDPMC": 15,
    "RDTSC": 16,
    "VMCALL": 18,
    "VMCLEAR": 19,
    "VMLAUNCH": 20,
    "VMPTRLD": 21,
    "VMPTRST": 22,
    "VMREAD": 23,
    "VMRESUME": 24,
    "VMWRITE": 25,
    "VMXOFF": 26,
    "VMXON": 27,
    "MWAIT": 36,
    "MONITOR": 39,
    "PAUSE": 40,
    "SGDT": 46,
    "SIDT": 46,
    "LGDT": 46,
    "LIDT": 46,
    "SLDT": 47,
    "STR": 47,
    "LLDT": 47,
    "LTR": 47,
    "INVEPT": 50,
    "RDTSCP": 51,
    "INVVPID": 53,
    "WBINVD": 54,
    "WBNOINVD": 54,
    "XSETBV": 55,
    "RDRAND": 57,
    "INVPCID": 58,
    "VMFUNC": 59,
    "RDSEED": 61,
    "XSAVES": 63,
    "XRSTORS": 64,
    "UMWAIT": 67,
    "TPAUSE": 68,
}
CR_ACCESS, MOV_DR, IO_INSTRUCTION, RDMSR, WRMSR, TPR_BELOW_THRESHOLD = 28, 29, 30, 31, 32, 43
VIRTUALIZED_EOI, APIC_WRITE = 45, 56

# Types of an interruption (SDM vol. 3C, "Format of the VM-Exit Interruption-Information Field").
HARDWARE_EXCEPTION, SOFTWARE_INTERRUPT, PRIVILEGED_SOFTWARE_EXCEPTION, SOFTWARE_EXCEPTION = 3, 4, 5, 6
SOFTWARE: Final = (SOFTWARE_INTERRUPT, PRIVILEGED_SOFTWARE_EXCEPTION, SOFTWARE_EXCEPTION)
VALID, ERROR_CODE_VALID = 1 << 31, 1 << 11


def exit_of(
    cpu: Vmx,
    reason: int,
    qualification: Word | int = 0,
    information: Mapping[str, Word] | None = None,
    *,
    unblocked: Word | None = None,
    memory: bool = False,
) -> NoReturn:
    """Leave non-root operation.

    Args:
        reason: the basic exit reason.
        qualification: up to 64 bits.
        information: other fields by name, without `exit_`; the instruction's length is filled in.
        unblocked: whether NMIs are not blocked any more, although they were before (width 1).
        memory: the cause is a storage reference.

    Raises:
        Fault: always.
    """
    cpu._words.update(cpu._start._words)
    cpu._memories.update(cpu._start._memories)
    if unblocked is not None:
        cpu.nmi_blocked = cpu.nmi_blocked & ~unblocked
    if isinstance(qualification, int):
        qualification = Word(64, qualification)
    _basic_information(cpu, reason, qualification.zero_extend(64))
    cpu.exit_instruction_length = cpu._length
    if cpu._vectoring is not None:
        kind, vector, code = cpu._vectoring
        with_code = ERROR_CODE_VALID if code is not None else 0
        cpu.exit_idt_vectoring_info = Word(32, VALID | with_code | kind << 8) | vector.zero_extend(32)
        if code is not None:
            cpu.exit_idt_vectoring_error = code.zero_extend(32)
    for name, value in (information or {}).items():
        cpu[f"exit_{name}"] = value
    raise Fault(VM_EXIT, reason, memory=memory, keeps=True)


def trap_like_exit_of(cpu: Vmx, reason: int, qualification: Word | None = None) -> NoReturn:
    """Leave non-root operation after the instruction: what it did stands, and CS:EIP is that of the next.

    Raises:
        Fault: always.
    """
    _basic_information(cpu, reason, Word(64, 0) if qualification is None else qualification)
    raise Fault(VM_EXIT, reason, keeps=True)


def _basic_information(cpu: Vmx, reason: int, qualification: Word) -> None:
    """What every exit tells; the two interruption fields are not valid unless somebody fills them in."""
    cpu.exit_reason, cpu.exit_qualification = Word(32, reason), qualification
    cpu.exit_interruption_info = Word(32, 0)  # bit 31: not valid
    cpu.exit_idt_vectoring_info = Word(32, 0)


def interruption(vector: int, kind: int, *, error_code: bool = False) -> Word:
    """Interruption information: valid, of a vector and a type."""
    return Word(32, VALID | kind << 8 | vector | (ERROR_CODE_VALID if error_code else 0))


def exception_exits(cpu: Vmx, vector: Vector, error_code: Word | None) -> Word:
    """Whether the exception bitmap, or for #PF the error code too, makes an exception exit (width 1)."""
    selected = cpu.exception_bitmap[vector.number]
    if vector == PF and error_code is not None:
        matches = error_code.zero_extend(32) & cpu.page_fault_mask == cpu.page_fault_match
        selected = ite(matches, selected, ~selected)
    return cpu.non_root & selected


def exit_of_exception(cpu: Vmx, fault: Fault) -> None:
    """Turn a fault into a VM exit where the controls say so.

    A fault of IRET comes after NMIs were unblocked, and bit 12 of the interruption information tells (SDM vol. 3C,
    "Information for VM Exits Due to Vectored Events").

    Raises:
        Fault: the VM exit.
    """
    vector, code = fault.vector, fault.error_code
    if vector == VM_EXIT or not exception_exits(cpu, vector, code):
        return
    described = interruption(vector.number, HARDWARE_EXCEPTION, error_code=code is not None)
    if cpu._unblocked is not None:
        described = described | concat(Word(19, 0), cpu._unblocked, Word(12, 0))
    information = {"interruption_info": described}
    if code is not None:
        information["interruption_error"] = code.zero_extend(32)
    qualification = Word(64, 0)
    if vector == DB:
        qualification = Word(64, 1 << 13)  # BD: the only cause in this model is DR7.GD
    elif vector == PF:
        qualification = cpu.undefined("page-fault address", 64)
    # The length is defined for software exceptions, and while software's events are delivered, alone.
    if cpu._vectoring is None or cpu._vectoring[0] not in SOFTWARE:
        information["instruction_length"] = cpu._start.exit_instruction_length
    exit_of(cpu, EXCEPTION_OR_NMI, qualification, information, unblocked=cpu._unblocked, memory=fault.memory)


def exit_of_software_exception(cpu: Vmx, vector: int) -> None:
    """INT1, INT3 and INTO exit where the exception bitmap says so.

    Raises:
        Fault: the VM exit.
    """
    known = {DB.number: DB, BP.number: BP, OF.number: OF}[vector]
    kind = PRIVILEGED_SOFTWARE_EXCEPTION if known is DB else SOFTWARE_EXCEPTION
    if exception_exits(cpu, known, None):
        exit_of(cpu, EXCEPTION_OR_NMI, 0, {"interruption_info": interruption(vector, kind)})
    cpu._vectoring = kind, Word(8, vector), None
