"""A text in every format that is read, and what may happen to a text; the values are ours.

Each text is one that somebody would paste: the VMCSs and VMCBs have a defect or two, so that a wrong reading shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pastes import OOPS, QEMU, VMCB, VMCS

XEN_VMCS: Final = """\
(XEN) d3v0 vmentry failure (reason 0x80000021): Invalid guest state (0)
(XEN) ************* VMCS Area **************
(XEN) *** Guest State ***
(XEN) CR0: actual=0x0000000080000033, shadow=0x0000000080000033, gh_mask=ffffffffffffffff
(XEN) CR4: actual=0x0000000000002660, shadow=0x0000000000000020, gh_mask=ffffffffffc8f860
(XEN) CR3 = 0x00000000002e9000
(XEN) PDPTE0 = 0x0000000000000000  PDPTE1 = 0x0000000000000000
(XEN) PDPTE2 = 0x0000000000000000  PDPTE3 = 0x0000000000000000
(XEN) RSP = 0x000000000ffffec0 (0x000000000ffffec0)  RIP = 0x0000000000209997 (0x0000000000209998)
(XEN) RFLAGS=0x00000297 (0x00000297)  DR7 = 0x0000000000000400
(XEN) Sysenter RSP=0000000000000000 CS:RIP=0000:0000000000000000
(XEN)        sel  attr  limit   base
(XEN)   CS: 0008 0c09b ffffffff 0000000000000000
(XEN)   DS: 0010 0c090 ffffffff 0000000000000000
(XEN)   SS: 0010 0c093 ffffffff 0000000000000000
(XEN)   ES: 0010 0c093 ffffffff 0000000000000000
(XEN)   FS: 0000 1c000 ffffffff 0000000000000000
(XEN)   GS: 0000 1c000 ffffffff 0000000000000000
(XEN) GDTR:            00000027 00000000003e13c0
(XEN) LDTR: 0000 10000 00000000 0000000000000000
(XEN) IDTR:            000002ff 00000000003e10a8
(XEN)   TR: 0018 0008b 00000068 00000000003e1040
(XEN) EFER(VMCS) = 0x0000000000000000  PAT = 0x0007040600070406
(XEN) PreemptionTimer = 0x00000000  SM Base = 0x00000000
(XEN) DebugCtl = 0x0000000000000000  DebugExceptions = 0x0000000000000000
(XEN) Interruptibility = 00000000  ActivityState = 00000000
(XEN) *** Host State ***
(XEN) RIP = 0xffff82d08031dd30 (vmx_asm_vmexit_handler)  RSP = 0xffff83009c057f70
(XEN) CS=e008 SS=0000 DS=0000 ES=0000 FS=0000 GS=0000 TR=e040
(XEN) FSBase=0000000000000000 GSBase=0000000000000000 TRBase=ffff82d08055e000
(XEN) GDTBase=ffff82d08042e000 IDTBase=ffff82d080559000
(XEN) CR0=0000000080050033 CR3=0000000172a67000 CR4=00000000003526e0
(XEN) Sysenter RSP=ffff83009c057fa0 CS:RIP=e008:ffff82d0803654b0
(XEN) EFER = 0x0000000000000d01  PAT = 0x0000050100070406
(XEN) *** Control State ***
(XEN) PinBased=0000003f CPUBased=b6a065fa SecondaryExec=000014eb
(XEN) EntryControls=000053ff ExitControls=000fefff
(XEN) ExceptionBitmap=00060002 PFECmask=00000000 PFECmatch=00000000
(XEN) VMEntry: intr_info=00000020 errcode=00000000 ilen=00000000
(XEN) VMExit: intr_info=00000000 errcode=00000000 ilen=00000001
(XEN)         reason=80000021 qualification=0000000000000000
(XEN) IDTVectoring: info=00000000 errcode=00000000
(XEN) TSC Offset = 0xffffffcf8453199b  TSC Multiplier = 0x0000000000000000
(XEN) TPR Threshold = 0x00  PostedIntrVec = 0x00
(XEN) EPT pointer = 0x0000000172a0b01e  EPTP index = 0x0000
(XEN) PLE Gap=00000080 Window=00001000
(XEN) Virtual processor ID = 0x000e VMfunc controls = 0000000000000000
(XEN) **************************************
"""
OLD_KVM: Final = """\
*** Guest State ***
CR0: actual=0x0000000080000031, shadow=0x00000000e0000031, gh_mask=fffffffffffffff7
CR4: actual=0x0000000000002041, shadow=0x0000000000000001, gh_mask=ffffffffffffe871
CR3 = 0x000000000a709000
RSP = 0x000000000000eff0  RIP = 0x000000000000017c
RFLAGS=0x00080246         DR7 = 0x0000000000000400
Sysenter RSP=0000000000000000 CS:RIP=0000:0000000000000000
CS:   sel=0x0097, attr=0x040fb, limit=0x000001a0, base=0x0000000002110000
DS:   sel=0x00f7, attr=0x0c0f0, limit=0xffffffff, base=0x0000000000000000
SS:   sel=0x009f, attr=0x040f3, limit=0x0000efff, base=0x0000000002111000
ES:   sel=0x00f7, attr=0x0c0f3, limit=0xffffffff, base=0x0000000000000000
FS:   sel=0x0000, attr=0x10000, limit=0x00000000, base=0x0000000000000000
GS:   sel=0x0000, attr=0x10000, limit=0x00000000, base=0x0000000000000000
GDTR:                           limit=0x00000017, base=0x000000000a708100
LDTR: sel=0x0010, attr=0x00082, limit=0x0000ffff, base=0x000000000ab0a000
IDTR:                           limit=0x000007ff, base=0x000000000a708200
TR:   sel=0x0010, attr=0x0008b, limit=0x00002088, base=0x000000000a706000
EFER =     0x0000000000000000  PAT = 0x0007040600070406
DebugCtl = 0x0000000000000000  DebugExceptions = 0x0000000000000000
Interruptibility = 00000000  ActivityState = 00000000
*** Host State ***
RIP = 0xffffffffc12525b0  RSP = 0xffffbc831306fc68
CS=0010 SS=0018 DS=0000 ES=0000 FS=0000 GS=0000 TR=0040
FSBase=00007ffff70a7780 GSBase=ffff968085b40000 TRBase=fffffe0000102000
GDTBase=fffffe0000100000 IDTBase=fffffe0000000000
CR0=0000000080050033 CR3=00000004c0642001 CR4=00000000001626e0
Sysenter RSP=fffffe0000102000 CS:RIP=0010:ffffffffbd001720
EFER = 0x0000000000000d01  PAT = 0x0407050600070106
*** Control State ***
PinBased=0000007f CPUBased=b5986dfa SecondaryExec=00002c6a
EntryControls=0000d1ff ExitControls=002befff
ExceptionBitmap=00060042 PFECmask=00000000 PFECmatch=00000000
VMEntry: intr_info=000004e6 errcode=00000000 ilen=00000002
VMExit: intr_info=00000000 errcode=00000000 ilen=00000001
        reason=80000021 qualification=0000000000000000
