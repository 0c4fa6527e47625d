"""The RV64 hart as a machine: state, instructions, settings and ways to virtualize it."""

from __future__ import annotations

from collections.abc import Mapping

from popek.architectures.listing import listing
from popek.kernel.machine import Machine, Setting, leaf_setting
from popek.kernel.words import Word, all_of

from .csrs import implemented, is_supported
from .deprivileging import deprivileging
from .exceptions import HEDELEG_BITS, MEDELEG_BITS
from .instructions import declare_all
from .left_open import LEFT_OPEN
from .machine_csrs import ALWAYS_DELEGATED, COUNTER_BITS, MIDELEG_BITS, MIE_BITS, STATUS_BITS, TVEC_BITS
from .nesting import nesting
from .operands import KINDS
from .state import (
    ALWAYS_THERE,
    ASID_BITS,
    CHANGEABLE,
    MACHINE,
    MANUAL,
    RESERVED_MODE,
    STATUS_FIXED,
    SUPERVISOR,
    SXL_BITS,
    USER,
    UXL_BITS,
    VMID_BITS,
    VS_BITS,
    XL_32,
    XL_64,
    XLEN,
    Interrupts,
    Rv64,
    letters,
)
from .traps import deliver
from .virtualization import virtualization

EVERY_BIT = (1 << XLEN) - 1
# The bits that exist, and those of them that are fixed, by component.
EXISTING: Mapping[str, tuple[int, int]] = {
    "mstatus": (STATUS_BITS | 3 << 38, STATUS_FIXED),
    "medeleg": (MEDELEG_BITS, 0),
    "mideleg": (MIDELEG_BITS, ALWAYS_DELEGATED),
    "mie": (MIE_BITS, 0),
    "mip": (0x222, 0),
    "lines": (0xA88, 0),
    "mtvec": (TVEC_BITS, 0),
    "stvec": (TVEC_BITS, 0),
    "vstvec": (TVEC_BITS, 0),
    "mcountinhibit": (COUNTER_BITS & ~2, 0),
    "menvcfg": (1 << 63 | 1, 0),
    "henvcfg": (1 << 63 | 1, 0),
    "senvcfg": (1, 0),
    "mstateen0": (3 << 62, 0),
    "hstateen0": (3 << 62, 0),
    "hstatus": (0x7003C0, XL_64 << 32),
    "hedeleg": (HEDELEG_BITS, 0),
    "hideleg": (0x444, 0),
    "hvip": (0x444, 0),
    "vsstatus": (0xC6122, XL_64 << 32),
    "hgatp": (0xF << 60 | (1 << 58) - 4, 0),
    "pmpcfg0": (0x9F9F9F9F, 0),
    "misa": (CHANGEABLE, ALWAYS_THERE),
}
# What a hart may have besides, as its features say.
CHOICES: Mapping[str, int] = {
    "mstatus": UXL_BITS | SXL_BITS | VS_BITS,
    "vsstatus": UXL_BITS | VS_BITS,
    "hstatus": UXL_BITS,  # VSXL
    "medeleg": 1,
    "misa": letters("v"),
}


def exists(state: Rv64) -> Word:
    """The mode is one; without H there are no guests; MPRV is on in M alone, for every way down clears it; bits
    that do not exist are 0.
    """
    h = state.misa.h
    modes = (
        (state.prv != RESERVED_MODE)
        & (~state.mstatus.mprv | (state.prv == MACHINE))
        & (~state.v | (h & (state.prv != MACHINE)))
    )
    status = (state.mstatus.mpp != RESERVED_MODE) & (h | (~state.mstatus.mpv & ~state.mstatus.gva))
    aligned = all_of(state[name][0] == 0 for name in ("pc", "mepc", "sepc", "vsepc"))
    aligned = aligned & (state.misa.c | ~state.pc[1]) & (state.extended(state.pc) == state.pc)
    readable = all_of(
        state[f"pmpcfg0.r{entry}"] | ~state[f"pmpcfg0.w{entry}"] for entry in range(4)
    )  # W without R is reserved
    bits = all_of(
        (state[name].zero_extend(XLEN) & (EVERY_BIT ^ (writable | choice))) == fixed & ~choice
        for name, (writable, fixed) in EXISTING.items()
        for choice in (CHOICES.get(name, 0),)
    )
    translation = all_of(is_supported(state, state[f"{name}.mode"]) for name in ("satp", "vsatp", "hgatp"))
    return modes & status & aligned & readable & bits & translation & _chosen(state)


