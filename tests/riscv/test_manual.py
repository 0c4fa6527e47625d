"""Thirty rules of the privileged manual, read there once more and tried with numbers.

Each is named by the manual's own anchor (August 2026, without `norm:`), where it has one.  `test_rules` has who may do
what and where traps go; here is what is read, written and kept.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_rules import machine, run, state

from popek.architectures.riscv.access import NA4, TOR
from popek.architectures.riscv.exceptions import ILLEGAL, LOAD_ACCESS, VIRTUAL
from popek.architectures.riscv.state import Rv64
from popek.architectures.riscv.traps import deliver
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Trap
from popek.kernel.words import Word

ONES = (1 << 64) - 1
OPEN = {"pmpaddr3": (1 << 54) - 1, "pmpcfg0": 0x1F << 24}


def x(start: Rv64, **registers: int) -> Rv64:
    start.x = Memory(5, 64, {int(name[1:]): value for name, value in registers.items()})
    return start


def after(name: str, start: Rv64, **operands: int) -> Rv64:
    outcome = run(name, start, **operands)
    assert isinstance(outcome, Next), outcome
    return outcome.state


def written(csr: str, value: int, mode: str = "M", **changes: int) -> Rv64:
    """The hart after CSRRW of a number."""
    return after(f"CSRRW {csr}", x(state(mode, **changes), x1=value), rs1=1)


def read(csr: str, start: Rv64) -> int:
    return int(after(f"CSRRS {csr}", start, rd=2).x.load(Word(5, 2)))


def kept(csr: str, value: int, mode: str = "M", **changes: int) -> int:
    """What a CSR reads after a number was stored to it."""
    return read(csr, written(csr, value, mode, **changes))


def trapped(name: str, start: Rv64, **operands: int) -> Rv64:
    """The hart in the handler."""
    outcome = run(name, start, **operands)
    assert isinstance(outcome, Trap), outcome
    return deliver(start, outcome)


def raises(name: str, start: Rv64, **operands: int) -> object:
    outcome = run(name, start, **operands)
    return outcome.vector if isinstance(outcome, Trap) else None


def hedeleg_bits() -> None:
    must, never = {*range(1, 9), 12, 13, 15, 18, 19}, {9, 10, 11, 16, 20, 21, 22, 23}
    found = {bit for bit in range(64) if kept("hedeleg", ONES) >> bit & 1}
    assert must <= found
    assert not never & found


def hideleg_acc() -> None:
    assert kept("hideleg", ONES) & 0xFFFF == 0x444


def hvip_acc() -> None:
    assert kept("hvip", ONES) & 0xFFFF == 0x444


def hip_vssip() -> None:
    """hip.VSSIP is hvip's, and can be written; VSTIP and VSEIP cannot."""
    changed = written("hip", 0x444, menvcfg=0)
    assert (read("hvip", changed), read("hip", changed), read("mip", changed)) == (4, 4, 4)


def mideleg_acc_h() -> None:
    assert kept("mideleg", 0) & 0x444 == 0x444
    assert kept("mideleg", ONES) & 0x888 == 0  # and an interrupt of M's own is never forced down


def medeleg_no_rd1() -> None:
    assert kept("medeleg", 0) == 0
    assert kept("medeleg", ONES) >> 11 & 1 == 0


def vsip_vsie() -> None:
    """Zero where hideleg is 0; else hip's and hie's bits, one place lower."""
    changes = {"hvip": 0x444, "mie": 0x444, "menvcfg": 0}
    closed, opened = state("VS", **changes), state("VS", hideleg=0x444, **changes)
    assert (read("sip", closed), read("sie", closed)) == (0, 0)
    assert (read("sip", opened), read("sie", opened)) == (0x222, 0x222)
    assert int(written("sie", 0, "VS", hideleg=0x040, mie=0x444).mie.value) == 0x404
    assert int(written("sip", 0, "VS", hideleg=0x444, hvip=0x444).hvip.value) == 0x440


def henvcfg_stce() -> None:
    """menvcfg.STCE = 0 makes henvcfg.STCE read-only 0, and VSTIP what hvip says."""
    assert kept("henvcfg", 1 << 63, menvcfg=1 << 63) == 1 << 63
    assert kept("henvcfg", 1 << 63, menvcfg=0) == 0
    due = {"vstimecmp": 5, "time": 3, "htimedelta": 2}
    assert read("hip", state("HS", **due)) == 0x40
    assert read("hip", state("HS", **{**due, "menvcfg": 0})) == 0
    assert read("hip", state("HS", **{**due, "henvcfg": 0})) == 0
    assert read("hip", state("HS", **{**due, "vstimecmp": 6})) == 0


