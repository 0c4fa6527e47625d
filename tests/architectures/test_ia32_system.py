"""System instructions of IA-32 and the representative ones for programs: expected values are the manual's."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from ia32_steps import MACHINE, after, at_level, fault, peek, poke, run, with_msrs

from popek.architectures.ia32 import msrs
from popek.architectures.ia32.instructions import arithmetic, extended_state, stack_frames
from popek.architectures.ia32.state import Ia32
from popek.architectures.x86.interception import Interception
from popek.kernel.outcome import NotModelled
from popek.kernel.words import Word

IF, VIF, VIP = 1 << 9, 1 << 19, 1 << 20
OSXSAVE, PKE, TSD, VMXE, SMXE, PVI = 1 << 18, 1 << 22, 1 << 2, 1 << 13, 1 << 14, 2
TS, EM, MP = 8, 4, 2


def test_there_are_at_least_three_hundred_forms() -> None:
    assert len(MACHINE.instructions) >= 300


# -- who may -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize(
    ("form", "vector", "bits"),
    [
        ("SYSEXIT", ("#GP", 0), 0), ("XSETBV", ("#GP", 0), OSXSAVE), ("INVPCID r32, m128", ("#GP", 0), 0),
        ("WBNOINVD", ("#GP", 0), 0), ("CLAC", ("#UD", None), 0), ("STAC", ("#UD", None), 0),
        ("MONITOR seg", ("#UD", None), 0), ("MWAIT", ("#UD", None), 0), ("VMXON m64", ("#GP", 0), VMXE),
        ("XSAVES m", ("#GP", 0), OSXSAVE), ("RDTSCP", ("#GP", 0), TSD),
    ],
)  # fmt: skip
def test_privileged_instructions_fault_above_level_0(
    form: str, vector: tuple[str, int | None], bits: int, level: int
) -> None:
    assert fault(form, with_msrs(at_level(level, cr4=bits, eax=1), msr_174=8)) == vector


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize(
    "form",
    ["SYSCALL", "SYSRET", "VMCALL", "VMLAUNCH", "VMREAD r32, r32", "INVEPT r32, m128", "VMRUN", "STGI", "RSM", "UD2",
     "GETSEC", "XGETBV", "XSETBV", "RDPKRU", "WRPKRU", "XSAVE m", "XRSTORS m", "VMXON m64"],
)  # fmt: skip
def test_what_is_not_enabled_is_undefined_at_every_level(form: str, level: int) -> None:
    assert fault(form, at_level(level)) == ("#UD", None)


@pytest.mark.parametrize(
    "form", ["CPUID", "RDPID r32", "PAUSE", "RDRAND r32", "RDTSCP", "CLFLUSH m8", "MFENCE"]
)
def test_what_every_level_may(form: str) -> None:
    after(form, at_level(3))


def cli_by_the_manual(level: int, iopl: int, pvi: int) -> tuple[int, int] | None:
    """IF and VIF after CLI from both set; None for #GP(0) (SDM vol. 2A, CLI, decision table)."""
    if level <= iopl:
        return 0, 1
    return (1, 0) if level == 3 and pvi else None


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("iopl", range(4))
@pytest.mark.parametrize("pvi", [0, PVI])
def test_cli_and_sti_under_every_iopl_and_pvi(level: int, iopl: int, pvi: int) -> None:
    state = at_level(level, cr4=pvi, eflags=2 | IF | VIF | iopl << 12)
    expected = cli_by_the_manual(level, iopl, pvi)
    if expected is None:
        assert fault("CLI", state) == fault("STI", state) == ("#GP", 0)
        return
    cleared = after("CLI", state).eflags
    assert (int(cleared.if_), int(cleared.vif)) == expected
    pending = at_level(level, cr4=pvi, eflags=2 | VIP | iopl << 12)
    if expected == (1, 0):
        assert fault("STI", pending) == ("#GP", 0)
    else:
        assert int(after("STI", pending).eflags.if_) == 1


