"""The Itanium machine: state, instructions, settings and ways to virtualize it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.architectures.listing import listing
from popek.kernel.machine import Machine, Setting, leaf_setting
from popek.kernel.memory import Memory
from popek.kernel.practice import Practice
from popek.kernel.words import Word, concat, ite

from .access import PROMOTION, entry_of
from .deprivileging import techniques as deprivileging
from .instructions import declare_all
from .interruptions import deliver
from .left_open import LEFT_OPEN
from .operands import KINDS
from .state import PSR_ONE_SHOT, PSR_WIDTH, Ia64, invariant
from .vti.technique import techniques as vti

PAGES: Final = 38  # bits of a physical page number

ACCELERATIONS: Final = {
    "A_INT": "virtual interrupt masking (ssm and rsm of PSR.i alone, CR.TPR) works on the VPD",
    "A_FROM_INT_CR": "reads of CR16-25 come from the VPD",
    "A_TO_INT_CR": "writes of CR16-25 go to the VPD",
    "A_FROM_PSR": "mov r = psr comes from the VPD",
    "A_FROM_CPUID": "mov r = cpuid comes from the VPD",
    "A_COVER": "cover writes the VPD's IFS",
    "A_BSW": "bsw exchanges registers with the VPD",
    "A_TF": "tf reads the VPD's CPUID[4]",
    "A_IC_UM": "ssm and rsm of PSR.ic and the user mask work on the VPD",
}
DISABLES: Final = {
    "D_VMSW": "vmsw is intercepted",
    "D_EXTINT": "CR65-71 are the machine's own",
    "D_IBR_DBR": "IBR and DBR are the machine's own",
    "D_PMC": "PMC is the machine's own",
    "D_TO_PMD": "writes of PMD go to the machine",
    "D_ITM": "CR.ITM is the machine's own",
    "D_PSR_I": "ssm and rsm of PSR.i alone act on the machine's PSR.i",
}
ASSUMPTIONS: Final = {
    "PMD_FAULT": "PMC.pm = 1 above CPL 0 makes a PMD read fault (Ski) rather than read 0 (manual)",
    "IC_FIRST": "PSR.ic = 1 beats the Virtualization fault for itc, itr and CR16-25",
    "PROBE_VF": "the optional virtualization of probe exists and is on",
    "CR_ANY_IC": "accelerated moves of CR16-25 do not look at vpsr.ic",
    "PMC_READS_TRAP": "d_pmc covers writes only",
    "TPR_TRAPS": "a_int does not cover CR.TPR",
}
NOTES: Final = (
    "no emulator of VT-i exists: the evidence is the manual, Xen, KVM, Ski and binutils, graded fact by fact",
    "where the sources are silent or disagree the reading is a setting: " + ", ".join(ASSUMPTIONS),
    "what a_int, a_ic_um and d_psr_i cover is assumed: masks of ssm and rsm that name nothing else",
    "mov psr.l is taken to be intercepted whatever a_int; moves of MSRs to be intercepted (cause 0)",
    "reserved fields of control registers other than DCR and IPSR take any value",
    "mov from indirect: NaT, reserved index and Virtualization in the order of the other moves",
    "access rights 0-6, the long-format hash and the tag stand for what the sources did not give",
    "left out: qualifying predicates, rotation of registers, floating-point arithmetic, the RSE's spills and fills",
    "left out: page sizes other than 4 KB, regions in lookups, faults of protection keys",
    "left out: the opcode in GR25 of an intercept; IIB0 and IIB1; halt, cc, rfi.x and their like",
)


def _advance(cpu: Ia64, operands: Mapping[str, Word]) -> None:
    """IP and PSR.ri move to the next slot; the one-shot PSR bits are spent (PSR.ed by a speculative load)."""
    last = cpu.psr.ri == 2
    cpu.ip = ite(last, cpu.ip + 16, cpu.ip)
    cpu.psr.ri = ite(last, Word(2, 0), cpu.psr.ri + 1)
    cpu.psr.value = cpu.psr.value & ~Word(PSR_WIDTH, PSR_ONE_SHOT)


def _relocate(state: Ia64, pages: Word) -> Ia64:
    """With translation on, everything `pages` 4-KB pages further on in physical storage.

    With PSR.dt = 0 addresses are physical, and there is nothing that could move the program.
    """
    moved, memory, dirty, translations = state.copy(), state.memory, state.dirty, state.translations
    distance = ite(state.psr.dt, pages, Word(PAGES, 0))

    def entry(page: Word) -> Word:
        old = translations.load(page)
        return ite(old[0], old.replace(49, 12, old[49:12] + distance), old)

    moved.memory = Memory(47, 64, lambda place: memory.load(place - concat(distance, Word(9, 0))))
    moved.dirty = Memory(44, 1, lambda line: dirty.load(line - concat(distance, Word(6, 0))))
    moved.translations = Memory(52, 88, entry)
    return moved


def _without_promotion_pages(state: Ia64, value: Word) -> Word:
    """The code's page is not one that epc and vmsw accept, or (1) may be."""
    return (value == 1) | (entry_of(state, state.ip).ar != PROMOTION)


def _settings() -> tuple[Setting, ...]:
    bits = [
        leaf_setting("VT_I", "features.vm", 1, "the processor has VT-i", 1),
        leaf_setting("VM_FEATURES", "features.vm_enabled", 1, "PAL has switched VT-i on (feature 40)", 1),
        leaf_setting("VMSW_FEATURE", "features.vmsw_enabled", 1, "PAL has switched vmsw on (feature 54)", 1),
        leaf_setting("SI", "psr.si", 1, "PSR.si: the interval timer is reserved to CPL 0 and to the VMM", 1),
        leaf_setting("NARROW", "features.narrow", 1, "one address bit less is implemented", 0),
        leaf_setting("GITC", "features.gitc", 1, "the guest reads AR.ITC with an offset", 0),
        Setting(
            "PROMOTION_PAGES",
            "the guest's code may lie on pages with access right 7",
            (0, 1),
            _without_promotion_pages,
            1,
            labels={0: "no", 1: "yes"},
        ),
    ]
    bits += [
        leaf_setting(n, f"vac.{n.lower()}", 1, f"acceleration: {text}", 0)
        for n, text in ACCELERATIONS.items()
    ]
    for name, text in DISABLES.items():
        bits.append(leaf_setting(name, f"vdc.{name.lower()}", 1, f"disable: {text}", int(name == "D_VMSW")))
    bits += [
        leaf_setting(n, f"assume.{n.lower()}", 1, f"open in the sources: {t}", 0)
        for n, t in ASSUMPTIONS.items()
    ]
    return tuple(bits)


def build() -> Machine[Ia64]:
    """Itanium with VT-i; without it where VT_I = 0."""
    machine = Machine(
        "ia64",
        "Itanium, with VT-i",
        Ia64,
        supervisor=lambda state: (state.psr.cpl == 0) & (state.psr.vm == 0),
        user=lambda state: (state.psr.cpl == 3) & (state.psr.vm == 0),
        source="Intel Itanium Architecture Software Developer's Manual, rev. 2.3",
        operands=KINDS,
        settings=_settings(),
        invariant=invariant,
        advance=_advance,
        relocate=_relocate,
        relocation_width=PAGES,
        deliver=deliver,
        techniques={**deprivileging(), **vti()},
        left_open=LEFT_OPEN,
        notes=NOTES,
        architecture=listing("ia64"),
        interrupt_masks=("psr.i",),
        practice=Practice(examples={"transitions": ("break imm21", "epc")}),
    )
    declare_all(machine)
    return machine