def stateen_hroz() -> None:
    assert kept("hstateen0", ONES, mstateen0=1 << 63) == 1 << 63


def hgatp_ppn_op() -> None:
    assert kept("hgatp", 8 << 60 | 7, features__sv39=1) == 8 << 60 | 4


def htimedelta() -> None:
    """Overflow is ignored, and M and HS see no delta."""
    there = {"time": 3, "htimedelta": ONES}
    assert [read("time", state(mode, **there)) for mode in ("M", "HS", "U", "VS", "VU")] == [3, 3, 3, 2, 2]


def vsstatus_sd_xs_op() -> None:
    for own, hs, sd in ((3, 1, 1), (1, 3, 0)):
        assert read("sstatus", state("VS", vsstatus__fs=own, mstatus__fs=hs)) >> 63 == sd


def vsstatus_fs_op() -> None:
    changed = after("FMV.D.X", state("VS"), fd=1, rs1=0)
    assert (int(changed.mstatus.fs), int(changed.vsstatus.fs)) == (3, 3)
    changed = after("FMV.D.X", state("HS"), fd=1, rs1=0)
    assert (int(changed.mstatus.fs), int(changed.vsstatus.fs)) == (3, 1)


def mret_h() -> None:
    """MPV is ignored where MPP is 3; both are cleared, MPRV unless MPP was 3."""
    for mpp, v, mprv in ((3, 0, 1), (1, 1, 0), (0, 1, 0)):
        changed = after("MRET", state("M", mstatus__mpp=mpp, mstatus__mpv=1, mstatus__mprv=1, mstatus__gva=1))
        assert (int(changed.prv), int(changed.v), int(changed.mstatus.mprv)) == (mpp, v, mprv)
        assert (int(changed.mstatus.mpp), int(changed.mstatus.mpv), int(changed.mstatus.gva)) == (0, 0, 1)


def sret_v1() -> None:
    """hstatus and the HS sstatus stay; vsstatus changes."""
    before = state("VS", hstatus=0x1C0, mstatus__spie=1, mstatus__spp=1, vsstatus__spie=1, vsstatus__spp=0)
    changed = after("SRET", before)
    assert (changed.hstatus.value.value, changed.mstatus.value.value) == (
        before.hstatus.value.value,
        before.mstatus.value.value,
    )
    assert (int(changed.prv), int(changed.v), int(changed.vsstatus.sie), int(changed.vsstatus.spie)) == (
        0,
        1,
        1,
        1,
    )


def htval_trapval() -> None:
    """Zero for all but guest-page faults, as is htinst where nothing is told."""
    entered = trapped("ECALL", state("VS", medeleg=1 << 10, htval=5, htinst=7))
    assert (int(entered.htval), int(entered.htinst), int(entered.scause)) == (0, 0, 10)


def ecall_op2() -> None:
    causes = [int(trapped("ECALL", state(mode)).mcause) for mode in ("M", "HS", "U", "VS", "VU")]
    assert causes == [11, 9, 8, 10, 8]


def hstatus_gva_op() -> None:
    """A breakpoint's address is a guest's in VS; an illegal instruction has none."""
    entered = trapped("EBREAK", state("VS", medeleg=8, pc=0x80))
    assert (int(entered.hstatus.gva), int(entered.stval)) == (1, 0x80)
    entered = trapped("MRET", state("VS", medeleg=4, hstatus__gva=1))
    assert int(entered.hstatus.gva) == 0


def hlsv_u_op() -> None:
    """HLVX needs both execute and read of physical memory protection, and its faults are a load's."""
    for rights, vector in ((5, None), (4, LOAD_ACCESS.number), (1, LOAD_ACCESS.number)):
        start = x(state("HS", **{**OPEN, "pmpcfg0": (0x18 | rights) << 24}), x1=0x100)
        outcome = run("HLVX.WU", start, **{"(rs1)": 1})
        assert (outcome.vector.number if isinstance(outcome, Trap) else None) == vector


def hlsv_priv() -> None:
    """SPVP says whether VS or VU; MPRV has no say.  M's own entries bind VS, and no MPRV makes it M."""
    locked = {**OPEN, "pmpcfg0": 0}  # no entry matches: only M may
    for spvp in (0, 1):
        start = x(state("M", mstatus__mprv=1, mstatus__mpp=3, hstatus__spvp=spvp, **locked), x1=0x100)
        assert isinstance(run("HLV.D", start, **{"(rs1)": 1}), Trap)


