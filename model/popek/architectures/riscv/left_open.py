"""What RISC-V's manuals leave to an implementation.

The places were read in the manual's sources of August 2026.
"""

from __future__ import annotations

from popek.kernel.left_open import LeftOpen

LEFT_OPEN = (
    LeftOpen(
        "which extensions there are",
        "RISC-V Privileged Architecture, Machine ISA (misa) Register; Sstc; Smstateen; Svinval",
        settings=("H", "SSTC", "SMSTATEEN", "SVINVAL", *(f"MISA_{letter}" for letter in "ACDFMV")),
    ),
    LeftOpen(
        "which letters of misa can be cleared (WARL)",
        "RISC-V Privileged Architecture, Machine ISA (misa) Register: anchors misa_extensions_warl_op, "
        "misa_extensions_dependencies, misa_inc_ialign",
        settings=("MISA_WRITABLE",),
    ),
    LeftOpen(
        "which values of UXL, SXL and VSXL can be written (WARL)",
        "RISC-V Privileged Architecture, Base ISA Control in mstatus Register: anchor mstatus_sxl_uxl_warl_op; of "
        "sstatus: sstatus_uxl_behavior; Hypervisor Status (hstatus) Register: hstatus_vsxl_64",
        settings=("UXL32", "UXL", "VUXL", "SXL32"),
    ),
    LeftOpen(
        "what a write of a width that there is not, 0 or 3, makes of UXL, SXL and VSXL",
        "RISC-V Privileged Architecture, Base ISA Control in mstatus Register",
        taken="the field stays as it is; SXL = 32 makes UXL 32, for U is not wider than S",
    ),
    LeftOpen(
        "what a HINT of 32 bits does to the upper half of its destination, and which upper half xtval has",
        "RISC-V Privileged Architecture, Base ISA Control in mstatus Register: anchors xlen_reduction_hint_op1, "
        "xlen_reduction_op",
        taken="every result is sign-extended; xtval has an address of data zero-extended, and of a jump as pc is",
    ),
    LeftOpen(
        "how many bits ASID and VMID have",
        "RISC-V Privileged Architecture, Supervisor Address Translation and Protection (satp) Register: anchor "
        "asidlen; Hypervisor Guest Address Translation and Protection (hgatp) Register",
        settings=("ASIDLEN", "VMIDLEN"),
    ),
    LeftOpen(
        "whether VS is there without V, and what XS says",
        "RISC-V Privileged Architecture, Extension Context Status in mstatus Register: anchors "
        "mstatus_vs_rdonly0_s_no_v, mstatus_xs_acc, mstatus_xs_op2",
        settings=("VS", "XS"),
    ),
    LeftOpen(
        "whether reads of time go to memory or trap to M",
        "RISC-V Privileged Architecture, Machine Counter-Enable (mcounteren) Register",
        settings=("TIME_CSR",),
    ),
    LeftOpen(
        "whether WFI completes within the bounded time limit",
        "RISC-V Privileged Architecture, Virtualization Support in mstatus Register; Wait for Interrupt",
        settings=("WFI_COMPLETES",),
    ),
    LeftOpen(
        "which modes satp, vsatp and hgatp take (WARL)",
        "RISC-V Privileged Architecture, Supervisor Address Translation and Protection (satp) Register; of vsatp "
        "and hgatp likewise",
        settings=("SV39",),
    ),
    LeftOpen(
        "whether misaligned references are executed or trap",
        "RISC-V Unprivileged Architecture, Load and Store Instructions",
        taken="they trap",
    ),
    LeftOpen(
        "which values of MBE, SBE and UBE can be written (WARL)",
        "RISC-V Privileged Architecture, Machine Status (mstatus and mstatush) Registers",
        taken="little endian, read-only",
    ),
    LeftOpen(
        "which bits of the delegation registers can be set (WARL)",
        "RISC-V Privileged Architecture, Machine Trap Delegation (medeleg and mideleg) Registers",
        taken="medeleg 0xfcb7fe, without C 0xfcb7ff, and hedeleg 0x0cb1ff, which the manual admits; SGEI is fixed at 1 "
        "in mideleg",
    ),
    LeftOpen(
        "what a trap that an illegal instruction causes writes to xtval",
        "RISC-V Privileged Architecture, Machine Trap Value (mtval) Register",
        taken="0",
    ),
    LeftOpen(
        "which SC fail spuriously, and what ends a reservation",
        "RISC-V Unprivileged Architecture, Zalrsc; Eventual Success of Store-Conditional Instructions",
        taken="SC to the address that LR reserved succeeds; no trap and no return ends a reservation",
    ),
)
