"""Who may do what, by the manual's words: each row is read there, none is computed from the model."""

from __future__ import annotations

from functools import cache

import pytest

from popek.architectures.riscv.exceptions import ILLEGAL, LOAD_ACCESS, VIRTUAL
from popek.architectures.riscv.machine import build
from popek.architectures.riscv.state import Rv64
from popek.architectures.riscv.traps import deliver, interrupt_target
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import Word

MODES = {"M": (3, 0), "HS": (1, 0), "U": (0, 0), "VS": (1, 1), "VU": (0, 1)}


@cache
def machine() -> Machine[Rv64]:
    return build()


def instruction(name: str) -> Instruction:
    return machine().find(name)[0]


def state(mode: str, **changes: int) -> Rv64:
    """Every counter open, state enables on, floating point on; then the changes."""
    prv, v = MODES[mode]
    opened = Rv64.reset(
        mcounteren=0xFFFFFFFF, scounteren=0xFFFFFFFF, hcounteren=0xFFFFFFFF, mstateen0=3 << 62, hstateen0=3 << 62,
        menvcfg=1 << 63, henvcfg=1 << 63, mstatus__fs=1, vsstatus__fs=1, prv=prv, v=v,
    )  # fmt: skip
    return opened.with_changes({name.replace("__", "."): value for name, value in changes.items()})


def run(name: str, start: Rv64, **operands: int) -> Outcome[Rv64]:
    found = instruction(name)
    words = {
        n: Word(w, operands.get(n.removeprefix("operand "), 0))
        for o in found.inputs
        for n, w in o.part_names()
    }
    return machine().step(found, start, words)


def raised(name: str, start: Rv64) -> str:
    """I for illegal, V for virtual instruction, a dot where it completes."""
    outcome = run(name, start)
    if isinstance(outcome, Next):
        return "."
    assert isinstance(outcome, Trap)
    return {ILLEGAL: "I", VIRTUAL: "V"}[outcome.vector]


