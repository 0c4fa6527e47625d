"""VM-entry control fields and event injection (E.2.1.3)."""

from __future__ import annotations

from popek.architectures.vtx.view import Decision, View, both, either, implies, off, on, one_of

from .controls import entry_area
from .registry import FRED, INJECTION, UNRESTRICTED, CheckGroup, Condition, checker, control, fails, no_check

check = checker(CheckGroup("entry-controls", "VM-entry control fields", fails(7), stage=1))

check(
    "ENTRY-01",
    (Condition("the processor is not in SMM", lambda v: not v.launch.in_smm),),
    lambda v: v.ENTRY_CONTROLS & 0xC00 == 0,
    "{ENTRY_CONTROLS}: 'entry to SMM' (bit 10) and 'deactivate dual-monitor treatment' (bit 11) need SMM",
)
check(
    "ENTRY-02",
    (),
    lambda v: v.ENTRY_CONTROLS & 0xC00 != 0xC00,
    "{ENTRY_CONTROLS}: 'entry to SMM' (bit 10) and 'deactivate dual-monitor treatment' (bit 11) are both 1",
)
entry_area("ENTRY-03", "ENTRY-04")
check(
    "ENTRY-05",
    (control("entry", 18),),
    lambda v: not v.launch.trace_enabled,
    "{ENTRY_CONTROLS}: 'load IA32_RTIT_CTL' (bit 18) while the processor traces (IA32_RTIT_CTL.TraceEn = 1)",
)

# -- event injection ---------------------------------------------------------------------

NMI = Condition("an NMI is injected", lambda v: v.injects_nmi)
EXCEPTION = Condition("a hardware exception is injected", lambda v: v.injects_exception)
OTHER = Condition("an event of type 7 is injected", lambda v: v.injects_other)
SOFTWARE = Condition(
    "a software interrupt or exception is injected",
    lambda v: (
        (v.ENTRY_INTR_INFO & 0x8000_0700 == 0x8000_0400)
        | (v.ENTRY_INTR_INFO & 0x8000_0700 == 0x8000_0500)
        | (v.ENTRY_INTR_INFO & 0x8000_0700 == 0x8000_0600)
    ),
)
REAL_MODE = Condition("guest CR0.PE = 0", lambda v: v.GUEST_CR0 & 1 == 0)
NOT_REAL = Condition(
    "the guest is not in unrestricted real mode",
    lambda v: (v.sec & 0x80 == 0) | (v.GUEST_CR0 & 1 != 0),
)
FIXED_ERROR_CODES = Condition("IA32_VMX_BASIC[56] = 0", lambda v: not v.cap.any_error_code)
DELIVERS = Condition("an error code is delivered", lambda v: v.ENTRY_INTR_INFO & 0x800 != 0)

_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})
_CONTROL_PROTECTION = 21


def _pushes_error_code(v: View) -> Decision:
    """Whether the vector is that of an exception with an error code; #CP is one on processors with CET."""
    vector = v.vector
    return either(one_of(vector, _ERROR_CODE), lambda: both(vector == _CONTROL_PROTECTION, lambda: v.cap.cet))


def _nested_exception(v: View) -> Decision:
    """Whether bit 13 is used as FRED has it, or not at all."""
    info = v.ENTRY_INTR_INFO
    return either(off(info, 13), lambda: (info & 0x700 == 0x300) & v.cap.fred)


def _instruction_length(v: View) -> Decision:
    length = v.ENTRY_INSTRUCTION_LENGTH
    return (length <= 15) & either(length != 0, lambda: v.cap.zero_length_injection)


