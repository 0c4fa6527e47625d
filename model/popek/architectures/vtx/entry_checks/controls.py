"""VM-execution control fields (E.2.1.1) and VM-exit control fields (E.2.1.2)."""

from __future__ import annotations

from popek.architectures.vtx.capabilities import ONES64
from popek.architectures.vtx.view import fixed, last_byte, off, on, placed

from .faulty_bits import fixed_bits
from .registry import (
    EPT,
    UNRESTRICTED,
    CheckGroup,
    Condition,
    checker,
    control,
    fails,
    no_check,
    not_modelled,
)

check = checker(CheckGroup("controls", "VM-execution and VM-exit control fields", fails(7), stage=1))

# -- what the processor allows -----------------------------------------------------------

_BITS = "{{{0}}} has bits that this processor does not allow (must be 1: {{{1}_must}}, may be 1: {{{1}_may}})"
_MAY = "{{{0}}} has bits that this processor does not allow (may be 1: {{{1}_may}})"

check(
    "CTL-CAP-01",
    (),
    lambda v: fixed(v.PIN_CONTROLS, v.cap.pin_must, v.cap.pin_may),
    _BITS.format("PIN_CONTROLS", "pin"),
    note=fixed_bits("PIN_CONTROLS", "pin_must", "pin_may"),
)
check(
    "CTL-CAP-02",
    (),
    lambda v: fixed(v.PRIMARY_PROC_CONTROLS, v.cap.pri_must, v.cap.pri_may),
    _BITS.format("PRIMARY_PROC_CONTROLS", "pri"),
    note=fixed_bits("PRIMARY_PROC_CONTROLS", "pri_must", "pri_may"),
)
check(
    "CTL-CAP-03",
    (control("pri", 31),),
    lambda v: fixed(v.SECONDARY_PROC_CONTROLS, 0, v.cap.sec_may),
    _MAY.format("SECONDARY_PROC_CONTROLS", "sec"),
    note=fixed_bits("SECONDARY_PROC_CONTROLS", "", "sec_may"),
)
check(
    "CTL-CAP-04",
    (control("pri", 17),),
    lambda v: fixed(v.TERTIARY_PROC_CONTROLS, 0, v.cap.ter_may),
    _MAY.format("TERTIARY_PROC_CONTROLS", "ter"),
    note=fixed_bits("TERTIARY_PROC_CONTROLS", "", "ter_may"),
)
check(
    "CTL-CAP-05",
    (),
    lambda v: fixed(v.EXIT_CONTROLS, v.cap.exit_must, v.cap.exit_may),
    _BITS.format("EXIT_CONTROLS", "exit"),
    note=fixed_bits("EXIT_CONTROLS", "exit_must", "exit_may"),
)
check(
    "CTL-CAP-06",
    (control("exit", 31),),
    lambda v: fixed(v.SECONDARY_EXIT_CONTROLS, 0, v.cap.exit2_may),
    _MAY.format("SECONDARY_EXIT_CONTROLS", "exit2"),
    note=fixed_bits("SECONDARY_EXIT_CONTROLS", "", "exit2_may"),
)
check(
    "CTL-CAP-07",
    (),
    lambda v: fixed(v.ENTRY_CONTROLS, v.cap.entry_must, v.cap.entry_may),
    _BITS.format("ENTRY_CONTROLS", "entry"),
    note=fixed_bits("ENTRY_CONTROLS", "entry_must", "entry_may"),
)
check(
    "CTL-CAP-08",
    (control("sec", 13),),
    lambda v: fixed(v.VMFUNC_CONTROLS, 0, v.cap.vmfunc_may),
    _MAY.format("VMFUNC_CONTROLS", "vmfunc"),
    note=fixed_bits("VMFUNC_CONTROLS", "", "vmfunc_may"),
)
no_check("CTL-CAP-09", "a law of the capability MSRs themselves; `capability_defects` tests it")
no_check("CTL-VMFUNC-01", "the same condition as CTL-CAP-08")