def tvm_and_tsr_in_vs() -> None:
    taken = {"mstatus__tvm": 1, "mstatus__tsr": 1}
    for name in ("SRET", "SFENCE.VMA", "CSRRW satp"):
        assert raises(name, state("VS", **taken)) is None
        assert raises(name, state("HS", **taken)) is ILLEGAL


def tw_before_vtw() -> None:
    assert raises("WFI", state("VS", mstatus__tw=1, hstatus__vtw=1)) is ILLEGAL
    assert raises("WFI", state("VS", hstatus__vtw=1)) is VIRTUAL
    assert raises("WFI", state("VU")) is VIRTUAL
    assert raises("WFI", state("U")) is ILLEGAL


def svinval() -> None:
    for name, vector in (("SINVAL.VMA", VIRTUAL), ("SFENCE.W.INVAL", None), ("SFENCE.INVAL.IR", None)):
        assert raises(name, state("VS", hstatus__vtvm=1)) is vector


def pmp_lock() -> None:
    """A locked range locks the address before it, too; a locked entry keeps its configuration."""
    locked = {"pmpcfg0": (0x80 | TOR << 3) << 8, "pmpaddr0": 1, "pmpaddr1": 2}
    assert [kept(f"pmpaddr{n}", 9, **locked) for n in (0, 1, 2)] == [1, 2, 9]
    assert kept("pmpcfg0", NA4 << 3 | NA4 << 11, **locked) == NA4 << 3 | (0x80 | TOR << 3) << 8


def vectored() -> None:
    """MODE 1 is for interrupts: an exception goes to BASE."""
    assert int(trapped("ECALL", state("M", mtvec=0x1001)).pc) == 0x1000


def mip_seip_rdcsr() -> None:
    """SEIP reads as the line or software's bit; a read-modify-write starts from the latter."""
    start = x(state("M", lines=0x200, menvcfg=0), x1=2)
    changed = after("CSRRS mip", start, rd=2, rs1=1)
    assert int(changed.x.load(Word(5, 2))) == 0x200
    assert int(changed.mip.value) == 2


def mip_stip_acc() -> None:
    """STIP can be written unless stimecmp decides it."""
    assert read("mip", written("mip", 0x20, menvcfg=0, time=0, stimecmp=1)) == 0x20
    assert read("mip", written("mip", 0x20, menvcfg=1 << 63, henvcfg=0, time=0, stimecmp=1)) == 0
    assert read("mip", state("M", menvcfg=1 << 63, time=1, stimecmp=1, henvcfg=0)) == 0x20


def sip_ssip() -> None:
    """In sip only SSIP is writable, and that where it is delegated; elsewhere sip and sie read 0."""
    assert int(written("sip", ONES, "HS", mideleg=0x1666, menvcfg=0).mip.value) == 2
    assert int(written("sip", ONES, "HS", mideleg=0x1444, menvcfg=0).mip.value) == 0
    assert read("sie", state("HS", mie=0x222, mideleg=0x1466)) == 0x022


def satp_mode_op_unsupported() -> None:
    """Ignored as a whole, in VS too; vsatp by its own name may keep the rest."""
    for mode, name in (("HS", "satp"), ("VS", "vsatp")):
        changed = written("satp", 3 << 60 | 7, mode, **{f"{name}__ppn": 5})
        assert int(changed[f"{name}.ppn"]) == 5


def unbanked() -> None:
    """scounteren and senvcfg are one register for HS and VS; the others have a copy."""
    assert int(written("scounteren", 5, "VS", scounteren=0).scounteren.value) == 5
    assert int(written("senvcfg", 1, "VS").senvcfg.value) == 1
    changed = written("sscratch", 5, "VS", sscratch=1)
    assert (int(changed.sscratch), int(changed.vsscratch)) == (1, 5)


RULES: tuple[Callable[[], None], ...] = (
    hedeleg_bits, hideleg_acc, hvip_acc, hip_vssip, mideleg_acc_h, medeleg_no_rd1, vsip_vsie, henvcfg_stce,
    stateen_hroz, hgatp_ppn_op, htimedelta, vsstatus_sd_xs_op, vsstatus_fs_op, mret_h, sret_v1, htval_trapval,
    ecall_op2, hstatus_gva_op, hlsv_u_op, hlsv_priv, tvm_and_tsr_in_vs, tw_before_vtw, svinval, pmp_lock, vectored,
    mip_seip_rdcsr, mip_stip_acc, sip_ssip, satp_mode_op_unsupported, unbanked,
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_is_so(rule: Callable[[], None]) -> None:
    rule()


def test_thirty_rules_are_tried() -> None:
    assert len({rule.__name__ for rule in RULES}) == 30
    assert machine().name == "rv64"
