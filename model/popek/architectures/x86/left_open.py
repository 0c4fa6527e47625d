"""What Intel's manual leaves to the processor, as far as the models meet it."""

from __future__ import annotations

from popek.kernel.left_open import LeftOpen

COMMON = (
    LeftOpen(
        "status flags that an instruction does not define (AF after AND; OF after a shift by more than 1)",
        "SDM vol. 2, Flags Affected; vol. 1, appendix A",
        unsure="the appendix from memory",
        values=("CF", "PF", "AF", "ZF", "SF", "OF"),
    ),
    LeftOpen(
        "outside 64-bit mode, bits 31:16 of the register that SMSW stores with a 32-bit operand",
        "SDM vol. 2B, SMSW",
        taken="those of CR0, as processors do",
    ),
    LeftOpen("bits 19:16 of what LAR loads", "SDM vol. 2A, LAR", values=("LAR bits 19:16",)),
    LeftOpen(
        "whether RDRAND and RDSEED have a number, and which",
        "SDM vol. 2B, RDRAND, RDSEED",
        values=("RDRAND", "RDRAND CF", "RDSEED", "RDSEED CF"),
    ),
    LeftOpen(
        "when caches hold what storage does not, and translations are stale",
        "SDM vol. 3A, Memory Cache Control; Caching Translation Information",
        unsure="of the second the title is from memory",
        values=("cache_dirty", "tlb_stale"),
    ),
    LeftOpen(
        "which features, control bits and MSRs a processor has",
        "SDM vol. 2A, CPUID; vol. 3A, Control Registers; vol. 4",
        taken="those of the model's state; bits that it lacks are reserved, and setting one faults",
    ),
    LeftOpen(
        "where it runs guests, of what an exit tells: a page fault's linear address (translation is outside the model) "
        "and whether the address-range monitor is armed; and whether there is an MSR that the model does not know",
        "SDM vol. 3C, Basic VM-Exit Information; vol. 4; AMD64 APM vol. 2, Instruction Intercepts (MWAIT)",
        unsure="from memory",
        values=("page-fault address", "whether the address-range monitor is armed", "of an MSR, *"),
    ),
)
"""Of IA-32 and of x86-64, with and without hardware for guests."""