# -- fields and relations ----------------------------------------------------------------

_PLACED = "{{{0}}} must have bits {1}:0 clear and fit the processor's physical-address width ({{maxphyaddr}})"


def _page(check_id: str, gates: tuple[Condition, ...], field: str) -> None:
    check(check_id, gates, lambda v: placed(v, getattr(v, field)), _PLACED.format(field, 11))


check(
    "CTL-CR3T-01",
    (),
    lambda v: v.cap.cr3_targets >= v.CR3_TARGET_COUNT,
    "{CR3_TARGET_COUNT} is more than this processor supports ({cr3_targets})",
)
_page("CTL-IOBM-01", (control("pri", 25),), "IO_BITMAP_A")
_page("CTL-IOBM-02", (control("pri", 25),), "IO_BITMAP_B")
no_check("CTL-IOBM-03", "with I/O bitmaps in use, unconditional I/O exiting is ignored")
_page("CTL-MSRBM-01", (control("pri", 28),), "MSR_BITMAP")

TPR_SHADOW = control("pri", 21)
NO_TPR_SHADOW = control("pri", 21, 0)
NO_VID = control("sec", 9, 0)

_page("CTL-TPR-01", (TPR_SHADOW,), "VIRTUAL_APIC_ADDR")
check(
    "CTL-TPR-02",
    (TPR_SHADOW, NO_VID),
    lambda v: v.TPR_THRESHOLD & 0xFFFF_FFF0 == 0,
    "{TPR_THRESHOLD} must have bits 31:4 clear",
)
check(
    "CTL-TPR-03",
    (
        TPR_SHADOW,
        NO_VID,
        control("sec", 0, 0),
        # A threshold of 0 is below nothing, whatever VTPR is.
        Condition("TPR_THRESHOLD[3:0] is not 0", lambda v: v.TPR_THRESHOLD & 0xF != 0),
    ),
    lambda v: v.read(v.VIRTUAL_APIC_ADDR + 0x80, 1) >> 4 >= v.TPR_THRESHOLD & 0xF,
    "{TPR_THRESHOLD} is above bits 7:4 of VTPR in the virtual-APIC page ({VIRTUAL_APIC_ADDR})",
)
_NEEDS_TPR = "{{{0}}}: {1} needs the control 'use TPR shadow' (primary[21])"
for _check_id, _word, _bit, _field, _title in (
    ("CTL-TPR-04", "sec", 4, "SECONDARY_PROC_CONTROLS", "'virtualize x2APIC mode' (bit 4)"),
    ("CTL-TPR-05", "sec", 8, "SECONDARY_PROC_CONTROLS", "'APIC-register virtualization' (bit 8)"),
    ("CTL-TPR-06", "sec", 9, "SECONDARY_PROC_CONTROLS", "'virtual-interrupt delivery' (bit 9)"),
    ("CTL-TPR-07", "ter", 4, "TERTIARY_PROC_CONTROLS", "'IPI virtualization' (bit 4)"),
):
    check(
        _check_id,
        (NO_TPR_SHADOW,),
        lambda v, word=_word, bit=_bit: off(getattr(v, word), bit),
        _NEEDS_TPR.format(_field, _title),
    )