IDTVectoring: info=00000000 errcode=00000000
TSC Offset = 0xffa686ee1681acf4
EPT pointer = 0x00000005fcec605e
PLE Gap=00000080 Window=00001000
Virtual processor ID = 0x0001
"""
HAXM: Final = """\
haxm_panic: Triple fault
haxm_warning: 4000 VMX_PIN_CONTROLS: 1f
haxm_warning: 4002 VMX_PRIMARY_PROCESSOR_CONTROLS: 969861fe
haxm_warning: 401e VMX_SECONDARY_PROCESSOR_CONTROLS: aa
haxm_warning: 4004 VMX_EXCEPTION_BITMAP: 40000
haxm_warning: 4006 VMX_PAGE_FAULT_ERROR_CODE_MASK: 0
haxm_warning: 4008 VMX_PAGE_FAULT_ERROR_CODE_MATCH: 0
haxm_warning: 400c VMX_EXIT_CONTROLS: 236fff
haxm_warning: 4012 VMX_ENTRY_CONTROLS: 93ff
haxm_warning: 4014 VMX_ENTRY_MSR_LOAD_COUNT: 0
haxm_warning: 4016 VMX_ENTRY_INTERRUPT_INFO: 800000d1
haxm_warning: 4018 VMX_ENTRY_EXCEPTION_ERROR_CODE: 0
haxm_warning: 401a VMX_ENTRY_INSTRUCTION_LENGTH: 0
haxm_warning: 6000 VMX_CR0_MASK: ffffffffe0000020
haxm_warning: 6004 VMX_CR0_READ_SHADOW: 80050031
haxm_warning: 400a VMX_CR3_TARGET_COUNT: 0
haxm_warning: 0000 VMX_VPID: 1
haxm_warning: 6c00 HOST_CR0: 80050033
haxm_warning: 6c04 HOST_CR4: 1626e0
haxm_warning: 6800 GUEST_CR0: 80050033
haxm_warning: 6820 GUEST_RFLAGS: 10244
haxm_warning: 681c GUEST_RSP: fffff8000a1b2c30
haxm_warning: 2804 GUEST_PAT: 7010600070106
haxm_warning: 2806 GUEST_EFER: d01
haxm_warning: 4826 GUEST_ACTIVITY_STATE: 0
"""
NOIRVISOR: Final = """\
[NoirVisor] Launching vCPU...
[NoirVisor] Error while launching the Guest! VMX Status: 1
[NoirVisor] Failed at VM-Entry, Code=7  Reason: VM-Entry failed due to invalid control fields!
[NoirVisor] -----------
[NoirVisor] Dumping VMCS Guest State Area...
[NoirVisor] Guest CS Segment - Selector: 0x10  Access-Rights: 0x209B  Limit: 0x0  Base: 0x0000000000000000
[NoirVisor] Guest DS Segment - Selector: 0x2B  Access-Rights: 0xC0F0  Limit: 0xFFFFFFFF  Base: 0x0000000000000000
[NoirVisor] Guest GS Segment - Selector: 0x2B  Access-Rights: 0xC0F3  Limit: 0xFFFFFFFF  Base: 0xFFFF94001CC40000
[NoirVisor] Guest Task Register - Selector: 0x40  Access-Rights: 0x8B  Limit: 0x67  Base: 0xFFFF94001CC50000
[NoirVisor] Guest LDT Register - Selector: 0x0  Access-Rights: 0x10000  Limit: 0x0  Base: 0x0000000000000000
[NoirVisor] Guest GDTR Limit: 0x57  Base: 0xFFFF94001CC51FB0  Guest IDTR Limit: 0xFFF  Base: 0xFFFF94001CC4F000
"""
GURU: Final = """\
00:01:12.883422 !!         guru meditation -4006 (VERR_VMX_INVALID_GUEST_STATE)
00:01:12.883422 rax=0000000000000010 rbx=0000000000000000 rcx=00000000c0000080 rdx=0000000000000000
00:01:12.883422 rip=00000000001000f0 rsp=0000000000008ff0 rbp=0000000000000000 iopl=0         nv up di pl zr na po nc
00:01:12.883422 cs={0008 base=0000000000000000 limit=ffffffff flags=0000e09b}
00:01:12.883422 ds={0010 base=0000000000000000 limit=ffffffff flags=0000c093}
00:01:12.883422 ss={0010 base=0000000000000000 limit=ffffffff flags=0000c093}
00:01:12.883422 cr0=0000000080000031 cr2=0000000000000000 cr3=0000000000001000 cr4=0000000000002020
00:01:12.883422 gdtr=0000000000000500:0017  idtr=0000000000000000:0000  eflags=00000000
00:01:12.883422 ldtr={0000 base=00000000 limit=0000ffff flags=00000082}
00:01:12.883422 tr  ={0018 base=00000000 limit=00000067 flags=0000008b}
"""
JAILHOUSE: Final = """\
FATAL: VM-Entry failure, reason 33
qualification 0
vectoring info: 0 interrupt info: 0
RIP: 0x0000000000100000 RSP: 0x0000000000000000 FLAGS: 10006
RAX: 0x0000000000000000 RBX: 0x0000000000000000 RCX: 0x0000000000000000
CS: 10 BASE: 0x0000000000000000 AR-BYTES: e09b EFER.LMA 1
CR0: 0x0000000080010031 CR3: 0x0000000000109000 CR4: 0x0000000000002020
EFER: 0x0000000000000500
"""
LISTING: Final = """\
PIN_CONTROLS = 0x3f
PRIMARY_PROC_CONTROLS = 0xb6a06dfa
SECONDARY_PROC_CONTROLS = 0x14eb
ENTRY_CONTROLS = 0x53ff
EXIT_CONTROLS = 0xfefff
GUEST_CR0 = 0x80000033
GUEST_CR4 = 0x2660
GUEST_RFLAGS = 0x20297
GUEST_RIP = 0xffffffff81000000
GUEST_CS_ACCESS_RIGHTS = 0xc09b
HOST_CR0 = 0x80050033
HOST_CR4 = 0x1626e0
HOST_RIP = 0xffffffffc12525b0
GUEST_IA32_EFER = 0xd01
"""
QEMU_32: Final = """\
KVM: entry failed, hardware error 0x80000021
EAX=00000000 EBX=00000000 ECX=00000000 EDX=00000663
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000200 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
DR6=ffff0ff0 DR7=00000400
EFER=0000000000000000
"""
_SEGMENT = (
    "kvm_segment {{ base: {}, limit: {}, selector: {}, type_: {}, present: 1, dpl: 0, db: 0, s: {}, l: 0, g: 0, "
    "avl: 0, unusable: 0, padding: 0 }}"
)
RUST: Final = (
    "vcpu 0: kvm_sregs { cs: "
    + _SEGMENT.format(4294901760, 65535, 61440, 11, 1)
    + "".join(f", {name}: " + _SEGMENT.format(0, 65535, 0, 3, 1) for name in ("ds", "es", "fs", "gs", "ss"))
    + ", tr: "
    + _SEGMENT.format(0, 65535, 0, 11, 0)
    + ", ldt: "
    + _SEGMENT.format(0, 65535, 0, 2, 0)
    + ", gdt: kvm_dtable { base: 1280, limit: 31, padding: [0, 0, 0] }"
    + ", idt: kvm_dtable { base: 0, limit: 65535, padding: [0, 0, 0] }"
    + ", cr0: 1610612752, cr2: 0, cr3: 0, cr4: 0, cr8: 0, efer: 0, apic_base: 4276094976, "
    "interrupt_bitmap: [0, 0, 0, 0] }\n"
    "kvm_regs { rax: 0, rbx: 0, rsp: 4096, r8: 0, rip: 65520, rflags: 512 }\n"
)

XEN_VMCB: Final = """\
(XEN) Dumping guest's current state at vmexit...
(XEN) Size of VMCB = 4096, paddr = 0x000000011e4c8000, vaddr = ffff83011e4c8000
(XEN) cr_intercepts = 0xfff3fffb dr_intercepts = 0xffffffff exception_intercepts = 0x60082
(XEN) general1_intercepts = 0xbdc4800f general2_intercepts = 0x2e7f
(XEN) pause_filter_threshold = 0 pause_filter_count = 3000
(XEN) iopm_base_pa = 0x11e4b1000 msrpm_base_pa = 0x11e4b4000 tsc_offset = 0xfffffa7d0f1c2e4a
(XEN) tlb_control = 0 vintr = 0x1f01000200 int_stat = 0
(XEN) event_inj 0000000080000b0e, valid? 1, ec? 1, type 3, vector 0xe
(XEN) exitcode = 0xffffffffffffffff exit_int_info = 0
(XEN) exitinfo1 = 0 exitinfo2 = 0x7fffdc7c2038
(XEN) asid = 0x5 np_ctrl = 0x1: NP
(XEN) vmsa_pa = 0 ghcb_msr = 0
(XEN) virtual vmload/vmsave = 1, virt_ext = 0x2
(XEN) cpl = 3 efer = 0x1d01 star = 0x23001000000000 lstar = 0xffffffff81c00080
(XEN) CR0 = 0x00000000a0050033 CR2 = 0x00007fffdc7c2038
(XEN) CR3 = 0x000000007a2e2000 CR4 = 0x00000000003526f0
(XEN) RSP = 0x00007fffdc7c2040  RIP = 0x000000000040112a
(XEN) RAX = 0x0000000000000000  RFLAGS=0x0000000000010246
(XEN) DR6 = 0x00000000ffff0ff0, DR7 = 0x0000000000000400
(XEN) H_CR3 = 0x000000011b6f5000 CleanBits = 0
(XEN)        sel attr  limit   base
(XEN)   CS: 0033 0afb ffffffff 0000000000000000
(XEN)   SS: 002b 0cf3 ffffffff 0000000000000000
(XEN) GDTR: 0000 0000 0000007f fffffe0000001000
(XEN)   TR: 0040 008b 00004087 fffffe0000003000
"""
VMCB_LISTING: Final = (
    "ASID = 0\nEFER = 0xd01\nCR0 = 0x80010031\nCR4 = 0x20\nINTERCEPTS_4 = 1\nDR6 = 0x1ffff0ff0\n"
)

VMCSS: Final[Mapping[str, str]] = {
    "KVM": VMCS,
    "older KVM": OLD_KVM,
    "Xen": XEN_VMCS,
    "HAXM": HAXM,
    "NoirVisor": NOIRVISOR,
    "VirtualBox": GURU,
    "Jailhouse": JAILHOUSE,
    "names": LISTING,
    "QEMU": QEMU,
    "QEMU, 32-bit": QEMU_32,
    "Rust": RUST,
}
VMCBS: Final[Mapping[str, str]] = {"KVM": VMCB, "Xen": XEN_VMCB, "names": VMCB_LISTING}

FOREIGN: Final = (
    "usb 1-1: new high-speed USB device number 2",
    "wlan0: reason = 5",
    "reason = 5",
    "exit_reason: 5",
    "reason =3D deadbeef",
    "INTR_STATE=3",
    "CR3=fffffffffffff000",
    "CR3=1",
    "# GUEST_CR3 = 0xfffffffffffff000",
    "audit: type=1400 audit(1793606130.123:42): CR0=1 EFER=d01 reason=7",
    "asid = 010",
    "DR7=ffffffffffffffff",
    "GDTR: limit=0xffffffff",
    "EFER=0000000000000500",
    "CR4: 00000000000fffff",
    "[info] {",
    "{",
    "}",
    "---",
    "",
    "Call Trace:",
    *OOPS.splitlines(),
)
"""Lines that other parts of a log have."""
