"""#VMEXIT: raised as a fault of a vector of its own, with what the VMCB tells of it recorded in the state.

The state of the trap is the one before the instruction, as nearly all #VMEXITs are fault-like, with EXITCODE, EXITINFO1
and EXITINFO2, EXITINTINFO and the next rIP (APM vol. 2, "#VMEXIT"); the fault's error code is the exit code.
"""

from __future__ import annotations

from typing import Final, NoReturn

from popek.architectures.x86.exceptions import BP, BR, OF, PF
from popek.kernel.outcome import Fault, Vector
from popek.kernel.words import Word, ite

from .state import Svm

VM_EXIT: Final = Vector("#VMEXIT", 256, 16)

CR_READ, CR_WRITE, DR_READ, DR_WRITE, EXCEPTION = 0x00, 0x10, 0x20, 0x30, 0x40
CR_WRITE_TRAP, EFER_WRITE_TRAP = 0x90, 0x8F
CR0_SEL_WRITE, IOIO, MSR, TASK_SWITCH = 0x65, 0x7B, 0x7C, 0x7D

# Types of an event (APM vol. 2, "Event Injection").
HARDWARE_EXCEPTION, SOFTWARE_INTERRUPT = 3, 4
VALID: Final = 1 << 31

WITH_NEXT_RIP: Final = (BP.number, OF.number, BR.number)
"""Exceptions that INT3, INTO and BOUND cause, whose #VMEXIT tells the next rIP as an instruction's own does."""


def exit_of(
    cpu: Svm,
    code: int,
    info1: Word | int = 0,
    info2: Word | int = 0,
    *,
    next_rip: bool = True,
    memory: bool = False,
) -> NoReturn:
    """Leave guest mode.

    Args:
        code: EXITCODE.
        info1, info2: EXITINFO1 and EXITINFO2, up to 64 bits.
        next_rip: the exit is that of an instruction; for every other the next rIP is 0.
        memory: the cause is a storage reference.

    Raises:
        Fault: always.
    """
    cpu._words.update(cpu._start._words)
    cpu._memories.update(cpu._start._memories)
    _tell(cpu, code, _wide(info1), _wide(info2))
    told = cpu.features.next_rip_save & Word(1, int(next_rip))
    cpu.exit_next_rip = ite(told, cpu._next.zero_extend(64), Word(64, 0))
    if cpu._vectoring is not None:
        kind, vector = cpu._vectoring
        cpu.exit_int_info = Word(64, VALID | kind << 8) | vector.zero_extend(64)
    raise Fault(VM_EXIT, code, memory=memory, keeps=True)


def trap_like_exit_of(cpu: Svm, code: int) -> NoReturn:
    """Leave guest mode after the instruction: what it did stands, and CS:EIP is that of the next.

    Raises:
        Fault: always.
    """
    _tell(cpu, code, Word(64, 0), Word(64, 0))
    cpu.exit_next_rip = Word(64, 0)
    raise Fault(VM_EXIT, code, keeps=True)


def assisted(cpu: Svm, information: Word) -> Word:
    """Information that only a processor with decode assists gives (64 bits)."""
    return ite(cpu.features.decode_assists, information.zero_extend(64), Word(64, 0))


def _wide(value: Word | int) -> Word:
    return Word(64, value) if isinstance(value, int) else value.zero_extend(64)


def _tell(cpu: Svm, code: int, info1: Word, info2: Word) -> None:
    cpu.exit_code, cpu.exit_info1, cpu.exit_info2 = Word(64, code), info1, info2
    cpu.exit_int_info = Word(64, 0)  # bit 31: no event was being delivered


def exit_of_exception(cpu: Svm, fault: Fault) -> None:
    """Turn a fault into a #VMEXIT where the VMCB intercepts the vector (APM vol. 2, "Exception Intercepts").

    EXITINFO1 is the error code; of a page fault EXITINFO2 is the address, which CR2 does not get.

    Raises:
        Fault: the #VMEXIT.
    """
    vector, code = fault.vector, fault.error_code
    if vector == VM_EXIT or not cpu.guest_mode & cpu.exceptions.value[vector.number]:
        return
    info1 = Word(64, 0) if code is None else code.zero_extend(64)
    info2 = cpu.undefined("page-fault address", 64) if vector == PF else Word(64, 0)
    exit_of(
        cpu,
        EXCEPTION + vector.number,
        info1,
        info2,
        next_rip=vector.number in WITH_NEXT_RIP,
        memory=fault.memory,
    )


def exit_of_software_exception(cpu: Svm, vector: int) -> None:
    """INT3 and INTO leave where the VMCB intercepts #BP and #OF; INT1 has an intercept of its own.

    Raises:
        Fault: the #VMEXIT.
    """
    if vector in WITH_NEXT_RIP and cpu.guest_mode & cpu.exceptions.value[vector]:
        exit_of(cpu, EXCEPTION + vector)
    cpu._vectoring = HARDWARE_EXCEPTION, Word(8, vector)