check(
    "CTL-NMI-01",
    (control("pin", 3, 0),),
    lambda v: off(v.PIN_CONTROLS, 5),
    "{PIN_CONTROLS}: 'virtual NMIs' (bit 5) needs 'NMI exiting' (bit 3)",
)
check(
    "CTL-NMI-02",
    (control("pin", 5, 0),),
    lambda v: off(v.PRIMARY_PROC_CONTROLS, 22),
    "{PRIMARY_PROC_CONTROLS}: 'NMI-window exiting' (bit 22) needs 'virtual NMIs' (pin[5])",
)
_page("CTL-APICACC-01", (control("sec", 0),), "APIC_ACCESS_ADDR")
check(
    "CTL-X2APIC-01",
    (control("sec", 4),),
    lambda v: off(v.sec, 0),
    "{SECONDARY_PROC_CONTROLS}: 'virtualize x2APIC mode' (bit 4) excludes 'virtualize APIC accesses' (bit 0)",
)
check(
    "CTL-VID-01",
    (control("sec", 9),),
    lambda v: on(v.PIN_CONTROLS, 0),
    "{PIN_CONTROLS}: 'virtual-interrupt delivery' (secondary[9]) needs 'external-interrupt exiting' (bit 0)",
)

POSTED = control("pin", 7)

check(
    "CTL-PI-01",
    (POSTED,),
    lambda v: on(v.sec, 9),
    "{PIN_CONTROLS}: 'process posted interrupts' (bit 7) needs 'virtual-interrupt delivery' (secondary[9])",
)
check(
    "CTL-PI-02",
    (POSTED,),
    lambda v: on(v.EXIT_CONTROLS, 15),
    "{EXIT_CONTROLS}: 'process posted interrupts' (pin[7]) needs 'acknowledge interrupt on exit' (bit 15)",
)
check(
    "CTL-PI-03",
    (POSTED,),
    lambda v: v.POSTED_INTR_NOTIFY_VECTOR & 0xFF00 == 0,
    "{POSTED_INTR_NOTIFY_VECTOR} must have bits 15:8 clear",
)
check(
    "CTL-PI-04",
    (POSTED,),
    lambda v: placed(v, v.POSTED_INTR_DESC_ADDR, 0x3F),
    _PLACED.format("POSTED_INTR_DESC_ADDR", 5),
)
check("CTL-VPID-01", (control("sec", 5),), lambda v: v.VPID != 0, "{VPID}: VPID 0 belongs to the host")

# -- EPT and what builds on it -----------------------------------------------------------

check(
    "CTL-EPT-01",
    (EPT,),
    lambda v: (
        ((v.EPTP & 7 == 0) & (v.cap.ept & 1 << 8 != 0)) | ((v.EPTP & 7 == 6) & (v.cap.ept & 1 << 14 != 0))
    ),
    "{EPTP}: memory type in bits 2:0 must be 0 (UC) or 6 (WB), as the processor supports ({ept})",
)
check(
    "CTL-EPT-02",
    (EPT,),
    lambda v: (
        ((v.EPTP & 0x38 == 0x18) & (v.cap.ept & 1 << 6 != 0))
        | ((v.EPTP & 0x38 == 0x20) & (v.cap.ept & 1 << 7 != 0))
    ),
    "{EPTP}: page-walk length minus 1 in bits 5:3 must be 3 or 4, as the processor supports ({ept})",
)
check(
    "CTL-EPT-03",
    (EPT, Condition("EPT_VPID_CAP[21] (accessed and dirty flags) = 0", lambda v: v.cap.ept & 1 << 21 == 0)),
    lambda v: off(v.EPTP, 6),
    "{EPTP}: accessed and dirty flags for EPT (bit 6) are not supported",
)
check(
    "CTL-EPT-04",
    (EPT, Condition("EPT_VPID_CAP[23] (supervisor shadow stacks) = 0", lambda v: v.cap.ept & 1 << 23 == 0)),
    lambda v: off(v.EPTP, 7),
    "{EPTP}: supervisor shadow-stack control (bit 7) is not supported",
)
check(
    "CTL-EPT-05",
    (EPT,),
    lambda v: placed(v, v.EPTP, 0xF00),
    "{EPTP} must have bits 11:8 clear and fit the processor's physical-address width ({maxphyaddr})",
)
_NEEDS_EPT = "{{{0}}}: {1} needs 'enable EPT' (secondary[1])"