# For M, HS, U, VS, VU; CSR names are for CSRRW where the address can be written, else for CSRRS.
ROWS = [
    # Machine level: illegal below M, for guests too ("CSR Address Mapping Conventions").
    ("CSRRW mstatus", {}, ". I I I I"),
    ("CSRRW mcounteren", {}, ". I I I I"),
    ("CSRRS mhartid", {}, ". I I I I"),
    ("CSRRW mhartid", {}, "I I I I I"),
    ("MRET", {}, ". I I I I"),
    # Supervisor level: virtual for a guest's user ("H", Virtual-Instruction Exceptions).
    ("CSRRW sstatus", {}, ". . I . V"),
    ("CSRRW satp", {}, ". . I . V"),
    ("CSRRW satp", {"mstatus__tvm": 1}, ". I I . V"),  # TVM is for HS alone
    ("CSRRW satp", {"hstatus__vtvm": 1}, ". . I V V"),
    ("CSRRW scounteren", {}, ". . I . V"),
    ("CSRRW senvcfg", {"mstateen0__envcfg": 0}, ". I I I I"),  # what M closes is illegal everywhere
    ("CSRRW senvcfg", {"hstateen0__envcfg": 0}, ". . I V V"),
    ("CSRRW stimecmp", {}, ". . I . V"),
    ("CSRRW stimecmp", {"henvcfg__stce": 0}, ". . I V V"),
    ("CSRRW stimecmp", {"menvcfg__stce": 0}, ". I I I I"),
    ("CSRRW stimecmp", {"mcounteren__tm": 0}, ". I I I I"),
    ("CSRRW stimecmp", {"hcounteren__tm": 0}, ". . I V V"),
    # Hypervisor and VS level.
    ("CSRRW hstatus", {}, ". . I V V"),
    ("CSRRW vsatp", {"mstatus__tvm": 1}, ". . I V V"),  # TVM does not guard vsatp
    ("CSRRW hgatp", {"mstatus__tvm": 1}, ". I I V V"),
    ("CSRRS hgeip", {}, ". . I V V"),
    ("CSRRW hgeip", {}, "I I I I I"),  # a write to a read-only address is never virtual
    ("CSRRW hstatus", {"misa__h": 0}, "I I I"),
    # Counters: M is never refused; what mcounteren closes is illegal, what hcounteren closes virtual.
    ("CSRRS cycle", {}, ". . . . ."),
    ("CSRRS cycle", {"mcounteren__cy": 0}, ". I I I I"),
    ("CSRRS cycle", {"scounteren__cy": 0}, ". . I . V"),
    ("CSRRS cycle", {"hcounteren__cy": 0}, ". . . V V"),
    ("CSRRS time", {"features__time": 0}, "I I I I I"),
    # Floating point off: always illegal, for a guest in either of two places.
    ("CSRRW fcsr", {"mstatus__fs": 0}, "I I I I I"),
    ("CSRRW fcsr", {"vsstatus__fs": 0}, ". . . I I"),
    ("FMV.D.X", {"vsstatus__fs": 0}, ". . . I I"),
    # Instructions.
    ("SRET", {}, ". . I . V"),
    ("SRET", {"mstatus__tsr": 1}, ". I I . V"),
    ("SRET", {"hstatus__vtsr": 1}, ". . I V V"),
    ("WFI", {}, ". . I . V"),
    ("WFI", {"mstatus__tw": 1}, ". I I I I"),  # TW is for guests, too, and comes before VTW
    ("WFI", {"hstatus__vtw": 1}, ". . I V V"),
    ("WFI", {"features__wfi_completes": 1}, ". . . . V"),
    ("SFENCE.VMA", {}, ". . I . V"),
    ("SFENCE.VMA", {"mstatus__tvm": 1}, ". I I . V"),
    ("SFENCE.VMA", {"hstatus__vtvm": 1}, ". . I V V"),
    ("SFENCE.W.INVAL", {"mstatus__tvm": 1, "hstatus__vtvm": 1}, ". . I . V"),
    ("SINVAL.VMA", {"features__svinval": 0}, "I I I I I"),
    ("HFENCE.VVMA", {"mstatus__tvm": 1}, ". . I V V"),
    ("HFENCE.GVMA", {"mstatus__tvm": 1}, ". I I V V"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "row"), ROWS, ids=[f"{n} {c}" for n, c, _ in ROWS])
def test_who_may(name: str, changes: dict[str, int], row: str) -> None:
    modes = list(MODES)[: len(row.split())]
    assert " ".join(raised(name, state(mode, **changes)) for mode in modes) == row


@pytest.mark.parametrize(("hu", "row"), [(0, "I V V"), (1, ". V V")])
def test_hlv_is_for_u_where_hu_says_so_and_never_for_guests(hu: int, row: str) -> None:
    protection = {"pmpcfg0": 0x1F, "pmpaddr0": (1 << 54) - 1, "hstatus__hu": hu}
    assert " ".join(raised("HLV.D", state(mode, **protection)) for mode in ("U", "VS", "VU")) == row


def delivered(mode: str, name: str, **changes: int) -> Rv64:
    start = state(mode, pc=0x1000, mtvec=0x100, stvec=0x200, vstvec=0x300, **changes)
    outcome = run(name, start)
    assert isinstance(outcome, Trap)
    return deliver(start, outcome)


@pytest.mark.parametrize(
    ("mode", "name", "medeleg", "hedeleg", "handler"),
    [
        ("VU", "ECALL", 0, 1 << 8, 0x100),  # what M keeps never gets to the guest
        ("VU", "ECALL", 1 << 8, 0, 0x200),
        ("VU", "ECALL", 1 << 8, 1 << 8, 0x300),
        ("U", "ECALL", 1 << 8, 1 << 8, 0x200),  # hedeleg is for guests
        ("M", "EBREAK", 1 << 3, 0, 0x100),  # never to less privilege
        ("VS", "EBREAK", 1 << 3, 1 << 3, 0x300),
        ("VU", "SRET", 1 << 22, 0, 0x200),
        ("VS", "ECALL", 1 << 10, 0, 0x200),
    ],
)
def test_where_a_trap_goes(mode: str, name: str, medeleg: int, hedeleg: int, handler: int) -> None:
    assert int(delivered(mode, name, medeleg=medeleg, hedeleg=hedeleg).pc) == handler