# -- fast system calls ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", range(4))
def test_sysenter_enters_level_0_where_the_msrs_say(level: int) -> None:
    state = with_msrs(at_level(level, eflags=2 | IF), msr_174=0x1_0009, msr_175=0x7000, msr_176=0x123456)
    entered = after("SYSENTER", state)
    assert [int(entered[name]) for name in ("cs.selector", "ss.selector", "eip", "esp")] == [
        8,
        0x10,
        0x123456,
        0x7000,
    ]
    assert (int(entered.cpl), int(entered.eflags.if_), int(entered.cs.limit)) == (0, 0, 0xFFFFFFFF)
    assert fault("SYSENTER", with_msrs(state, msr_174=0x1_0003)) == ("#GP", 0)


def test_sysexit_returns_to_level_3_sixteen_and_twenty_four_bytes_further() -> None:
    state = with_msrs(at_level(0, ecx=0x7000, edx=0x8000), msr_174=8)
    left = after("SYSEXIT", state)
    assert [int(left[name]) for name in ("cs.selector", "ss.selector", "eip", "esp")] == [
        0x1B,
        0x23,
        0x8000,
        0x7000,
    ]
    assert int(left.cpl) == 3
    assert MACHINE.invariant(left).value == 1


# -- identification and extended state ------------------------------------------------------------------


def test_cpuid_shows_what_cr4_holds_now() -> None:
    for bits, leaf, bit in ((OSXSAVE, 1, 27), (PKE, 7, 4)):
        assert int(after("CPUID", at_level(3, eax=leaf, cr4=bits)).gpr[1]) == 1 << bit
        assert int(after("CPUID", at_level(3, eax=leaf)).gpr[1]) == 0
    assert int(after("CPUID", at_level(3, eax=7, ecx=1, cr4=PKE)).gpr[1]) == 0


@pytest.mark.parametrize(
    ("value", "accepted"), [(1, 1), (3, 1), (7, 1), (0, 0), (2, 0), (5, 0), (9, 0), (1 << 63 | 1, 0)]
)
def test_xsetbv_takes_what_the_manual_allows(value: int, accepted: int) -> None:
    state = at_level(0, cr4=OSXSAVE, eax=value & 0xFFFFFFFF, edx=value >> 32)
    if accepted:
        read = after("XGETBV", after("XSETBV", state).with_changes({"eax": 0, "edx": 0xFF}))
        assert int(read.gpr[0]) | int(read.gpr[2]) << 32 == value
    else:
        assert fault("XSETBV", state) == ("#GP", 0)