def _needs_ept(check_id: str, gate: Condition, field: str, title: str) -> None:
    check(check_id, (gate,), lambda v: on(v.sec, 1), _NEEDS_EPT.format(field, title))


_needs_ept("CTL-EPT-06", UNRESTRICTED, "SECONDARY_PROC_CONTROLS", "'unrestricted guest' (bit 7)")
_needs_ept(
    "CTL-EPT-07", control("sec", 22), "SECONDARY_PROC_CONTROLS", "'mode-based execute control' (bit 22)"
)
_needs_ept("CTL-PML-01", control("sec", 17), "SECONDARY_PROC_CONTROLS", "'enable PML' (bit 17)")
_page("CTL-PML-02", (control("sec", 17),), "PML_ADDRESS")
no_check("CTL-PML-03", "PML without accessed and dirty flags logs nothing, but enters")
_needs_ept(
    "CTL-SPP-01", control("sec", 23), "SECONDARY_PROC_CONTROLS", "'sub-page write permissions' (bit 23)"
)
_page("CTL-SPP-02", (control("sec", 23),), "SPPTP")

EPTP_SWITCHING = Condition("VMFUNC_CONTROLS[0] (EPTP switching) = 1", lambda v: v.VMFUNC_CONTROLS & 1 != 0)

check(
    "CTL-VMFUNC-02",
    (control("sec", 13), EPTP_SWITCHING),
    lambda v: on(v.sec, 1),
    _NEEDS_EPT.format("VMFUNC_CONTROLS", "'EPTP switching' (bit 0)"),
)
_page("CTL-VMFUNC-03", (control("sec", 13), EPTP_SWITCHING), "EPTP_LIST_ADDR")
_page("CTL-PASID-01", (control("sec", 21),), "LOW_PASID_DIR")
_page("CTL-PASID-02", (control("sec", 21),), "HIGH_PASID_DIR")
_page("CTL-SHADOW-01", (control("sec", 14),), "VMREAD_BITMAP")
_page("CTL-SHADOW-02", (control("sec", 14),), "VMWRITE_BITMAP")
_page("CTL-VE-01", (control("sec", 18),), "VE_INFO_ADDR")
check(
    "CTL-PT-01",
    (control("sec", 24),),
    lambda v: on(v.ENTRY_CONTROLS, 18) & on(v.EXIT_CONTROLS, 25) & on(v.sec, 1),
    "'Intel PT uses guest physical addresses' (secondary[24]) needs 'load IA32_RTIT_CTL' (entry[18]), 'clear "
    "IA32_RTIT_CTL' (exit[25]) and 'enable EPT' (secondary[1]): {ENTRY_CONTROLS}, {EXIT_CONTROLS}, "
    "{SECONDARY_PROC_CONTROLS}",
)
check("CTL-TSCM-01", (control("sec", 25),), lambda v: v.TSC_MULTIPLIER != 0, "{TSC_MULTIPLIER}: 0 is refused")

# -- tertiary controls -------------------------------------------------------------------

