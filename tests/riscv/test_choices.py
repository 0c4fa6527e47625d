"""What a hart may choose (WARL): misa, the widths of modes, ASIDLEN, VMIDLEN, VS and XS, tried with numbers.

Each rule is named by the manual's own anchor (August 2026, without `norm:`), where it has one.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_manual import after, kept, raises, read, trapped, written, x
from test_rules import machine, state

from commands import popek
from popek.architectures.riscv.exceptions import FETCH_MISALIGNED, ILLEGAL
from popek.architectures.riscv.state import Rv64, letters
from popek.kernel.outcome import NotModelled
from popek.kernel.words import Word

ONES = (1 << 64) - 1
ALL = 2 << 62 | letters("acdfhimsu")
SIGNED = ONES ^ 0xFFFFFFFF
BOTH = {"features__uxl32": 1}
NARROW = {**BOTH, "mstatus__uxl": 1}


def misa(value: int, changeable: str = "acdfhm", **changes: int) -> int:
    """What misa reads after a number was stored to it."""
    return kept("misa", value, changeable=letters(changeable), **changes)


def misa_extensions_warl_op() -> None:
    """Only what the hart lets software change changes; I, S and U are always there, and so is MXL."""
    assert misa(0, "") == misa(0, "df") | letters("df") == ALL
    assert misa(0) == 2 << 62 | letters("isu")
    assert misa(ONES) == ALL
    assert misa(ALL ^ letters("m")) == ALL ^ letters("m")


def misa_extensions_dependencies() -> None:
    """F = 0 and D = 1 clear both."""
    assert misa(ALL ^ letters("f")) == ALL ^ letters("df")
    assert misa(ALL ^ letters("d")) == ALL ^ letters("d")
    assert misa(ALL ^ letters("f"), "f") == ALL ^ letters("df")


def misa_inc_ialign() -> None:
    """A write that clears C before an instruction at 2 modulo 4 leaves all of misa as it was."""
    without = 2 << 62 | letters("isu")
    assert misa(without, pc=0x1000) == without
    assert misa(without, pc=0x1002) == ALL
    assert misa(without, pc=0x1002, misa__c=0) == without  # IALIGN was 32 already


def misa_extensions_disabling() -> None:
    """What a letter brings is illegal without it, in every mode."""
    for name, lacking in (
        ("MUL", "m"), ("DIVU", "m"), ("MULW", "m"), ("LR.W", "a"), ("SC.D", "a"), ("AMOADD.W", "a"), ("FLD", "d"),
        ("FMV.X.D", "d"), ("FSD", "f"), ("CSRRW fcsr", "f"), ("CSRRS frm", "f"), ("CSRRW hstatus", "h"), ("HLV.D", "h"),
    ):  # fmt: skip
        modes = ("M", "HS", "U") if lacking == "h" else ("M", "HS", "U", "VS", "VU")
        for mode in modes:
            assert raises(name, state(mode, **{f"misa__{lacking}": 0})) is ILLEGAL, (name, mode)
    assert raises("CSRRW fcsr", state("U", misa__d=0)) is None  # which F brings


def misa_h_op() -> None:
    """With H go MPV and GVA, and the exceptions of guests in medeleg."""
    start = x(
        state("M", changeable=letters("h"), medeleg=ONES, mstatus__mpv=1, mstatus__gva=1), x1=letters("f")
    )
    changed = after("CSRRW misa", start, rs1=1)
    assert read("mstatus", changed) & 3 << 38 == 0
    assert read("medeleg", changed) & 0xF00400 == 0
    assert raises("CSRRS hgatp", changed) is ILLEGAL


def mepc_bit1_dyn_ialign_op() -> None:
    """Bit 1 of xepc is masked while IALIGN is 32, for xRET too; and it can be written."""
    for csr, mode in (("mepc", "M"), ("sepc", "HS"), ("vsepc", "HS")):
        changed = written(csr, 0x1006, mode, misa__c=0)
        assert read(csr, changed) == 0x1004
        assert read(csr, changed.with_changes({"misa.c": 1})) == 0x1006
    assert int(after("MRET", state("M", mepc=0x1006, misa__c=0)).pc) == 0x1004
    assert int(after("SRET", state("VS", vsepc=0x1006)).pc) == 0x1006


def instruction_address_misaligned() -> None:
    """Raised by the jump, which then does nothing; a branch that is not taken raises none."""
    start = x(state("VS", pc=0x1000, misa__c=0, medeleg=1), x1=0x2003)
    assert raises("JALR", start, **{"offset(rs1).base": 1}) is FETCH_MISALIGNED
    after_ = trapped("JALR", start, rd=5, **{"offset(rs1).base": 1})
    assert (int(after_.sepc), int(after_.scause), int(after_.stval)) == (0x1000, 0, 0x2002)
    assert int(after_.hstatus.gva) == 1
    assert int(after_.x.load(Word(5, 5))) == 0
    assert raises("BEQ", start, rs1=1, branch=3) is None
    assert raises("BNE", start, rs1=1, branch=3) is FETCH_MISALIGNED
    assert raises("JAL", state("U", misa__c=1), jump=3) is None


def hedeleg_acc() -> None:
    """Bit 0 of hedeleg is writable where IALIGN is 32; so it is in medeleg here, and only then."""
    assert kept("hedeleg", 1, misa__c=0) == kept("medeleg", 1, misa__c=0) == 1
    assert kept("medeleg", 1) == 0


def mstatus_sxl_uxl_warl_op() -> None:
    """64 alone, or 32 and 64 (1 and 2); 0 and 3 are no widths and change nothing."""
    for csr in ("mstatus", "sstatus", "vsstatus"):
        fields = [kept(csr, value << 32) >> 32 & 3 for value in range(4)]
        assert fields == [2, 2, 2, 2]
        fields = [kept(csr, value << 32, **BOTH) >> 32 & 3 for value in range(4)]
        assert fields == [2, 1, 2, 2]
    assert [kept("mstatus", v << 34, features__sxl32=1) >> 34 & 3 for v in range(4)] == [2, 1, 2, 2]
    assert [kept("hstatus", v << 32, features__sxl32=1) >> 32 & 3 for v in range(4)] == [2, 1, 2, 2]
    assert kept("mstatus", 1 << 34) >> 34 & 3 == kept("hstatus", 1 << 32) >> 32 & 3 == 2


def mstatus_uxl_legal_vals_smode() -> None:
    """U is not wider than S."""
    assert kept("mstatus", 1 << 34 | 2 << 32, **BOTH, features__sxl32=1) >> 32 & 15 == 0b0101
    assert kept("mstatus", 1 << 34 | 2 << 32, features__sxl32=1) >> 32 & 15 == 0b0101


def xlen_reduction_op() -> None:
    """Operands above bit 31 are ignored; results, and pc, are sign-extended."""
    start = x(state("U", **NARROW, pc=0x7FFFFFFC), x1=0xDEAD_0000_7FFF_FFFF, x2=1)
    changed = after("ADD", start, rd=3, rs1=1, rs2=2)
    assert (int(changed.x.load(Word(5, 3))), int(changed.pc)) == (SIGNED | 0x80000000, SIGNED | 0x80000000)
    assert int(after("ADD", x(state("HS", **NARROW), x1=1 << 40), rd=3, rs1=1).x.load(Word(5, 3))) == 1 << 40
    guest = x(state("VU", **BOTH, vsstatus__uxl=1), x1=1 << 40)
    assert int(after("ADD", guest, rd=3, rs1=1).x.load(Word(5, 3))) == 0
    entered = after("MRET", state("M", **NARROW, mepc=0x1_8000_0000))
    assert (int(entered.prv), int(entered.pc)) == (0, SIGNED | 0x80000000)
    for name in ("LD", "SD", "ADDW", "LR.D", "FMV.X.D", "LWU", "MULW"):
        assert raises(name, state("U", **NARROW)) is ILLEGAL
    assert raises("SLLI", state("U", **NARROW), shamt=32) is ILLEGAL


def sstatus_uxl_behavior() -> None:
    """Addresses of data are modulo 2^32 (a store reaches the low 4 GiB)."""
    everything = {"pmpaddr3": (1 << 54) - 1, "pmpcfg0": 0x1F << 24}
    start = x(state("U", **NARROW, **everything), x1=0x5_8000_0000, x2=7)
    changed = after("SW", start, rs2=2, **{"offset(rs1).base": 1})
    assert int(changed.memory.load(Word(53, 0x80000000 >> 3))) == 7


def sxl_32_is_left_out() -> None:
    """Read and written, but entered by nobody; without the setting there is no such hart."""
    for name, changes in (
        ("MRET", {"mstatus__sxl": 1, "mstatus__uxl": 1, "mstatus__mpp": 1}),
        ("SRET", {"hstatus__vsxl": 1, "hstatus__spv": 1}),
        ("HLV.B", {"hstatus__vsxl": 1}),
    ):
        found = machine().find(name)[0]
        start = state("M", features__sxl32=1, **changes)
        assert machine().invariant(start).value
        words = {n: Word(w, 0) for o in found.inputs for n, w in o.part_names()}
        assert isinstance(machine().step(found, start, words), NotModelled)
    assert not machine().invariant(state("M", mstatus__sxl=1, mstatus__uxl=1)).value
    assert not machine().invariant(state("HS", features__sxl32=1, mstatus__sxl=1, mstatus__uxl=1)).value


def asidlen() -> None:
    """The low bits are there, of satp and of vsatp; of VMID likewise."""
    for length in (0, 1, 9, 16):
        held = (1 << length) - 1 << 44
        for csr, mode in (("satp", "HS"), ("satp", "VS"), ("vsatp", "HS")):
            assert kept(csr, 0xFFFF << 44, mode, features__asidlen=length) == held
    for length in (0, 7, 14):
        assert kept("hgatp", 0x3FFF << 44, features__vmidlen=length) == (1 << length) - 1 << 44


def mstatus_vs_rdonly0_s_no_v() -> None:
    """VS is read-only 0 without V, and a field like FS with it; SD tells of it."""
    for csr in ("mstatus", "sstatus", "vsstatus"):
        assert kept(csr, 3 << 9, mstatus__fs=0, vsstatus__fs=0) & (3 << 9 | 1 << 63) == 0
        assert kept(csr, 3 << 9, misa__v=1) & (3 << 9 | 1 << 63) == 3 << 9 | 1 << 63
        assert kept(csr, 2 << 9, misa__v=1) & (3 << 9 | 1 << 63) == 2 << 9


def mstatus_xs_op2() -> None:
    """XS is the hart's, read-only; SD tells of it."""
    for csr in ("mstatus", "sstatus", "vsstatus"):
        assert [kept(csr, ONES ^ 3 << 13, features__xs=xs) >> 15 & 3 for xs in range(4)] == [0, 1, 2, 3]
        assert [kept(csr, 0, features__xs=xs) >> 63 for xs in range(4)] == [0, 0, 0, 1]


RULES: tuple[Callable[[], None], ...] = (
    misa_extensions_warl_op, misa_extensions_dependencies, misa_inc_ialign, misa_extensions_disabling, misa_h_op,
    mepc_bit1_dyn_ialign_op, instruction_address_misaligned, hedeleg_acc, mstatus_sxl_uxl_warl_op,
    mstatus_uxl_legal_vals_smode, xlen_reduction_op, sstatus_uxl_behavior, sxl_32_is_left_out, asidlen,
    mstatus_vs_rdonly0_s_no_v, mstatus_xs_op2,
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=[rule.__name__ for rule in RULES])
def test_a_hart_may_choose(rule: Callable[[], None]) -> None:
    rule()


def test_usual_harts_exist_and_are_as_they_were() -> None:
    start = Rv64.reset()
    assert machine().invariant(start).value
    assert (read("misa", start), read("mstatus", start) >> 32) == (ALL, 0b1010)


def test_a_width_that_the_hart_does_not_have_is_one_line() -> None:
    done = popek("classify", "rv64", "ADD", "--set", "UXL=1")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "UXL" in done.stderr