@pytest.mark.parametrize("form", ["XSAVES m", "XRSTORS m"])
def test_a_monitor_steps_in_before_nm_and_after_ud_and_privilege(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    seen: list[str] = []

    class Monitor(Interception):
        def instruction(
            self, cpu: Ia32, name: str, memory: Any = None, *registers: Word, size: int = 32
        ) -> None:
            seen.append(name)

    monkeypatch.setattr(Ia32, "interception", Monitor())
    for level, bits, vector in ((0, 0, "#UD"), (3, OSXSAVE, "#NM")):
        assert fault(form, at_level(level, cr0=0x11 | TS, cr4=bits))[0] == vector
    assert not seen
    assert fault(form, at_level(0, cr0=0x11 | TS, cr4=OSXSAVE)) == ("#NM", None)
    assert seen == [form.split()[0]]


def test_a_random_number_that_is_not_there_is_0() -> None:
    for there_is in (0, 1):
        answers = {"undefined RDRAND": 0x1234, "undefined RDRAND CF": there_is}
        read = after("RDRAND r32", at_level(3, eax=0x55, eflags=0x8D7).with_undefined(answers), r32=0)
        assert (int(read.gpr[0]), int(read.eflags.value)) == (0x1234 * there_is, 2 | there_is)


def test_the_priority_of_faults_of_xsaves_is_ud_nm_privilege_alignment() -> None:
    where = {"m_segment": 3, "m_offset": 0x1001}
    worst = at_level(3, cr0=0x11 | TS)
    assert fault("XSAVES m", worst, **where) == ("#UD", None)
    assert fault("XSAVES m", at_level(3, cr0=0x11 | TS, cr4=OSXSAVE), **where) == ("#NM", None)
    assert fault("XSAVES m", at_level(3, cr4=OSXSAVE), **where) == ("#GP", 0)
    assert fault("XSAVES m", at_level(0, cr4=OSXSAVE), **where) == ("#GP", 0)
    after("XSAVES m", at_level(0, cr4=OSXSAVE), m_segment=3, m_offset=0x1040)


@pytest.mark.parametrize(("form", "bits", "vector"), [
    ("FNOP", EM, "#NM"), ("FNOP", TS, "#NM"), ("FNOP", MP, None), ("FWAIT", TS, None), ("FWAIT", TS | MP, "#NM"),
    ("FWAIT", EM | MP, None), ("EMMS", EM | TS, "#UD"), ("EMMS", TS, "#NM"), ("FXSAVE m", EM, "#NM"),
])  # fmt: skip
def test_the_x87_is_there_as_cr0_says(form: str, bits: int, vector: str | None) -> None:
    outcome = run(form, at_level(3, cr0=0x11 | bits))
    assert getattr(getattr(outcome, "vector", None), "name", None) == vector


def test_protection_keys_move_between_eax_and_pkru() -> None:
    state = after("WRPKRU", at_level(3, cr4=PKE, eax=0x55))
    assert int(after("RDPKRU", state.with_changes({"eax": 0})).gpr[0]) == 0x55
    assert (
        fault("WRPKRU", at_level(3, cr4=PKE, edx=1))
        == fault("RDPKRU", at_level(3, cr4=PKE, ecx=1))
        == ("#GP", 0)
    )


def test_vmxon_is_refused_in_the_order_of_the_manual_and_what_follows_is_not_modelled() -> None:
    def fit(level: int) -> Any:
        return with_msrs(at_level(level, cr4=VMXE, cr0=0x80000031), msr_3A=5)

    assert fault("VMXON m64", fit(3)) == ("#GP", 0)
    assert isinstance(run("VMXON m64", fit(0)), NotModelled)
    assert fault("VMXON m64", with_msrs(fit(0), msr_3A=4)) == ("#GP", 0)
    assert fault("VMXON m64", fit(0).with_changes({"cr0": 0x80000011})) == ("#GP", 0)
    assert isinstance(run("GETSEC", at_level(3, cr4=SMXE)), NotModelled)


# -- model-specific registers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "value", "taken"),
    [
        (0x1B, 0xFEE00900, 1), (0x1B, 0xFEE00801, 0), (0x1B, 0xFEE00A00, 0), (0x1B, 0xFEE00400, 0),
        (0x1B, 1 << 40, 0), (0xC0000080, 1 << 11, 1), (0xC0000080, 1, 0), (0xC0000080, 1 << 8, 0),
        (0xC0000080, 1 << 12, 0), (0xC0000103, 0xFFFFFFFF, 1), (0xC0000103, 1 << 32, 0), (0x1A0, 1 << 18, 1),
        (0x1A0, 1 << 63, 0), (0x277, 0x0007040600070406, 1), (0x277, 2, 0), (0x174, 0xFFFF, 1), (0x3A, 5, 1),
        (0x12345678, 0, 0),
    ],
)  # fmt: skip
def test_wrmsr_refuses_reserved_bits(number: int, value: int, taken: int) -> None:
    state = at_level(0, ecx=number, eax=value & 0xFFFFFFFF, edx=value >> 32)
    if taken:
        read = after("RDMSR", after("WRMSR", state).with_changes({"eax": 0, "edx": 0}))
        assert int(read.gpr[0]) | int(read.gpr[2]) << 32 == value
    else:
        assert fault("WRMSR", state) == ("#GP", 0)


def test_wrmsr_leaves_what_misc_enable_only_shows() -> None:
    state = with_msrs(at_level(0, ecx=0x1A0, eax=0x1001), msr_1A0=0x880)
    assert int(after("WRMSR", state).msr.load(Word(32, 0x1A0))) == 0x881


def test_a_locked_feature_control_register_stays() -> None:
    assert fault("WRMSR", with_msrs(at_level(0, ecx=0x3A, eax=5), msr_3A=1)) == ("#GP", 0)