def test_an_entry_of_m_from_vu() -> None:
    after = delivered("VU", "EBREAK", mstatus__mie=1, mtval2=5, mtinst=6)
    status = after.mstatus
    assert [int(w) for w in (after.prv, after.v, status.mpp, status.mpv, status.gva)] == [3, 0, 0, 1, 1]
    assert [int(w) for w in (status.mpie, status.mie, after.mtval2, after.mtinst)] == [1, 0, 0, 0]
    assert [int(w) for w in (after.mcause, after.mepc, after.mtval)] == [3, 0x1000, 0x1000]


def test_an_entry_of_hs_leaves_spvp_alone_unless_a_guest_is_left() -> None:
    from_u = delivered("U", "ECALL", medeleg=1 << 8, hstatus__spvp=1)
    assert [int(w) for w in (from_u.hstatus.spvp, from_u.hstatus.spv, from_u.mstatus.spp)] == [1, 0, 0]
    from_vs = delivered("VS", "ECALL", medeleg=1 << 10)
    assert [int(w) for w in (from_vs.hstatus.spvp, from_vs.hstatus.spv, from_vs.mstatus.spp)] == [1, 1, 1]


def test_an_entry_of_vs_touches_nothing_of_hs() -> None:
    after = delivered("VU", "ECALL", medeleg=1 << 8, hedeleg=1 << 8, mstatus__sie=1, vsstatus__sie=1)
    assert [int(w) for w in (after.mstatus.sie, after.hstatus.spv, after.vsstatus.spie, after.vsstatus.sie)] == [
        1, 0, 1, 0,
    ]  # fmt: skip


def test_hlv_sets_gva_though_v_was_0() -> None:
    after = delivered("HS", "HLV.D", medeleg=1 << 5)
    assert [int(w) for w in (after.scause, after.hstatus.gva, after.hstatus.spv)] == [5, 1, 0]
    plain = delivered("HS", "LD", medeleg=1 << 5)
    assert int(plain.scause) == LOAD_ACCESS.number
    assert int(plain.hstatus.gva) == 0


def test_sret_in_m_looks_at_spv_and_keeps_spvp() -> None:
    outcome = run("SRET", state("M", mstatus__spp=1, hstatus__spv=1, hstatus__spvp=1, mstatus__mprv=1))
    assert isinstance(outcome, Next)
    after = outcome.state
    assert [int(w) for w in (after.prv, after.v, after.hstatus.spv, after.hstatus.spvp)] == [1, 1, 0, 1]
    assert int(after.mstatus.mprv) == 0


def test_csrrs_of_a_register_that_holds_0_is_a_write() -> None:
    found = run("CSRRS mhartid", state("M"), rs1=5)
    assert isinstance(found, Trap)
    assert isinstance(run("CSRRS mhartid", state("M"), rs1=0), Next)


def test_an_unsupported_mode_is_ignored_by_satp_as_a_whole_and_by_hgatp_in_its_field() -> None:
    start = state("HS")
    start.x = start.x.store(Word(5, 1), Word(64, 5 << 60 | 0x44))
    for name, expected in (("satp", 0), ("hgatp", 0x44)):
        outcome = run(f"CSRRW {name}", start, rs1=1)
        assert isinstance(outcome, Next)
        assert int(outcome.state[name]) == expected


def test_which_interrupt_comes_first() -> None:
    pending = {
        "mip__ssi": 1,
        "hvip__vssi": 1,
        "mie__ssi": 1,
        "mie__vssi": 1,
        "mideleg__ssi": 1,
        "hideleg__vssi": 1,
    }
    taken = [int(word) for word in interrupt_target(state("VU", **pending))]
    assert taken == [0, 1, 0]  # HS before VS
    guests = state("VU", **{**pending, "mip__ssi": 0})
    assert [int(word) for word in interrupt_target(guests)] == [0, 0, 1]
    assert [int(word) for word in interrupt_target(state("HS", **{**pending, "mip__ssi": 0}))] == [0, 0, 0]