def _chosen(state: Rv64) -> Word:
    """What the hart's features say of fields; S and VS of 32 bits are never entered."""
    features, status, guest, hypervisor = state.features, state.mstatus, state.vsstatus, state.hstatus

    def width(field: Word, free: Word) -> Word:
        return (field == XL_64) | (free & (field == XL_32))

    widths = (
        width(status.sxl, features.sxl32)
        & width(hypervisor.vsxl, features.sxl32)
        & width(status.uxl, features.uxl32 | (status.sxl == XL_32))
        & width(guest.uxl, features.uxl32)
        & ((status.sxl == XL_64) | ((status.uxl == XL_32) & (state.prv == MACHINE)))
        & ((hypervisor.vsxl == XL_64) | ~state.v)
    )
    vectors = state.misa.v | ((status.vs == 0) & (guest.vs == 0))
    known = (features.asidlen <= ASID_BITS) & (features.vmidlen <= VMID_BITS)
    asids, vmids = implemented(features.asidlen, ASID_BITS), implemented(features.vmidlen, VMID_BITS)
    translations = all_of((state[f"{name}.asid"] & ~asids) == 0 for name in ("satp", "vsatp"))
    letters_ = (state.changeable.value.zero_extend(XLEN) & (EVERY_BIT ^ CHANGEABLE)) == 0
    return widths & vectors & known & translations & ((state.hgatp.vmid & ~vmids) == 0) & letters_


def _advance(cpu: Rv64, operands: Mapping[str, Word]) -> None:
    cpu.pc = cpu.extended(cpu.pc + 4)


EXTENSION_STATUS: Mapping[int, str] = {0: "Off", 1: "Initial", 2: "Clean", 3: "Dirty"}
WIDTHS: Mapping[int, str] = {XL_32: "32", XL_64: "64"}
MISA: Mapping[str, str] = {
    "a": "atomic instructions",
    "c": "compressed instructions, IALIGN 16,",
    "d": "double precision",
    "f": "floating point",
    "m": "multiplication and division",
    "v": "vectors",
}
"""The letters besides H that decide something here."""
WRITABLE: Mapping[int, str] = {
    0: "none",
    letters("c"): "C",
    letters("df"): "D and F",
    letters("h"): "H",
    CHANGEABLE: "A, C, D, F, H and M",
}


