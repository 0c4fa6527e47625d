"""Guest segment registers: selectors, bases, limits and access rights (E.3.1.2)."""

from __future__ import annotations

from popek.architectures.vtx.view import SEGMENTS, Value, View, canonical, implies, off, on

from .host_state import CANONICAL
from .registry import (
    FRED,
    IA32E,
    INTEL64,
    NOT_UNRESTRICTED,
    NOT_V8086,
    V8086,
    CheckGroup,
    Condition,
    checker,
    no_check,
    refuses,
)

check = checker(CheckGroup("guest-segments", "Guest segment registers", refuses(0), stage=2))


def _usable(register: str) -> Condition:
    name = f"{register.lower()}_usable"
    return Condition(f"{register} is usable", lambda v: getattr(v, name))


USABLE = {register: _usable(register) for register in (*SEGMENTS, "LDTR")}


def _rights(register: str) -> str:
    return f"GUEST_{register}_ACCESS_RIGHTS"


def _rpl(v: View, register: str) -> Value:
    return getattr(v, f"GUEST_{register}_SELECTOR") & 3


def _dpl(v: View, register: str) -> Value:
    return getattr(v, _rights(register)) >> 5 & 3


# -- selectors, bases, limits ------------------------------------------------------------

check(
    "GUEST-SEL-01",
    (),
    lambda v: off(v.GUEST_TR_SELECTOR, 2),
    "{GUEST_TR_SELECTOR} must have TI (bit 2) clear",
)
check(
    "GUEST-SEL-02",
    (USABLE["LDTR"],),
    lambda v: off(v.GUEST_LDTR_SELECTOR, 2),
    "{GUEST_LDTR_SELECTOR} must have TI (bit 2) clear",
)
check(
    "GUEST-SEL-03",
    (NOT_V8086, NOT_UNRESTRICTED),
    lambda v: _rpl(v, "SS") == _rpl(v, "CS"),
    "{GUEST_SS_SELECTOR} and {GUEST_CS_SELECTOR} must have the same RPL (bits 1:0)",
)
for _number, _register in enumerate(SEGMENTS, 1):
    check(
        f"GUEST-BASE-{_number:02}",
        (V8086,),
        lambda v, r=_register: getattr(v, f"GUEST_{r}_BASE") == getattr(v, f"GUEST_{r}_SELECTOR") << 4,
        f"{{GUEST_{_register}_BASE}} must be 16 times {{GUEST_{_register}_SELECTOR}} in virtual-8086 mode",
    )
    check(
        f"GUEST-LIM-{_number:02}",
        (V8086,),
        lambda v, r=_register: getattr(v, f"GUEST_{r}_LIMIT") == 0xFFFF,
        f"{{GUEST_{_register}_LIMIT}} must be 0xffff in virtual-8086 mode",
    )
    check(
        f"GUEST-AR-V86-{_number:02}",
        (V8086,),
        lambda v, r=_register: getattr(v, _rights(r)) == 0xF3,
        f"{{GUEST_{_register}_ACCESS_RIGHTS}} must be 0xf3 in virtual-8086 mode",
    )
for _check_id, _register, _gates in (
    ("GUEST-BASE-07", "TR", (INTEL64,)),
    ("GUEST-BASE-08", "FS", (INTEL64,)),
    ("GUEST-BASE-09", "GS", (INTEL64,)),
    ("GUEST-BASE-10", "LDTR", (INTEL64, USABLE["LDTR"])),
):
    check(
        _check_id,
        _gates,
        lambda v, field=f"GUEST_{_register}_BASE": canonical(v, getattr(v, field)),
        CANONICAL.format(f"GUEST_{_register}_BASE"),
    )
for _check_id, _register, _gates in (
    ("GUEST-BASE-11", "CS", (INTEL64,)),
    ("GUEST-BASE-12", "SS", (INTEL64, USABLE["SS"])),
    ("GUEST-BASE-13", "DS", (INTEL64, USABLE["DS"])),
    ("GUEST-BASE-14", "ES", (INTEL64, USABLE["ES"])),
):
    check(
        _check_id,
        _gates,
        lambda v, field=f"GUEST_{_register}_BASE": getattr(v, field) >> 32 == 0,
        f"{{GUEST_{_register}_BASE}} must have bits 63:32 clear",
    )

# -- access rights, the rows that all registers share ------------------------------------

_RESERVED = 0xFFFE_0F00  # bits 31:17 and 11:8
_G = 1 << 15


def _present(check_id: str, gates: tuple[Condition, ...], register: str) -> None:
    field = _rights(register)
    check(check_id, gates, lambda v: on(getattr(v, field), 7), f"{{{field}}} must have P (bit 7) set")


def _reserved(check_id: str, gates: tuple[Condition, ...], register: str) -> None:
    field = _rights(register)
    check(
        check_id,
        gates,
        lambda v: getattr(v, field) & _RESERVED == 0,
        f"{{{field}}} must have bits 31:17 and 11:8 clear",
    )