def test_the_apic_goes_to_x2_mode_by_way_of_xapic_mode_alone() -> None:
    def write(old: int, new: int) -> Any:
        return run("WRMSR", with_msrs(at_level(0, ecx=0x1B, eax=0xFEE00000 | new), msr_1B=0xFEE00000 | old))

    allowed = {(old, new) for old in (0, 0x800, 0xC00) for new in (0, 0x800, 0xC00)} - {
        (0, 0xC00),
        (0xC00, 0x800),
    }
    for old in (0, 0x800, 0xC00):
        for new in (0, 0x800, 0xC00):
            assert hasattr(write(old, new), "vector") == ((old, new) not in allowed), (old, new)


def test_mov_of_control_registers_leaves_the_status_flags_undefined() -> None:
    state = at_level(0).with_undefined(
        {f"undefined {name}": 1 for name in ("CF", "PF", "AF", "ZF", "SF", "OF")}
    )
    forms = [f for f in MACHINE.instructions if re.fullmatch(r"MOV r32, (CR|DR)\d|MOV (CR|DR)\d, r32", f)]
    assert len(forms) == 24
    for form in forms:
        assert int(after(form, state).eflags.value) & 0x8D5 == 0x8D5, form


# -- stacks, strings, arithmetic ----------------------------------------------------------------------------


@pytest.mark.parametrize(("push", "pop"), [("PUSHA", "POPA"), ("PUSHAD", "POPAD")])
def test_popa_gives_back_what_pusha_took_but_for_the_stack_pointer(push: str, pop: str) -> None:
    values = {
        name: 0x01010101 * (number + 1)
        for number, name in enumerate(("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi"))
    }
    pushed = after(push, at_level(3, esp=0x7000, **values))
    size = 2 if push == "PUSHA" else 4
    assert int(pushed.gpr[4]) == 0x7000 - 8 * size
    assert peek(pushed, 0x7000 - 5 * size, size) == 0x7000
    popped = after(pop, poke(pushed, 0x7000 - 5 * size, 0x6000, size))
    assert {name: int(popped[name]) for name in values} == values
    assert int(popped.gpr[4]) == 0x7000


def test_popa_skips_the_item_of_the_stack_pointer() -> None:
    unreadable = at_level(3, esp=0x7000, reserved__base=0x7000 + 3 * 4, reserved__size=4)
    assert int(after("POPAD", unreadable).gpr[4]) == 0x7020
    assert fault("POPAD", unreadable.with_changes({"reserved.base": 0x7000 + 4 * 4})) == ("#PF", 5)


def test_enter_asks_whether_a_byte_can_be_written_at_the_end() -> None:
    aligning = at_level(3, esp=0x7000, cr0=0x11 | 1 << 18, eflags=2 | 1 << 18)
    assert int(after("ENTER imm16, 0", aligning, imm16=1).gpr[4]) == 0x7000 - 5
    guarded = aligning.with_changes({"read_only.base": 0x7000 - 5, "read_only.size": 1})
    assert fault("ENTER imm16, 0", guarded, imm16=1) == ("#PF", 7)
    expand_down = at_level(0, esp=0x7000, ss__limit=0x6FF8, ss__rights=0xC097)
    assert int(after("ENTER imm16, 0", expand_down, imm16=3).gpr[4]) == 0x6FF9
    assert fault("ENTER imm16, 0", expand_down, imm16=4) == ("#SS", 0)


def test_leave_undoes_enter() -> None:
    entered = after("ENTER imm16, 1", at_level(3, esp=0x7000, ebp=0x1234), imm16=0x100)
    assert (int(entered.gpr[5]), int(entered.gpr[4])) == (0x6FFC, 0x7000 - 8 - 0x100)
    assert (peek(entered, 0x6FFC, 4), peek(entered, 0x6FF8, 4)) == (0x1234, 0x6FFC)
    left = after("LEAVE", entered)
    assert (int(left.gpr[5]), int(left.gpr[4])) == (0x1234, 0x7000)