_needs_ept("CTL-HLAT-01", control("ter", 1), "TERTIARY_PROC_CONTROLS", "'enable HLAT' (bit 1)")
check(
    "CTL-HLAT-02",
    (control("ter", 1),),
    lambda v: placed(v, v.HLATP, 0xFE7),
    "{HLATP} must have bits 2:0 and 11:5 clear and fit the processor's physical-address width ({maxphyaddr})",
)
_needs_ept("CTL-HLAT-03", control("ter", 2), "TERTIARY_PROC_CONTROLS", "'EPT paging-write control' (bit 2)")
_needs_ept("CTL-HLAT-04", control("ter", 3), "TERTIARY_PROC_CONTROLS", "'guest-paging verification' (bit 3)")
no_check("CTL-HLAT-05", "a prefix size above 52 switches HLAT off; it is not tested at entry")
check(
    "CTL-IPIV-01",
    (control("ter", 4),),
    lambda v: placed(v, v.PID_POINTER_TABLE, 7),
    _PLACED.format("PID_POINTER_TABLE", 2),
)
check(
    "CTL-IPIV-02",
    (control("ter", 4),),
    lambda v: placed(v, v.PID_POINTER_TABLE + (v.LAST_PID_POINTER_INDEX << 3) & ONES64, 0),
    "{PID_POINTER_TABLE} + 8 * {LAST_PID_POINTER_INDEX} is beyond the physical-address width ({maxphyaddr})",
)
check(
    "CTL-APICT-01",
    (control("ter", 8),),
    lambda v: (
        on(v.sec, 9)
        & off(v.pri, 12)
        & (v.VIRTUAL_TIMER_VECTOR >= 16)
        & (v.VIRTUAL_TIMER_VECTOR & 0xFF00 == 0)
    ),
    "'APIC-timer virtualization' (tertiary[8]) needs virtual-interrupt delivery, no RDTSC exiting and a "
    "vector of 16 to 255: {SECONDARY_PROC_CONTROLS}, {PRIMARY_PROC_CONTROLS}, {VIRTUAL_TIMER_VECTOR}",
    certainty="may",
)
no_check("CTL-NOCHK-01", "any value of these fields is accepted")
no_check("CTL-NOCHK-02", "only CTL-CAP-03 looks at these bits")
no_check("CTL-NOCHK-03", "only CTL-CAP-02 looks at these bits")
no_check("CTL-NOCHK-04", "only the rows of the capability MSRs look at these bits")
no_check("CTL-NOCHK-05", "no manual or source that was read names a condition of these fields")
not_modelled("CTL-SEAM-01", "VM entry in SEAM root operation is not described where VM entry is")
no_check("EXIT-10", "what a VM exit saves or clears asks nothing at VM entry")
no_check("ENTRY-06", "only CTL-CAP-07 looks at this bit")

# -- VM-exit controls --------------------------------------------------------------------

check(
    "EXIT-01",
    (control("pin", 6, 0),),
    lambda v: off(v.EXIT_CONTROLS, 22),
    "{EXIT_CONTROLS}: 'save VMX-preemption timer value' (bit 22) needs the preemption timer (pin[6])",
)


def _area(first: str, second: str, name: str) -> None:
    """The two checks of an MSR area: where it starts, and where it ends."""
    address, count = f"{name}_ADDR", f"{name}_COUNT"
    gates = (Condition(f"{count} > 0", lambda v: getattr(v, count) != 0),)
    check(first, gates, lambda v: placed(v, getattr(v, address), 0xF), _PLACED.format(address, 3))
    check(
        second,
        gates,
        lambda v: placed(v, last_byte(getattr(v, address), getattr(v, count)), 0),
        f"the {{{count}}} entries at {{{address}}} end beyond the physical-address width ({{maxphyaddr}})",
    )


_area("EXIT-02", "EXIT-03", "EXIT_MSR_STORE")
_area("EXIT-04", "EXIT-05", "EXIT_MSR_LOAD")
check(
    "EXIT-06",
    (),
    lambda v: (
        (v.cap.msr_list_limit >= v.EXIT_MSR_STORE_COUNT)
        & (v.cap.msr_list_limit >= v.EXIT_MSR_LOAD_COUNT)
        & (v.cap.msr_list_limit >= v.ENTRY_MSR_LOAD_COUNT)
    ),
    "an MSR area has more entries than the processor recommends ({msr_list_limit}): {EXIT_MSR_STORE_COUNT}, "
    "{EXIT_MSR_LOAD_COUNT}, {ENTRY_MSR_LOAD_COUNT}",
    certainty="warning",
)
no_check("EXIT-07", "entries of the VM-exit areas matter at VM exit only")


def entry_area(first: str, second: str) -> None:
    """Register the checks of the VM-entry MSR-load area, which the manual lists with the entry controls."""
    _area(first, second, "ENTRY_MSR_LOAD")