def _granularity(low_id: str, high_id: str, gates: tuple[Condition, ...], register: str) -> None:
    rights, limit = _rights(register), f"GUEST_{register}_LIMIT"
    check(
        low_id,
        gates,
        lambda v: (getattr(v, limit) & 0xFFF == 0xFFF) | (getattr(v, rights) & _G == 0),
        f"{{{rights}}}: G (bit 15) must be 0 because bits 11:0 of {{{limit}}} are not all 1",
    )
    check(
        high_id,
        gates,
        lambda v: (getattr(v, limit) & 0xFFF0_0000 == 0) | (getattr(v, rights) & _G != 0),
        f"{{{rights}}}: G (bit 15) must be 1 because bits 31:20 of {{{limit}}} are not all 0",
    )


def _code_or_data(check_id: str, gates: tuple[Condition, ...], register: str) -> None:
    field = _rights(register)
    check(check_id, gates, lambda v: on(getattr(v, field), 4), f"{{{field}}} must have S (bit 4) set")


def _system(check_id: str, gates: tuple[Condition, ...], register: str) -> None:
    field = _rights(register)
    check(check_id, gates, lambda v: off(getattr(v, field), 4), f"{{{field}}} must have S (bit 4) clear")


# -- CS ----------------------------------------------------------------------------------

_ACCESSED_CODE = 9  # the bits that types 9, 11, 13 and 15 have in common

check(
    "GUEST-AR-CS-01",
    (NOT_V8086,),
    lambda v: (v.cs_type & _ACCESSED_CODE == _ACCESSED_CODE) | ((v.cs_type == 3) & v.ug),
    "{GUEST_CS_ACCESS_RIGHTS}: type (bits 3:0) must be 9, 11, 13 or 15 (3 too for an unrestricted guest)",
)
_code_or_data("GUEST-AR-CS-02", (NOT_V8086,), "CS")
check(
    "GUEST-AR-CS-03",
    (NOT_V8086, Condition("CS type = 3", lambda v: v.cs_type == 3)),
    lambda v: _dpl(v, "CS") == 0,
    "{GUEST_CS_ACCESS_RIGHTS}: DPL (bits 6:5) must be 0 for type 3",
)
check(
    "GUEST-AR-CS-04",
    (NOT_V8086, Condition("CS type is 9 or 11", lambda v: v.cs_type & 0xD == 9)),
    lambda v: _dpl(v, "CS") == _dpl(v, "SS"),
    "DPL (bits 6:5) of {GUEST_CS_ACCESS_RIGHTS} must equal that of {GUEST_SS_ACCESS_RIGHTS}",
)
check(
    "GUEST-AR-CS-05",
    (NOT_V8086, Condition("CS type is 13 or 15", lambda v: v.cs_type & 0xD == 13)),
    lambda v: _dpl(v, "CS") <= _dpl(v, "SS"),
    "DPL (bits 6:5) of {GUEST_CS_ACCESS_RIGHTS} must not be above that of {GUEST_SS_ACCESS_RIGHTS}",
)
_present("GUEST-AR-CS-06", (NOT_V8086,), "CS")
_reserved("GUEST-AR-CS-07", (NOT_V8086,), "CS")
check(
    "GUEST-AR-CS-08",
    (NOT_V8086, IA32E, Condition("CS.L = 1", lambda v: v.GUEST_CS_ACCESS_RIGHTS & 0x2000 != 0)),
    lambda v: off(v.GUEST_CS_ACCESS_RIGHTS, 14),
    "{GUEST_CS_ACCESS_RIGHTS}: D/B (bit 14) must be 0 because L (bit 13) is 1",
)
_granularity("GUEST-AR-CS-09", "GUEST-AR-CS-10", (NOT_V8086,), "CS")
no_check("GUEST-AR-CS-11", "the other CS rows apply whether CS is unusable or not")

# -- SS ----------------------------------------------------------------------------------

_SS = (NOT_V8086, USABLE["SS"])

check(
    "GUEST-AR-SS-01",
    _SS,
    lambda v: v.GUEST_SS_ACCESS_RIGHTS & 0xB == 3,
    "{GUEST_SS_ACCESS_RIGHTS}: type (bits 3:0) must be 3 or 7",
)
_code_or_data("GUEST-AR-SS-02", _SS, "SS")
check(
    "GUEST-AR-SS-03",
    (NOT_V8086, NOT_UNRESTRICTED),
    lambda v: _dpl(v, "SS") == _rpl(v, "SS"),
    "DPL (bits 6:5) of {GUEST_SS_ACCESS_RIGHTS} must equal RPL (bits 1:0) of {GUEST_SS_SELECTOR}",
)
check(
    "GUEST-AR-SS-04",
    (
        NOT_V8086,
        Condition("CS type = 3 or CR0.PE = 0", lambda v: (v.cs_type == 3) | (v.GUEST_CR0 & 1 == 0)),
    ),
    lambda v: _dpl(v, "SS") == 0,
    "{GUEST_SS_ACCESS_RIGHTS}: DPL (bits 6:5) must be 0 in real mode or with CS of type 3",
)
_present("GUEST-AR-SS-05", _SS, "SS")
_reserved("GUEST-AR-SS-06", _SS, "SS")
_granularity("GUEST-AR-SS-07", "GUEST-AR-SS-08", _SS, "SS")

