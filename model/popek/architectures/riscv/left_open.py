"""What RISC-V's manuals leave to an implementation.

The places were read in the manual's sources of August 2026.
"""

from __future__ import annotations

from popek.kernel.left_open import LeftOpen

LEFT_OPEN = (
    LeftOpen(
        "which extensions there are",
        "RISC-V Privileged Architecture, Machine ISA (misa) Register; Sstc; Smstateen; Svinval",
        settings=("H", "SSTC", "SMSTATEEN", "SVINVAL"),
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
        "which values of UXL, SXL, VSXL, MBE, SBE, UBE and misa can be written (WARL)",
        "RISC-V Privileged Architecture, Machine Status (mstatus and mstatush) Registers",
        taken="64 bits and little endian, read-only; of misa, H alone",
    ),
    LeftOpen(
        "which bits of the delegation registers can be set (WARL)",
        "RISC-V Privileged Architecture, Machine Trap Delegation (medeleg and mideleg) Registers",
        taken="medeleg 0xfcb7fe and hedeleg 0x0cb1ff, which the manual admits; SGEI is fixed at 1 in mideleg",
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