check(
    "INJ-01",
    (INJECTION,),
    lambda v: v.ENTRY_INTR_INFO & 0x700 != 0x100,
    "{ENTRY_INTR_INFO}: type 1 (bits 10:8) is reserved",
)
check(
    "INJ-02",
    (
        INJECTION,
        Condition("guest CR4.FRED = 0", lambda v: either(v.GUEST_CR4 & 1 << 32 == 0, lambda: not v.cap.fred)),
        Condition("the processor has no monitor trap flag", lambda v: v.cap.pri_may & 1 << 27 == 0),
    ),
    lambda v: v.ENTRY_INTR_INFO & 0x700 != 0x700,
    "{ENTRY_INTR_INFO}: type 7 (bits 10:8) needs the monitor trap flag or FRED",
)
check("INJ-03", (NMI,), lambda v: v.vector == 2, "{ENTRY_INTR_INFO}: an NMI (type 2) has vector 2")
check(
    "INJ-04",
    (EXCEPTION,),
    lambda v: v.ENTRY_INTR_INFO & 0xE0 == 0,
    "{ENTRY_INTR_INFO}: a hardware exception (type 3) has a vector of at most 31",
)
check(
    "INJ-05",
    (OTHER,),
    # Controls are checked before the guest's CR4, which cannot have FRED on a processor without it.
    lambda v: either(
        v.vector == 0, lambda: both((v.vector <= 2) & (v.GUEST_CR4 & 1 << 32 != 0), lambda: v.cap.fred)
    ),
    "{ENTRY_INTR_INFO}: type 7 has vector 0 (pending MTF), with guest CR4.FRED also 1 or 2",
)
check(
    "INJ-06",
    (INJECTION, DELIVERS),
    lambda v: v.ENTRY_INTR_INFO & 0x700 == 0x300,
    "{ENTRY_INTR_INFO}: only a hardware exception (type 3) delivers an error code (bit 11)",
)
check(
    "INJ-07",
    (INJECTION, UNRESTRICTED, REAL_MODE),
    lambda v: off(v.ENTRY_INTR_INFO, 11),
    "{ENTRY_INTR_INFO}: no error code (bit 11) in real mode ({GUEST_CR0})",
)
check(
    "INJ-08",
    (EXCEPTION, NOT_REAL, FIXED_ERROR_CODES),
    lambda v: implies(_pushes_error_code(v), on(v.ENTRY_INTR_INFO, 11)),
    "{ENTRY_INTR_INFO}: this exception must deliver an error code (bit 11)",
)
check(
    "INJ-09",
    (EXCEPTION, NOT_REAL, FIXED_ERROR_CODES),
    lambda v: off(v.ENTRY_INTR_INFO, 11) | _pushes_error_code(v),
    "{ENTRY_INTR_INFO}: this exception has no error code (bit 11)",
)
check(
    "INJ-10",
    (INJECTION,),
    lambda v: (v.ENTRY_INTR_INFO & 0x7FFF_D000 == 0) & _nested_exception(v),
    "{ENTRY_INTR_INFO}: bits 30:12 must be 0 (bit 13 may be 1 for an exception on processors with FRED)",
)
check(
    "INJ-11",
    (INJECTION, DELIVERS),
    lambda v: v.ENTRY_EXCEPTION_ERROR_CODE & 0xFFFF_0000 == 0,
    "{ENTRY_EXCEPTION_ERROR_CODE} must have bits 31:16 clear (31:15 on processors without SGX)",
    doubt=lambda v: off(v.ENTRY_EXCEPTION_ERROR_CODE, 15),
)
check(
    "INJ-12",
    (SOFTWARE,),
    _instruction_length,
    "{ENTRY_INSTRUCTION_LENGTH}: a software event needs 1 to 15 (0 with IA32_VMX_MISC[30])",
)
check(
    "INJ-13",
    (
        OTHER,
        Condition("the vector is 1 or 2", lambda v: (v.vector == 1) | (v.vector == 2)),
        FRED,
    ),
    _instruction_length,
    "{ENTRY_INSTRUCTION_LENGTH}: SYSCALL and SYSENTER need 1 to 15 (0 with IA32_VMX_MISC[30])",
)
no_check("INJ-14", "the vector of interrupts and software events is free")
no_check("INJ-15", "without the valid bit the rest of the field means nothing")