# -- DS, ES, FS, GS ----------------------------------------------------------------------


def _conforming(register: str) -> Condition:
    field = _rights(register)
    return Condition(f"{register} type is 0 to 11", lambda v: getattr(v, field) & 0xC != 0xC)


def _data_register(register: str) -> None:
    gates, field, row = (NOT_V8086, USABLE[register]), _rights(register), f"GUEST-AR-{register}"
    check(
        f"{row}-01",
        gates,
        lambda v: on(getattr(v, field), 0),
        f"{{{field}}} must be accessed (type bit 0)",
    )
    check(
        f"{row}-02",
        gates,
        lambda v: getattr(v, field) & 0xA != 0x8,
        f"{{{field}}} is a code segment (bit 3 of the type) and must be readable (bit 1)",
    )
    _code_or_data(f"{row}-03", gates, register)
    check(
        f"{row}-04",
        (*gates, NOT_UNRESTRICTED, _conforming(register)),
        lambda v: _dpl(v, register) >= _rpl(v, register),
        f"DPL (bits 6:5) of {{{field}}} must not be below RPL (bits 1:0) of {{GUEST_{register}_SELECTOR}}",
    )
    _present(f"{row}-05", gates, register)
    _reserved(f"{row}-06", gates, register)
    _granularity(f"{row}-07", f"{row}-08", gates, register)


for _register in ("DS", "ES", "FS", "GS"):
    _data_register(_register)

# -- TR and LDTR -------------------------------------------------------------------------

check(
    "GUEST-AR-TR-01",
    (),
    lambda v: (
        (v.GUEST_TR_ACCESS_RIGHTS & 0xF == 11)
        | ((v.GUEST_TR_ACCESS_RIGHTS & 0xF == 3) & (v.ENTRY_CONTROLS & 0x200 == 0))
    ),
    "{GUEST_TR_ACCESS_RIGHTS}: type (bits 3:0) must be 11 (busy TSS), or 3 outside IA-32e mode",
)
_system("GUEST-AR-TR-02", (), "TR")
_present("GUEST-AR-TR-03", (), "TR")
_reserved("GUEST-AR-TR-04", (), "TR")
_granularity("GUEST-AR-TR-05", "GUEST-AR-TR-06", (), "TR")
check(
    "GUEST-AR-TR-07",
    (),
    lambda v: off(v.GUEST_TR_ACCESS_RIGHTS, 16),
    "{GUEST_TR_ACCESS_RIGHTS}: TR must be usable (bit 16 clear)",
)
_LDTR = (USABLE["LDTR"],)
check(
    "GUEST-AR-LDTR-01",
    _LDTR,
    lambda v: v.GUEST_LDTR_ACCESS_RIGHTS & 0xF == 2,
    "{GUEST_LDTR_ACCESS_RIGHTS}: type (bits 3:0) must be 2 (LDT)",
)
_system("GUEST-AR-LDTR-02", _LDTR, "LDTR")
_present("GUEST-AR-LDTR-03", _LDTR, "LDTR")
_reserved("GUEST-AR-LDTR-04", _LDTR, "LDTR")
_granularity("GUEST-AR-LDTR-05", "GUEST-AR-LDTR-06", _LDTR, "LDTR")

# -- FRED --------------------------------------------------------------------------------

check(
    "GUEST-AR-FRED-01",
    (FRED,),
    lambda v: (v.ss_dpl == 0) | (v.ss_dpl == 3),
    "{GUEST_SS_ACCESS_RIGHTS}: DPL (bits 6:5) must be 0 or 3 with CR4.FRED",
)
check(
    "GUEST-AR-FRED-02",
    (FRED,),
    lambda v: implies(v.ss_dpl == 0, on(v.GUEST_CS_ACCESS_RIGHTS, 13)),
    "{GUEST_CS_ACCESS_RIGHTS}: L (bit 13) must be 1 in ring 0 with CR4.FRED ({GUEST_SS_ACCESS_RIGHTS})",
)
check(
    "GUEST-AR-FRED-03",
    (FRED,),
    lambda v: implies(v.ss_dpl == 3, v.GUEST_RFLAGS & 0x3000 == 0),
    "{GUEST_RFLAGS}: IOPL (bits 13:12) must be 0 in ring 3 with CR4.FRED ({GUEST_SS_ACCESS_RIGHTS})",
)
