"""The Bochs step harness gives what the manuals say of the instructions that matter here.

The expected values come from the SDM's instruction pages, not from the harness.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from popek.emulators.ia32 import step
from popek.emulators.ia32.step import (
    ARENA_BYTES,
    CODE_BASE,
    CODE_SELECTORS,
    DATA_BASE,
    DATA_SELECTORS,
    FREE_SELECTOR,
    GDT_BASE,
    IDT_BASE,
    INNER_STACK_TOPS,
    LANDING_BYTE,
    RESERVED_SELECTOR,
    STACK_TOPS,
    TSS_BASE,
    TSS_SELECTOR,
    Ia32StepCase,
    StepCaseError,
    default_tss,
    gate_descriptor,
    initial_memory,
    initial_registers,
    run_steps,
    segment_descriptor,
)
from popek.emulators.x86.expectation import StepResult

pytestmark = pytest.mark.emulator

LANDING = DATA_BASE + 0x8000
PVI, UMIP, DE = 1 << 1, 1 << 11, 1 << 3
IF, VIF, VIP = 1 << 9, 1 << 19, 1 << 20
FAULT_GP, FAULT_NP, FAULT_SS = 13, 11, 12


def entry(selector: int, descriptor: bytes) -> tuple[int, bytes]:
    """A descriptor at its place in the default GDT."""
    return GDT_BASE + (selector & ~7), descriptor


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def outcome(result: StepResult) -> tuple[str, int | None, int | None]:
    return result.kind, result.vector, result.error_code


NEXT = ("next", None, None)


def gp(code: int = 0) -> tuple[str, int, int]:
    return "trap", FAULT_GP, code


def outcomes(cases: Sequence[Ia32StepCase]) -> list[tuple[str, int | None, int | None]]:
    return [outcome(result) for result in run_steps(cases)]


@pytest.mark.parametrize("model", ["tigerlake", "pentium"])
def test_popf_changes_what_cpl_and_iopl_allow(model: str) -> None:
    images = (0x247ED5, 0x247FD5, 0x3B7FD5, 0, 0x200, 0x3000, VIF | VIP)
    cases, expected = [], []
    for cpl in (0, 1, 2, 3):
        for iopl in (0, 1, 3):
            for image in images:
                for old in (2, 0x202, 0x4CD7):
                    for wide in (True, False):
                        old_flags = old | iopl << 12
                        keep_if = cpl > iopl
                        mask = 0x247FD5 if cpl == 0 else 0x244DD5 if keep_if else 0x244FD5
                        if not wide:
                            mask &= 0xFFFF
                        cases.append(
                            Ia32StepCase(
                                b"\x9d" if wide else b"\x66\x9d",
                                cpl,
                                {"eflags": old_flags},
                                memory=((STACK_TOPS[cpl], words(image)),),
                            )
                        )
                        pops = 4 if wide else 2
                        expected.append((old_flags & ~mask | image & mask, STACK_TOPS[cpl] + pops))
    results = run_steps(cases, model=model)
    assert {outcome(result) for result in results} == {NEXT}
    assert [(r.registers["eflags"], r.registers["esp"]) for r in results] == expected


def test_popf_gives_the_values_two_emulators_agreed_on() -> None:
    def flags(image: int, iopl: int, code: bytes) -> list[int]:
        cases = [
            Ia32StepCase(code, cpl, {"eflags": 2 | iopl << 12}, memory=((STACK_TOPS[cpl], words(image)),))
            for cpl in (0, 1, 3)
        ]
        return [result.registers["eflags"] for result in run_steps(cases)]

    assert flags(0x247ED5, 0, b"\x9d") == [0x247ED7, 0x244CD7, 0x244CD7]
    assert flags(0x247ED5, 1, b"\x9d") == [0x247ED7, 0x245ED7, 0x245CD7]
    assert flags(0x7ED5, 0, b"\x66\x9d") == [0x7ED7, 0x4CD7, 0x4CD7]


def test_pushf_shows_everything_but_rf() -> None:
    shown = 0x3C7CD7
    case = Ia32StepCase(b"\x9c", 3, {"eflags": shown | 1 << 16}, watch=((STACK_TOPS[3] - 4, 4),))
    (result,) = run_steps([case])
    assert outcome(result) == NEXT
    assert result.memory == (words(shown),)
    assert result.registers["esp"] == STACK_TOPS[3] - 4


def test_umip_makes_sgdt_smsw_and_their_kin_privileged() -> None:
    codes = {
        "SGDT": b"\x0f\x01\x05" + words(DATA_BASE),
        "SIDT": b"\x0f\x01\x0d" + words(DATA_BASE),
        "SLDT": b"\x0f\x00\xc0",
        "STR": b"\x0f\x00\xc8",
        "SMSW": b"\x0f\x01\xe0",
    }
    for umip in (0, UMIP):
        cases = [
            Ia32StepCase(code, cpl, {"cr4": umip, "cr0": 0x1B}, watch=((DATA_BASE, 6),))
            for code in codes.values()
            for cpl in range(4)
        ]
        results = run_steps(cases)
        assert [outcome(result) for result in results] == [
            gp() if umip and case.cpl else NEXT for case in cases
        ]
        for name, result in zip([n for n in codes for _ in range(4)], results, strict=True):
            if result.kind == "trap":
                assert result.registers["eip"] == CODE_BASE
                continue
            seen = result.memory[0] if name in ("SGDT", "SIDT") else result.registers["eax"] & 0xFFFF
            assert (
                seen
                == {
                    "SGDT": struct.pack("<HI", 0xFFF, GDT_BASE),
                    "SIDT": struct.pack("<HI", 0x7FF, IDT_BASE),
                    "SLDT": 0,
                    "STR": TSS_SELECTOR,
                    "SMSW": 0x1B,
                }[name]
            )


def test_cli_and_sti_follow_iopl_and_pvi() -> None:
    cases, expected = [], []
    for code in (b"\xfa", b"\xfb"):
        for cpl in range(4):
            for iopl in range(4):
                for cr4 in (0, PVI):
                    for flags in (0x2, 0x202, VIF | 2, VIP | 2):
                        before = flags | iopl << 12
                        cases.append(Ia32StepCase(code, cpl, {"eflags": before, "cr4": cr4}))
                        sti = code == b"\xfb"
                        after = None
                        if cpl <= iopl:
                            after = before | IF if sti else before & ~IF
                        elif cpl == 3 and cr4 and not (sti and before & VIP):
                            after = before | VIF if sti else before & ~VIF
                        expected.append((gp(), before) if after is None else (NEXT, after))
    results = run_steps(cases)
    assert [(outcome(result), result.registers["eflags"]) for result in results] == expected


def test_mov_to_ds_compares_dpl_with_the_greater_of_cpl_and_rpl() -> None:
    cases, expected = [], []
    for cpl in range(4):
        for dpl in range(4):
            for rpl in range(4):
                selector = FREE_SELECTOR | rpl
                descriptor = segment_descriptor(DATA_BASE, 0xFF, 0x409200 | dpl << 13)
                cases.append(
                    Ia32StepCase(
                        b"\x8e\xd8", cpl, {"eax": selector}, memory=(entry(FREE_SELECTOR, descriptor),)
                    )
                )
                allowed = dpl >= max(cpl, rpl)
                expected.append((NEXT, selector) if allowed else (gp(FREE_SELECTOR), DATA_SELECTORS[cpl]))
    results = run_steps(cases)
    assert [(outcome(result), result.registers["ds"]) for result in results] == expected
    loaded = next(result for result in results if result.kind == "next")
    assert (loaded.registers["ds.base"], loaded.registers["ds.limit"]) == (DATA_BASE, 0xFF)


def test_segment_loads_fault_as_the_manual_says() -> None:
    absent = entry(0x58, segment_descriptor(0, 0xFFFFF, 0xC07200))
    execute_only = entry(0x60, segment_descriptor(0, 0xFFFFF, 0xC0F800))
    memory = (absent, execute_only)

    def load(code: bytes, cpl: int, selector: int) -> Ia32StepCase:
        return Ia32StepCase(code, cpl, {"eax": selector}, memory=memory)

    ds, ss = b"\x8e\xd8", b"\x8e\xd0"
    assert outcomes(
        [
            load(ds, 3, 0x5B),
            load(ds, 3, 0x63),
            load(ds, 3, 0x1000),
            load(ds, 3, 0x0C),
            load(ds, 3, 3),
            load(ss, 0, 0),
            load(ss, 0, 0x5B),
            load(ss, 1, 0x5B),
            load(ss, 3, 0x5B),
            load(ss, 3, 0x10),
            load(b"\x8e\xc8", 0, 8),
        ]
    ) == [
        ("trap", FAULT_NP, 0x58),
        gp(0x60),
        gp(0x1000),
        gp(0x0C),
        NEXT,
        gp(),
        gp(0x58),
        gp(0x58),
        ("trap", FAULT_SS, 0x58),
        gp(0x10),
        ("trap", 6, None),
    ]


def test_a_null_data_segment_register_keeps_its_rpl_and_is_unusable() -> None:
    first, second = run_steps(
        [Ia32StepCase(b"\x8e\xd8", 3, {"eax": 3}), Ia32StepCase(b"\xa0\0\0\0\0", 3, {"ds": 3})]
    )
    assert first.registers["ds"] == 3
    assert first.registers["ds.access"] == 0
    assert outcome(second) == gp()


def test_lar_lsl_verr_and_verw_see_what_the_cpl_allows() -> None:
    conforming = entry(0x58, segment_descriptor(0, 0xFFFFF, 0xC09E00))
    call_gate = entry(0x60, gate_descriptor(8, LANDING, 0xEC00))
    absent = entry(0x68, segment_descriptor(0, 0x1234, 0x407200))
    zf = 0x40
    lar, lsl = b"\x0f\x02\xc1", b"\x0f\x03\xc1"
    verr, verw = b"\x0f\x00\xe1", b"\x0f\x00\xe9"
    cases, expected = [], []

    def add(code: bytes, selector: int, visible: Sequence[bool], value: int | None) -> None:
        for cpl in range(4):
            registers = {"ecx": selector, "eax": 0xABCD0123}
            cases.append(Ia32StepCase(code, cpl, registers, memory=(conforming, call_gate, absent)))
            eax = value if visible[cpl] and value is not None else 0xABCD0123
            expected.append((NEXT, zf if visible[cpl] else 0, eax & 0xFFF0FFFF))

    everyone, nobody, only_0 = [True] * 4, [False] * 4, [True, False, False, False]
    add(lar, 0x10, only_0, 0xC09300)
    add(lar, DATA_SELECTORS[1], [True, True, False, False], 0xC0B300)
    add(lar, DATA_SELECTORS[1] | 3, nobody, None)
    add(lar, 0x5B, everyone, 0xC09E00)
    add(lar, 0x60, everyone, 0x00EC00)
    add(lar, 0x68, everyone, 0x407200)
    add(lar, TSS_SELECTOR, only_0, 0x8B00)
    add(lar, 0, nobody, None)
    add(lar, 0x1000, nobody, None)
    add(lsl, 0x10, only_0, 0xFFFFFFFF)
    add(lsl, 0x68, everyone, 0x1234)
    add(lsl, 0x60, nobody, None)
    add(verr, 0x10, only_0, None)
    add(verr, 0x5B, everyone, None)
    add(verw, DATA_SELECTORS[1], [True, True, False, False], None)
    add(verw, 0x5B, nobody, None)
    results = run_steps(cases)
    # The manual leaves bits 19:16 of LAR's result undefined.
    assert [
        (outcome(r), r.registers["eflags"] & zf, r.registers["eax"] & 0xFFF0FFFF) for r in results
    ] == expected


def far_call(selector: int, offset: int = 0) -> bytes:
    return b"\x9a" + struct.pack("<IH", offset, selector)


def test_far_call_through_a_gate_to_the_same_ring_keeps_the_stack() -> None:
    gate = entry(FREE_SELECTOR, gate_descriptor(CODE_SELECTORS[1], LANDING, 0xEC00))
    case = Ia32StepCase(far_call(FREE_SELECTOR), 1, memory=(gate,), watch=((STACK_TOPS[1] - 8, 8),))
    (result,) = run_steps([case])
    assert outcome(result) == NEXT
    registers = result.registers
    assert (registers["cs"], registers["eip"], registers["cpl"]) == (CODE_SELECTORS[1], LANDING, 1)
    assert (registers["ss"], registers["esp"]) == (DATA_SELECTORS[1], STACK_TOPS[1] - 8)
    eip, cs = struct.unpack("<II", result.memory[0])
    assert (eip, cs & 0xFFFF) == (CODE_BASE + 7, CODE_SELECTORS[1])


def test_far_call_through_a_gate_to_an_inner_ring_switches_the_stack() -> None:
    gate = entry(FREE_SELECTOR, gate_descriptor(CODE_SELECTORS[1], LANDING, 0xEC02))
    top = INNER_STACK_TOPS[1]
    parameters = (STACK_TOPS[3], words(0x11111111, 0x22222222))
    case = Ia32StepCase(far_call(FREE_SELECTOR), 3, memory=(gate, parameters), watch=((top - 24, 24),))
    (result,) = run_steps([case])
    assert outcome(result) == NEXT
    registers = result.registers
    assert (registers["cs"], registers["eip"], registers["cpl"]) == (CODE_SELECTORS[1], LANDING, 1)
    assert (registers["ss"], registers["esp"]) == (DATA_SELECTORS[1], top - 24)
    eip, cs, first, second, esp, ss = struct.unpack("<6I", result.memory[0])
    assert (eip, cs & 0xFFFF) == (CODE_BASE + 7, CODE_SELECTORS[3])
    assert (first, second) == (0x11111111, 0x22222222)
    assert (esp, ss & 0xFFFF) == (STACK_TOPS[3], DATA_SELECTORS[3])


def test_far_transfers_fault_as_the_manual_says() -> None:
    to_1 = entry(0x50, gate_descriptor(CODE_SELECTORS[1], LANDING, 0xEC00))
    to_0 = entry(0x58, gate_descriptor(CODE_SELECTORS[0], LANDING, 0xEC00))
    closed = entry(0x60, gate_descriptor(CODE_SELECTORS[0], LANDING, 0x8C00))
    memory = (to_1, to_0, closed)
    jump = b"\xea" + struct.pack("<IH", 0, 0x50)

    def all_rings(code: bytes) -> list[Ia32StepCase]:
        return [Ia32StepCase(code, cpl, memory=memory) for cpl in (0, 1, 3)]

    results = run_steps(
        [
            *all_rings(far_call(0x50)),
            *all_rings(jump),
            *all_rings(far_call(0x58)),
            *all_rings(far_call(0x60)),
            *all_rings(far_call(0x08, LANDING)),
        ]
    )
    assert [outcome(result) for result in results] == [
        *(gp(0x18), NEXT, NEXT),
        *(gp(0x18), NEXT, gp(0x18)),
        *(NEXT, NEXT, NEXT),
        *(NEXT, gp(0x60), gp(0x60)),
        *(NEXT, gp(0x08), gp(0x08)),
    ]
    assert [result.registers["cs"] for result in results[6:9]] == [8, 8, 8]


def test_int_n_needs_a_gate_with_enough_dpl() -> None:
    closed = (IDT_BASE + 8 * 0x81, gate_descriptor(0x08, LANDING, 0x8E00))
    interrupt = (IDT_BASE + 8 * 0x82, gate_descriptor(0x08, LANDING, 0xEE00))
    trap = (IDT_BASE + 8 * 0x83, gate_descriptor(0x18, LANDING, 0xEF00))
    top0, top1 = INNER_STACK_TOPS[:2]
    flags = 0x202
    results = run_steps(
        [
            Ia32StepCase(
                bytes([0xCD, vector]),
                cpl,
                {"eflags": flags},
                memory=(closed, interrupt, trap),
                watch=((top0 - 20, 20), (top1 - 20, 20)),
            )
            for vector in (0x81, 0x82, 0x83)
            for cpl in (0, 1, 3)
        ]
    )
    assert [outcome(result) for result in results] == [
        *(NEXT, gp(0x40A), gp(0x40A)),
        *(NEXT, NEXT, NEXT),
        *(gp(0x18), NEXT, NEXT),
    ]
    ring_3_to_0, ring_3_to_1 = results[5], results[8]
    assert ring_3_to_0.registers["cs"] == 0x08
    assert ring_3_to_0.registers["eflags"] == flags & ~IF
    assert ring_3_to_0.registers["esp"] == top0 - 20
    assert ring_3_to_1.registers["cs"] == 0x19
    assert ring_3_to_1.registers["eflags"] == flags
    assert ring_3_to_1.registers["esp"] == top1 - 20
    eip, cs, pushed, esp, ss = struct.unpack("<5I", ring_3_to_1.memory[1])
    assert (eip, cs & 0xFFFF, pushed) == (CODE_BASE + 2, CODE_SELECTORS[3], flags)
    assert (esp, ss & 0xFFFF) == (STACK_TOPS[3], DATA_SELECTORS[3])


def test_software_interrupts_through_the_default_gates() -> None:
    results = run_steps(
        [
            Ia32StepCase(b"\xcd\x0d"),
            Ia32StepCase(b"\xcd\x0d", 1),
            Ia32StepCase(b"\xcc", 3),
            Ia32StepCase(b"\xf1", 3),
        ]
    )
    assert [outcome(result) for result in results] == [
        ("trap", 13, None),
        gp(13 * 8 + 2),
        gp(3 * 8 + 2),
        ("trap", 1, None),
    ]
    assert results[0].registers["eip"] == CODE_BASE + 2
    assert results[1].registers["eip"] == CODE_BASE


def test_iret_to_the_same_ring_takes_the_flags_that_the_cpl_allows() -> None:
    image = 0x383ED5
    results = run_steps(
        [
            Ia32StepCase(
                b"\xcf", cpl, memory=((STACK_TOPS[cpl], words(LANDING, CODE_SELECTORS[cpl], image)),)
            )
            for cpl in (0, 1, 3)
        ]
    )
    assert [outcome(result) for result in results] == [NEXT] * 3
    assert [result.registers["eflags"] for result in results] == [0x383ED7, 0x200CD7, 0x200CD7]
    for cpl, result in zip((0, 1, 3), results, strict=True):
        assert result.registers["eip"] == LANDING
        assert result.registers["esp"] == STACK_TOPS[cpl] + 12


def test_iret_to_an_outer_ring_drops_inner_data_segments() -> None:
    top = STACK_TOPS[0]
    frame = words(LANDING, CODE_SELECTORS[3], 0x3202, 0x2F000, DATA_SELECTORS[3])
    inner = words(LANDING, CODE_SELECTORS[0], 2)
    outer, refused = run_steps(
        [
            Ia32StepCase(b"\xcf", 0, {"es": DATA_SELECTORS[3]}, memory=((top, frame),)),
            Ia32StepCase(b"\xcf", 3, memory=((STACK_TOPS[3], inner),)),
        ]
    )
    assert outcome(outer) == NEXT
    registers = outer.registers
    assert (registers["cs"], registers["cpl"], registers["eip"]) == (CODE_SELECTORS[3], 3, LANDING)
    assert (registers["ss"], registers["esp"]) == (DATA_SELECTORS[3], 0x2F000)
    assert registers["eflags"] == 0x3202
    assert [registers[name] for name in ("ds", "es", "fs", "gs")] == [0, DATA_SELECTORS[3], 0, 0]
    assert outcome(refused) == gp(0x08)


def test_in_asks_iopl_and_then_the_bitmap_of_the_tss() -> None:
    tss = bytearray(default_tss()) + bytearray(32) + b"\xff"
    tss[0x68 + (0x70 >> 3)] |= 1
    memory = (
        (TSS_BASE, bytes(tss)),
        entry(TSS_SELECTOR, segment_descriptor(TSS_BASE, len(tss) - 1, 0x8900)),
    )
    cases = [
        Ia32StepCase(b"\xe4" + bytes([port]), cpl, {"eflags": 2 | iopl << 12}, memory=memory)
        for port in (0x70, 0x80)
        for cpl in (0, 1, 3)
        for iopl in (0, 1)
    ]
    # A word at 6FH needs bits 6FH and 70H; FFH is the last port whose second byte lies within the limit.
    cases += [Ia32StepCase(code, 3, memory=memory) for code in (b"\x66\xe5\x6f", b"\xe4\xff")]
    cases += [
        Ia32StepCase(b"\xba\0\1\0\0", 3, memory=memory),
        Ia32StepCase(b"\xec", 3, {"edx": 0x108}, memory=memory),
    ]
    # A TSS without bitmap.
    cases += [Ia32StepCase(b"\xe4\x80", 3), Ia32StepCase(b"\xe4\x80", 0)]
    assert outcomes(cases) == [
        *(NEXT, NEXT, gp(), NEXT, gp(), gp()),
        *(NEXT,) * 6,
        *(gp(), NEXT),
        *(NEXT, gp()),
        *(gp(), NEXT),
    ]


def test_mov_from_cs_shows_the_ring() -> None:
    results = run_steps([Ia32StepCase(b"\x8c\xc8", cpl) for cpl in range(4)])
    assert [result.registers["eax"] for result in results] == list(CODE_SELECTORS)


def test_a_segment_register_keeps_what_the_table_held_when_it_was_loaded() -> None:
    old = segment_descriptor(DATA_BASE, 0xFF, 0x40F200)
    new = segment_descriptor(DATA_BASE + 0x100, 0xF, 0x40F200)
    selector = FREE_SELECTOR | 3
    memory = (entry(selector, old), (DATA_BASE, words(0xAAAAAAAA)), (DATA_BASE + 0x100, words(0xBBBBBBBB)))
    read = b"\x64\xa1\x00\x00\x00\x00"
    reload = b"\x8e\xe0"
    registers = {"fs": selector, "eax": selector}
    results = run_steps(
        [
            Ia32StepCase(read, 3, registers, memory=memory),
            Ia32StepCase(read, 3, registers, memory=memory, stale=(entry(selector, new),)),
            Ia32StepCase(read, 3, registers, memory=memory, stale=(entry(selector, bytes(8)),)),
            Ia32StepCase(reload, 3, registers, memory=memory, stale=(entry(selector, new),)),
            Ia32StepCase(reload, 3, registers, memory=memory, stale=(entry(selector, bytes(8)),)),
        ]
    )
    assert [outcome(result) for result in results] == [NEXT, NEXT, NEXT, NEXT, gp(FREE_SELECTOR)]
    assert [result.registers["eax"] for result in results[:3]] == [0xAAAAAAAA] * 3
    bases = [result.registers["fs.base"] for result in results]
    assert bases == [DATA_BASE] * 3 + [DATA_BASE + 0x100, DATA_BASE]
    assert results[3].registers["fs.limit"] == 0xF
    assert results[3].registers["fs.access"] == 0x40F300


def test_a_stale_stack_segment_survives_too() -> None:
    selector = FREE_SELECTOR | 1
    old, new = (segment_descriptor(base, 0xFFF, 0x40B200) for base in (DATA_BASE, DATA_BASE + 0x1000))
    case = Ia32StepCase(
        b"\x50",
        1,
        {"ss": selector, "esp": 0x100, "eax": 0x12345678},
        memory=(entry(selector, old),),
        stale=(entry(selector, new),),
        watch=((DATA_BASE + 0xFC, 4), (DATA_BASE + 0x10FC, 4)),
    )
    (result,) = run_steps([case])
    assert outcome(result) == NEXT
    assert result.memory == (words(0x12345678), bytes([LANDING_BYTE] * 4))


def test_privileged_instructions_trap_in_the_outer_rings() -> None:
    codes = (b"\x0f\x06", b"\x0f\x20\xc0", b"\x0f\x22\xc0", b"\x0f\x21\xf8", b"\x0f\x32", b"\x0f\x08")
    cases = [
        Ia32StepCase(code, cpl, {"eax": 0x19, "ecx": 0x174, "cr0": 0x19})
        for code in codes
        for cpl in (0, 1, 3)
    ]
    results = run_steps(cases)
    assert [outcome(result) for result in results] == [gp() if case.cpl else NEXT for case in cases]
    assert [result.registers["cr0"] for result in results[:3]] == [0x11, 0x19, 0x19]


def test_table_loads_take_effect() -> None:
    operand = struct.pack("<HI", 0x123, 0x30100)
    lgdt, lidt = (code + words(DATA_BASE) for code in (b"\x0f\x01\x15", b"\x0f\x01\x1d"))
    cases = [
        Ia32StepCase(code, cpl, memory=((DATA_BASE, operand),)) for code in (lgdt, lidt) for cpl in (0, 3)
    ]
    results = run_steps(cases)
    assert [outcome(result) for result in results] == [NEXT, gp(), NEXT, gp()]
    gdtr, idtr = (
        [(r.registers[f"{name}.base"], r.registers[f"{name}.limit"]) for r in results]
        for name in ("gdtr", "idtr")
    )
    assert gdtr == [(0x30100, 0x123)] + [(GDT_BASE, 0xFFF)] * 3
    assert idtr == [(IDT_BASE, 0x7FF)] * 2 + [(0x30100, 0x123), (IDT_BASE, 0x7FF)]


def test_sysenter_reaches_ring_0_from_any_ring() -> None:
    msrs = {0x174: CODE_SELECTORS[0], 0x175: 0x2C000, 0x176: LANDING}
    closed, *opened = run_steps(
        [Ia32StepCase(b"\x0f\x34", 3), *(Ia32StepCase(b"\x0f\x34", c, msrs=msrs) for c in (0, 3))]
    )
    assert outcome(closed) == gp()
    for result in opened:
        assert outcome(result) == NEXT
        registers = result.registers
        assert (registers["cs"], registers["ss"], registers["cpl"]) == (0x08, 0x10, 0)
        assert (registers["eip"], registers["esp"]) == (LANDING, 0x2C000)
        assert dict(result.msrs) == msrs


def test_single_step_and_debug_registers() -> None:
    stepped, general_detect = run_steps(
        [Ia32StepCase(b"\x90", 3, {"eflags": 0x102}), Ia32StepCase(b"\x0f\x21\xf8", 0, {"dr7": 0x2400})]
    )
    assert outcome(stepped) == ("trap", 1, None)
    assert (stepped.registers["eip"], stepped.registers["eflags"]) == (CODE_BASE + 1, 0x102)
    assert stepped.registers["dr6"] & 0x4000
    assert outcome(general_detect) == ("trap", 1, None)
    assert general_detect.registers["eip"] == CODE_BASE
    assert general_detect.registers["dr6"] & 0x2000


def test_a_fault_without_a_usable_stack_is_a_double_fault() -> None:
    tiny = entry(FREE_SELECTOR, segment_descriptor(DATA_BASE, 0xFF, 0x409200))
    registers = {"ss": FREE_SELECTOR, "esp": 4, "ebx": 0x1234, "eflags": 0x4002}
    (result,) = run_steps([Ia32StepCase(b"\x0f\x0b", 0, registers, memory=(tiny,))])
    assert outcome(result) == ("trap", 8, 0)
    for name, value in initial_registers(Ia32StepCase(b"\x0f\x0b", 0, registers)).items():
        assert result.registers[name] == value, name


def test_a_bad_inner_stack_is_an_invalid_tss() -> None:
    gate = entry(FREE_SELECTOR, gate_descriptor(CODE_SELECTORS[0], LANDING, 0xEC00))
    no_ss0 = (TSS_BASE + 8, words(0))
    case = Ia32StepCase(far_call(FREE_SELECTOR), 3, memory=(gate, no_ss0), watch=((TSS_BASE, 0x68),))
    (result,) = run_steps([case])
    assert outcome(result) == ("trap", 10, 0)
    first = initial_registers(case)
    assert {name: result.registers[name] for name in first} == first
    assert result.memory == (initial_memory(case)[TSS_BASE : TSS_BASE + 0x68],)


def test_a_far_jump_to_a_tss_switches_the_task() -> None:
    task = bytearray(0x68)
    struct.pack_into("<I", task, 0x20, LANDING)
    struct.pack_into("<I", task, 0x24, 0x202)
    struct.pack_into("<8I", task, 0x28, 1, 2, 3, 4, 0x2F000, 6, 7, 8)
    selectors = (*(DATA_SELECTORS[3], CODE_SELECTORS[3]), *(DATA_SELECTORS[3],) * 4)
    struct.pack_into("<6I", task, 0x48, *selectors)
    struct.pack_into("<II", task, 4, INNER_STACK_TOPS[0], DATA_SELECTORS[0])
    memory = (
        entry(FREE_SELECTOR, segment_descriptor(DATA_BASE, 0x67, 0x8900)),
        (DATA_BASE, bytes(task)),
    )
    jump = Ia32StepCase(b"\xea" + struct.pack("<IH", 0, FREE_SELECTOR), 0, memory=memory)
    (result,) = run_steps([jump])
    assert outcome(result) == NEXT
    registers = result.registers
    assert [registers[name] for name in ("eax", "ecx", "edx", "ebx")] == [1, 2, 3, 4]
    assert [registers[name] for name in ("esp", "ebp", "esi", "edi")] == [0x2F000, 6, 7, 8]
    assert (registers["cs"], registers["eip"], registers["cpl"]) == (CODE_SELECTORS[3], LANDING, 3)
    assert (registers["tr"], registers["eflags"], registers["cr0"]) == (FREE_SELECTOR, 0x202, 0x19)


def test_hangs_and_shutdowns_do_not_disturb_their_neighbours() -> None:
    nop = Ia32StepCase(b"\x90", 3)
    dead = Ia32StepCase(b"\x0f\x0b", 0, {"idtr.limit": 0})
    results = run_steps(
        [nop, Ia32StepCase(b"\xf4"), Ia32StepCase(b"\xeb\xfe", 3), dead, nop, dead, dead, nop]
    )
    assert [result.kind for result in results] == [
        *("next", "hang", "hang", "triple-fault", "next", "triple-fault", "triple-fault", "next")
    ]
    assert results[0] == results[4] == results[7]


def test_a_state_that_cannot_be_loaded_is_told() -> None:
    results = run_steps(
        [
            Ia32StepCase(b"\x90", 0, {"ds": FREE_SELECTOR}),
            Ia32StepCase(b"\x90", 3, {"ds": DATA_SELECTORS[0]}),
            Ia32StepCase(b"\x90", 0, {"ldtr": 0x10}),
            Ia32StepCase(b"\x90", 0),
        ]
    )
    assert [outcome(result) for result in results] == [
        ("setup-failed", FAULT_GP, FREE_SELECTOR),
        ("setup-failed", None, None),
        ("setup-failed", FAULT_GP, 0x10),
        NEXT,
    ]


def test_an_instruction_without_effect_leaves_the_whole_state_as_it_was() -> None:
    ldt = segment_descriptor(DATA_BASE, 0xFF, 0x8200)
    local = (DATA_BASE, segment_descriptor(0x1000, 0xFFFF, 0x40F200))
    registers = {name: 0x01010101 * (index + 1) for index, name in enumerate(("eax", "ecx", "edx", "ebx"))}
    registers |= {"ebp": 5, "esi": 6, "edi": 7, "esp": 0x2FFF0, "eflags": 0x243AD7 | VIF, "es": 0x07}
    registers |= {"ldtr": FREE_SELECTOR, "fs": 3, "cr0": 0x60050031, "cr2": 0x123, "cr3": 0x5000}
    registers |= {"cr4": DE | UMIP, "idtr.limit": 0x3FF}
    registers |= {"dr0": 1, "dr1": 2, "dr2": 3, "dr3": 4, "dr6": 0xFFFF4FF1, "dr7": 0x10400}
    case = Ia32StepCase(
        b"\x90", 3, registers, memory=(entry(FREE_SELECTOR, ldt), local), watch=((0, ARENA_BYTES),)
    )
    (result,) = run_steps([case])
    assert outcome(result) == NEXT
    expected = initial_registers(case) | {"eip": CODE_BASE + 1}
    assert {name: result.registers[name] for name in expected} == expected
    assert result.memory == (initial_memory(case),)


def test_a_short_gdt_elsewhere_can_hold_the_reserved_descriptors() -> None:
    base = DATA_BASE + 0x800
    registers = {"gdtr.base": base, "gdtr.limit": 0x6F, "idtr.base": DATA_BASE, "eax": 0x73}
    cases = [Ia32StepCase(code, 3, registers, reserved=0x50) for code in (b"\x8e\xd8", b"\xfa", b"\x90")]
    assert outcomes(cases) == [gp(0x70), gp(), NEXT]


@pytest.mark.parametrize(
    "case",
    [
        Ia32StepCase(b"\x90", 4),
        Ia32StepCase(b"\x90", 0, {"eaxx": 1}),
        Ia32StepCase(b"\x90", 0, {"eax": 1 << 32}),
        Ia32StepCase(b"\x90", 0, {"cs": 0x3B}),
        Ia32StepCase(b"\x90", 0, {"cr0": 0x80000011}),
        Ia32StepCase(b"\x90", 0, {"eflags": 1 << 17}),
        Ia32StepCase(b"\x90", 3, {"tr": 0}),
        Ia32StepCase(b"\x90", 0, {"gdtr.limit": RESERVED_SELECTOR}),
        Ia32StepCase(b"\x90", 0, memory=((ARENA_BYTES - 1, b"\0\0"),)),
        Ia32StepCase(b"\xf4", 0, {"eflags": 0x102}),
        Ia32StepCase(b""),
    ],
)
def test_a_case_outside_the_contract_is_refused(case: Ia32StepCase) -> None:
    with pytest.raises(StepCaseError):
        initial_memory(case)


def test_an_unknown_register_gets_near_matches() -> None:
    with pytest.raises(StepCaseError, match=r"gdtr\.base"):
        initial_registers(Ia32StepCase(b"\x90", 0, {"gdtr_base": 0}))


def test_results_are_in_order_over_chunks() -> None:
    told: list[int] = []
    cases = [Ia32StepCase(b"\x40", cpl=n % 4, registers={"eax": n}) for n in range(50)]
    results = step._ROM.run(map(step.prepare, cases), chunk=20, progress=told.append)
    assert [result.registers["eax"] for result in results] == list(range(1, 51))
    assert told == [20, 40, 50]