def _settings() -> tuple[Setting, ...]:
    def switch(name: str, leaf: str, summary: str, default: int | None = None) -> Setting:
        return leaf_setting(name, leaf, 1, summary, default)

    def labelled(
        name: str, leaf: str, summary: str, labels: Mapping[int, str], default: int | None = None
    ) -> Setting:
        def holds(state: Rv64, value: Word) -> Word:
            return state[leaf] == value

        return Setting(name, summary, tuple(labels), holds, default, leaf, labels=labels)

    counters = {
        "CY": ("cy", "cycle"),
        "TM": ("tm", "time"),
        "IR": ("ir", "instret"),
        "HPM3": ("hpm3", "hpmcounter3"),
    }
    opened = [
        switch(
            f"{letter}COUNTEREN_{name}",
            f"{letter.lower()}counteren.{field}",
            f"{counter}: {who}",
            int(letter == "M"),
        )
        for letter, who in (("M", "M opens it"), ("S", "S opens it to U"), ("H", "HS opens it to guests"))
        for name, (field, counter) in counters.items()
    ]
    return (
        switch("H", "misa.h", "the hypervisor extension is there", 1),
        *(
            switch(f"MISA_{letter.upper()}", f"misa.{letter}", f"{what} in misa", int(letter != "v"))
            for letter, what in MISA.items()
        ),
        Setting(
            "MISA_WRITABLE",
            "the letters that software can clear in misa",
            tuple(WRITABLE),
            lambda state, value: state.changeable.value == value.zero_extend(26),
            0,
            concerns=("changeable",),
            labels=WRITABLE,
        ),
        switch("SSTC", "features.sstc", "stimecmp is there", 1),
        switch("SMSTATEEN", "features.smstateen", "state enables are there", 1),
        switch("SVINVAL", "features.svinval", "SINVAL.VMA and its like are there", 1),
        switch("TIME_CSR", "features.time", "time is read in hardware, not by trapping to M", 1),
        switch(
            "WFI_COMPLETES", "features.wfi_completes", "WFI that may wait for a bounded time completes", 0
        ),
        switch("TVM", "mstatus.tvm", "satp, SFENCE.VMA and the like trap in HS", 0),
        switch("TW", "mstatus.tw", "WFI traps below M", 0),
        switch("TSR", "mstatus.tsr", "SRET traps in HS", 0),
        switch("MPRV", "mstatus.mprv", "M loads and stores as MPP and MPV say", 0),
        labelled("FS", "mstatus.fs", "mstatus.FS: floating point", EXTENSION_STATUS),
        labelled("VS", "mstatus.vs", "mstatus.VS: vectors; read-only Off without V", EXTENSION_STATUS, 0),
        labelled("XS", "features.xs", "XS, read-only: additional extensions", EXTENSION_STATUS, 0),
        labelled("UXL", "mstatus.uxl", "mstatus.UXL: the width of U; see UXL32", WIDTHS, XL_64),
        labelled("VUXL", "vsstatus.uxl", "vsstatus.UXL: the width of VU; see UXL32", WIDTHS, XL_64),
        Setting(
            "ASIDLEN",
            "how many bits of satp.ASID and vsatp.ASID there are",
            tuple(range(ASID_BITS + 1)),
            lambda state, value: state.features.asidlen == value,
            ASID_BITS,
            "features.asidlen",
        ),
        Setting(
            "VMIDLEN",
            "how many bits of hgatp.VMID there are",
            tuple(range(VMID_BITS + 1)),
            lambda state, value: state.features.vmidlen == value,
            VMID_BITS,
            "features.vmidlen",
        ),
        *opened,
        switch("MSTCE", "menvcfg.stce", "M opens stimecmp", 1),
        switch("HSTCE", "henvcfg.stce", "HS opens stimecmp to guests", 0),
        switch("MSE0", "mstateen0.se0", "M opens hstateen0 and sstateen0", 1),
        switch("MENVCFG", "mstateen0.envcfg", "M opens henvcfg and senvcfg", 1),
        switch("HSE0", "hstateen0.se0", "HS opens sstateen0 to guests", 0),
        switch("HENVCFG", "hstateen0.envcfg", "HS opens senvcfg to guests", 0),
        switch("HU", "hstatus.hu", "U may use HLV and HSV", 0),
        switch("VTVM", "hstatus.vtvm", "satp and SFENCE.VMA trap in VS", 0),
        switch("VTW", "hstatus.vtw", "WFI traps in VS", 0),
        switch("VTSR", "hstatus.vtsr", "SRET traps in VS", 0),
        # What follows concerns every instruction: without a leaf, it is decided before one is explored.
        Setting(
            "UXL32",
            "UXL of mstatus and vsstatus can be 32: U and VU of 32 bits",
            (0, 1),
            lambda state, value: state.features.uxl32 == value,
            0,
        ),
        Setting(
            "SXL32",
            "SXL and VSXL can be 32; S and VS of 32 bits are left out",
            (0, 1),
            lambda state, value: state.features.sxl32 == value,
            0,
        ),
        Setting(
            "SV39",
            "satp, vsatp and hgatp may ask for translation, whose walks are left out",
            (0, 1),
            lambda state, value: state.features.sv39 == value,
            0,
        ),
    )


def build() -> Machine[Rv64]:
    """A hart with M, S, U and H; addresses are not translated, unless a setting says otherwise."""
    machine = Machine(
        "rv64",
        "RISC-V, RV64 with M, S, U and the hypervisor extension",
        Rv64,
        supervisor=lambda state: ~state.v & ((state.prv == SUPERVISOR) | (state.prv == MACHINE)),
        user=lambda state: state.prv == USER,
        source=MANUAL,
        architecture=listing("riscv"),
        operands=KINDS,
        settings=_settings(),
        invariant=exists,
        advance=_advance,
        deliver=deliver,
        techniques={**deprivileging(), **virtualization(), **nesting()},
        left_open=LEFT_OPEN,
        notes=NOTES,
        interrupt_masks=(
            "mstatus.sie",
            "mstatus.mie",
            "vsstatus.sie",
            *(f"mie.{field}" for field, _ in Interrupts.fields()),
        ),
    )
    declare_all(machine)
    return machine


NOTES = (
    "walks of page tables: 'not modelled' where SV39 = 1 and a mode is not Bare; a fence that completes does nothing",
    "faults of instruction fetch; compressed instructions; misaligned references always fault",
    "physical memory protection: four entries; devices, and where storage ends",
    "S and VS of 32 bits ('not modelled' where SXL32 = 1 and one is entered); rv32; big endian",
    "vectors: V and VS are fields that nothing else looks at; XS does not change",
    "interrupts are state, and which one is taken is computed; no instruction is interrupted; no guest external ones",
    "state enables other than SE0 and ENVCFG, environment configuration other than FIOM and STCE",
    "counters do not count; hpmcounter3 stands for all of them; Zkr, Zawrs, Zicbom, vectors, pointer masking",
    "a trap by itself: xtval of instructions that are not executed is 0, xtinst and xtval2 are 0",
    "reservations: SC of the address that LR reserved succeeds, no trap or return ends one",
)
