"""What the sources of Itanium and VT-i leave open."""

from __future__ import annotations

from popek.kernel.left_open import LeftOpen

LEFT_OPEN = (
    LeftOpen(
        "which external interrupt is pending next, and which is in service below the one that ends",
        "Itanium Architecture SDM vol. 2, External Interrupt Control Registers",
        unsure="from memory",
        values=("next pending interrupt", "next interrupt in service"),
    ),
    LeftOpen(
        "RNAT once BSPSTORE was written",
        "Itanium Architecture SDM vol. 3, mov ar",
        unsure="the page that was read does not say it; loadrs leaves RNAT undefined too",
        values=("RNAT after a write of BSPSTORE",),
    ),
    LeftOpen(
        "whether chk and fchkf branch by themselves, or by a Speculative Operation fault",
        "Itanium Architecture SDM vol. 3, chk; vol. 2, Speculation vector",
        taken="they branch",
    ),
    LeftOpen(
        "how many virtual address bits are implemented",
        "Itanium Architecture SDM vol. 2, Unimplemented Virtual Address Bits",
        unsure="from memory",
        settings=("NARROW",),
    ),
    LeftOpen(
        "what PMC.pm = 1 above CPL 0 makes of reading a PMD: the sources disagree",
        "Itanium Architecture SDM vol. 3, mov indirect; Ski",
        unsure="from memory",
        settings=("PMD_FAULT",),
    ),
    LeftOpen(
        "what VT-i's manual does not say or its sources disagree about: priority, coverage and optional virtualization",
        "Itanium Architecture SDM vol. 2, Virtualized Instructions (table 3-10); Xen; KVM",
        unsure="what the table says of each was not read again",
        settings=("IC_FIRST", "PROBE_VF", "CR_ANY_IC", "PMC_READS_TRAP", "TPR_TRAPS"),
    ),
    LeftOpen(
        "what a_int, a_ic_um and d_psr_i cover when other bits are named, too",
        "Itanium Architecture SDM vol. 2, section 11.7.4.2, Virtualization Accelerations",
        unsure="the section is there, what it says of these was not read again",
        taken="masks of ssm and rsm that name nothing else",
    ),
    LeftOpen(
        "whether mov psr.l and moves of MSRs are intercepted, whatever a_int is",
        "Itanium Architecture SDM vol. 2, section 11.7.4.2, Virtualization Accelerations",
        unsure="the section is there, what it says of these was not read again",
        taken="they are",
    ),
    LeftOpen(
        "the order of faults of moves from indirect register files",
        "Itanium Architecture SDM vol. 3, mov indirect",
        unsure="from memory",
        taken="NaT, reserved index, Virtualization, as for the other moves",
    ),
)