@pytest.mark.parametrize(("form", "size"), [("REP MOVSB seg", 1), ("REP MOVSD seg", 4)])
@pytest.mark.parametrize("down", [0, 1 << 10])
def test_repeated_moves_copy_element_by_element(form: str, size: int, down: int) -> None:
    state = at_level(3, esi=0x2000, edi=0x3000, ecx=5, eflags=2 | down)
    step = -size if down else size
    for number in range(5):
        state = poke(state, 0x2000 + step * number, 0x1111 * (number + 1) & 0xFF, size)
    start = int(state.eip)
    for remaining in range(4, -1, -1):
        state = after(form, state, seg=3)
        assert int(state.gpr[1]) == remaining
        assert int(state.eip) == (start if remaining else start + 2)
    assert [peek(state, 0x3000 + step * n, size) for n in range(5)] == [
        0x1111 * (n + 1) & 0xFF for n in range(5)
    ]
    assert int(after(form, state, seg=3).gpr[7]) == int(state.gpr[7])  # ECX is 0: nothing


def test_repne_scas_stops_behind_the_first_match() -> None:
    state = poke(at_level(3, edi=0x3000, eax=0x41, ecx=8), 0x3000, 0x4142_4342, 4)
    while int(state.eip) == 0x1000:
        state = after("REPNE SCASB", state)
    assert (int(state.gpr[7]), int(state.gpr[1]), int(state.eflags.zf)) == (0x3004, 4, 1)


@pytest.mark.parametrize(("index", "inside"), [(-1, False), (0, True), (7, True), (8, False)])
def test_bound_checks_signed_numbers_both_bounds_included(index: int, inside: bool) -> None:
    state = poke(at_level(3, eax=index & 0xFFFFFFFF), 0x2000, 7 << 32, 8)
    where = {"m32_32_segment": 3, "m32_32_offset": 0x2000}
    if inside:
        after("BOUND r32, m32&32", state, **where)
    else:
        assert fault("BOUND r32, m32&32", state, **where) == ("#BR", None)


def test_div_faults_exactly_when_the_quotient_does_not_fit() -> None:
    chance = random.Random(1)
    for _ in range(300):
        dividend, divisor = chance.randrange(1 << 16), chance.choice((0, 1, 0xFF, chance.randrange(256)))
        state = at_level(3, eax=dividend, ecx=divisor)
        if divisor and dividend // divisor < 256:
            result = int(after("DIV r8", state, r8=1).gpr[0])
            assert result == (dividend % divisor) << 8 | dividend // divisor
        else:
            assert fault("DIV r8", state, r8=1) == ("#DE", None)


def shifted(name: str, value: int, count: int) -> tuple[int, int]:
    """Result and CF, bit by bit as the manual's loop has it; count 1 to 31."""
    carry = 0
    for _ in range(count):
        if name in ("SHL", "ROL"):
            carry, value = value >> 31, value << 1 & 0xFFFFFFFF
            value |= carry if name == "ROL" else 0
        else:
            top = {"SHR": 0, "SAR": value >> 31, "ROR": value & 1}[name]
            carry, value = value & 1, value >> 1 | top << 31
    return value, carry


@pytest.mark.parametrize("name", arithmetic.SHIFTS)
def test_shifts_are_those_of_the_manuals_loop(name: str) -> None:
    chance = random.Random(2)
    for count in (0, 1, 2, 7, 30, 31, 32, 33, 0x80):
        value = chance.getrandbits(32)
        done = after(f"{name} r32, CL", at_level(3, ebx=value, ecx=count, eflags=3), r32=3)
        if count % 32 == 0:
            assert (int(done.gpr[3]), int(done.eflags.value)) == (value, 3)
        else:
            assert (int(done.gpr[3]), int(done.eflags.cf)) == shifted(name, value, count % 32), count


@pytest.mark.parametrize("name", ["ADC", "SBB"])
def test_adc_and_sbb_carry(name: str) -> None:
    chance = random.Random(3)
    edges = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    for _ in range(200):
        a, b, carry = (
            chance.choice(edges),
            chance.choice((*edges, chance.getrandbits(32))),
            chance.getrandbits(1),
        )
        done = after(f"{name} r32, r32", at_level(3, eax=a, ecx=b, eflags=2 | carry), r32=0, r32_2=1)
        whole = a + b + carry if name == "ADC" else a - b - carry
        signed = _signed(a) + _signed(b) + carry if name == "ADC" else _signed(a) - _signed(b) - carry
        assert int(done.gpr[0]) == whole & 0xFFFFFFFF
        assert int(done.eflags.cf) == (not 0 <= whole < 1 << 32)
        assert int(done.eflags.of) == (not -(1 << 31) <= signed < 1 << 31)


def _signed(value: int) -> int:
    return value - (value >> 31 << 32)


@pytest.mark.parametrize("equal", [True, False])
def test_cmpxchg8b_exchanges_when_equal(equal: bool) -> None:
    state = poke(at_level(3, eax=1, edx=2, ebx=3, ecx=4), 0x2000, (2 << 32 | 1) + (not equal), 8)
    done = after("CMPXCHG8B m64", state, m64_segment=3, m64_offset=0x2000)
    assert int(done.eflags.zf) == equal
    assert peek(done, 0x2000, 8) == (4 << 32 | 3 if equal else 2 << 32 | 2)
    assert (int(done.gpr[0]), int(done.gpr[2])) == (1 + (not equal), 2)


# -- mutations: each is noticed by a test above -----------------------------------------------------------------


def test_an_accepted_reserved_bit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msrs, "accepted", lambda number, value, old: Word(1, 1))
    with pytest.raises(AssertionError):
        test_wrmsr_refuses_reserved_bits(0xC0000103, 1 << 32, 0)


def test_a_forgotten_privilege_check_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extended_state, "privileged", lambda cpu: None)
    with pytest.raises(AssertionError):
        test_privileged_instructions_fault_above_level_0("XSETBV", ("#GP", 0), OSXSAVE, 3)


def test_a_shift_by_the_whole_of_cl_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = arithmetic._shifted
    monkeypatch.setattr(
        arithmetic, "_shifted", lambda cpu, name, value, count: right(cpu, name, value, count | 1)
    )
    with pytest.raises(AssertionError):
        test_shifts_are_those_of_the_manuals_loop("SHL")


def test_a_popa_that_takes_the_stack_pointer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_frames, "ESP", 99)
    with pytest.raises(AssertionError):
        test_popa_gives_back_what_pusha_took_but_for_the_stack_pointer("PUSHAD", "POPAD")


# -- what a processor forgets and does not look at --------------------------------------------------------


@pytest.mark.parametrize(
    ("bit", "start", "stale"),
    [
        (5, 0, 0),
        (5, 1 << 5, 0),
        (7, 0, 0),
        (7, 1 << 7, 0),
        (20, 0, 0),
        (20, 1 << 20, 1),
        (4, 0, 1),
        (13, 0, 1),
    ],
)
def test_cr4_empties_the_tlbs_when_pae_or_pge_changes_or_smep_comes(bit: int, start: int, stale: int) -> None:
    state = at_level(0, eax=start ^ 1 << bit, cr4=start, tlb_stale=1)
    assert int(after("MOV CR4, r32", state, r32=0).tlb_stale) == stale


@pytest.mark.parametrize(
    ("cr0", "new", "stale"), [(0x80000011, 0x11, 0), (0x80000011, 0x80000013, 1), (0x11, 0x13, 1)]
)
def test_cr0_empties_the_tlbs_when_paging_ends(cr0: int, new: int, stale: int) -> None:
    assert int(after("MOV CR0, r32", at_level(0, eax=new, cr0=cr0, tlb_stale=1), r32=0).tlb_stale) == stale


@pytest.mark.parametrize("form", ["JZ rel8", "LOOP rel8", "JECXZ rel8"])
def test_only_a_jump_that_is_taken_looks_at_its_target(form: str) -> None:
    """The next instruction lies beyond the limit: its fetch faults, not the jump that is not taken (vol. 2A, Jcc)."""
    taken = {"eflags": 2 | 1 << 6, "ecx": 0} if form != "LOOP rel8" else {"ecx": 2}
    not_taken = {"eflags": 2 | 1, "ecx": 1}
    beyond = {"eip": 0x2000, "cs__limit": 0x1FF0}
    assert int(after(form, at_level(3, **not_taken, **beyond), rel8=0).eip) == 0x2002
    assert fault(form, at_level(3, **taken, **beyond), rel8=0) == ("#GP", 0)
