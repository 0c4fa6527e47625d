"""Real-address and virtual-8086 mode of IA-32, and the ways between the modes (SDM vol. 2 and vol. 3B, chapter 20).

Expected values are the manual's: which instructions are refused, what is pushed, which flags move.
"""

from __future__ import annotations

from typing import Any

import pytest
from ia32_steps import MACHINE, after, fault, peek, poke, run

from popek.architectures.ia32 import descriptors
from popek.architectures.ia32.instructions import flags, interrupts
from popek.architectures.ia32.state import VIRTUAL_8086_RIGHTS, Ia32, real_base
from popek.checks.runs import explore_instruction, operating_mode
from popek.checks.subject import Subject
from popek.checks.survey import Request, Surveyor
from popek.kernel import terms
from popek.kernel.configuration import Configuration, configure
from popek.kernel.outcome import NotModelled, Trap
from popek.kernel.words import Word

VM, IF, VIF, VIP, TF = 1 << 17, 1 << 9, 1 << 19, 1 << 20, 1 << 8
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
STACK, TSS = 0x25000, 0x14000


def real(**changes: int) -> Ia32:
    """A state in real-address mode, code at 2000:0, stack at 2000:5000, data at 3000:0."""
    state = Ia32.reset(cr0=0x10, eip=0, esp=0x5000)
    for name in SEGMENTS:
        selector = 0x2000 if name in ("cs", "ss") else 0x3000
        state[f"{name}.selector"], state[f"{name}.base"] = selector, selector << 4
        state[f"{name}.limit"], state[f"{name}.rights"] = 0xFFFF, 0x93
    state = state.with_changes({k.replace("__", "."): v for k, v in changes.items()})
    assert MACHINE.invariant(state).value == 1
    return state


def virtual(flags_: int = 0, **changes: int) -> Ia32:
    """The same in virtual-8086 mode, with these flags besides VM."""
    state = real().with_changes({"cr0": 0x11, "eflags": 2 | VM | flags_})
    for name in SEGMENTS:
        state[f"{name}.rights"] = VIRTUAL_8086_RIGHTS
    state = state.with_changes({k.replace("__", "."): v for k, v in changes.items()})
    assert MACHINE.invariant(state).value == 1
    return state


def iopl(level: int) -> int:
    return level << 12


# -- what exists ------------------------------------------------------------------------------------


def test_cpl_is_0_in_real_address_mode_and_3_in_virtual_8086_mode_whatever_the_selectors() -> None:
    assert int(real(cs__selector=0x2003, cs__base=0x20030).cpl) == 0
    assert int(virtual().cpl) == 3


@pytest.mark.parametrize("change", [{"ds.base": 0x12345}, {"ss.limit": 0xFFFFFFFF}, {"cs.rights": 0x9B}])
def test_virtual_8086_mode_fixes_the_hidden_parts(change: dict[str, int]) -> None:
    assert MACHINE.invariant(virtual().with_changes(change)).value == 0


def test_real_address_mode_keeps_hidden_parts_that_protected_mode_left() -> None:
    assert MACHINE.invariant(real().with_changes({"ds.limit": 0xFFFFFFFF, "ds.base": 0x100000})).value == 1
    assert MACHINE.invariant(real().with_changes({"cr0": 0x80000010})).value == 0


# -- refused instructions -----------------------------------------------------------------------------

DESCRIPTOR_FORMS = ("SLDT r16", "STR r16", "LLDT r16", "LTR r16", "LAR r32, r16", "LSL r32, r16", "VERR r16",
                    "VERW r16", "ARPL r16, r16")  # fmt: skip


@pytest.mark.parametrize("form", DESCRIPTOR_FORMS)
def test_what_needs_descriptors_is_undefined_outside_protected_mode(form: str) -> None:
    assert fault(form, real()) == fault(form, virtual()) == ("#UD", None)


@pytest.mark.parametrize(
    "form",
    ["HLT", "CLTS", "INVD", "RDMSR", "MOV r32, CR0", "MOV CR3, r32", "MOV DR0, r32", "LMSW r16", "WBINVD"],
)
def test_privileged_instructions_fault_in_virtual_8086_mode_and_run_in_real_address_mode(form: str) -> None:
    assert fault(form, virtual(iopl(3))) == ("#GP", 0)
    after(form, real(ecx=0x10))


def test_faults_have_no_error_code_in_real_address_mode() -> None:
    assert fault("MOV r32, m32", real(), m32_segment=3, m32_offset=0xFFFD) == ("#GP", None)
    assert fault("MOV r32, m32", virtual(), m32_segment=3, m32_offset=0xFFFD) == ("#GP", 0)


# -- segments and far transfers ---------------------------------------------------------------------


@pytest.mark.parametrize("state", [real(), virtual()], ids=["real", "virtual-8086"])
def test_a_segment_register_takes_any_selector_as_a_paragraph(state: Ia32) -> None:
    loaded = after("MOV Sreg, r16", state.with_changes({"ecx": 0xFFFF}), Sreg=3, r16=1)
    assert (int(loaded.ds.base), int(loaded.ds.limit)) == (0xFFFF0, 0xFFFF)
    assert loaded.ds.rights.value.value == state.ds.rights.value.value


@pytest.mark.parametrize("state", [real(), virtual()], ids=["real", "virtual-8086"])
def test_a_far_call_pushes_and_checks_nothing_but_the_limit(state: Ia32) -> None:
    called = after("CALL ptr16:16", state, ptr16_16_selector=0x37F0, ptr16_16_offset=0x100)
    assert (int(called.cs.base) + int(called.eip), int(called.eip)) == (0x38000, 0x100)
    assert peek(called, STACK - 4, 4) == 0x2000 << 16 | 2
    beyond = run("JMP ptr16:32", state, ptr16_32_selector=0x37F0, ptr16_32_offset=0x10000)
    assert isinstance(beyond, Trap)


def test_a_far_call_in_real_address_mode_does_not_go_beyond_64_kib_whatever_the_limit() -> None:
    wide = real(cs__limit=0xFFFFFFFF)
    beyond = {"ptr16_32_selector": 0x37F0, "ptr16_32_offset": 0x10000}
    assert fault("CALL ptr16:32", wide, **beyond) == ("#GP", None)
    assert int(after("JMP ptr16:32", wide, **beyond).eip) == 0x10000


@pytest.mark.parametrize("form", ["PUSHA", "PUSHAD"])
@pytest.mark.parametrize("pointer", [1, 3, 5, 7, 9, 11, 13, 15, 0x20])
def test_pusha_near_the_end_of_the_stack_is_a_protection_fault_for_five_pointers(
    form: str, pointer: int
) -> None:
    if pointer == 0x20:
        after(form, real(esp=pointer))
        return
    name = "#GP" if pointer >= 7 else "#SS"
    assert fault(form, real(esp=0xABCD0000 | pointer)) == (name, None)
    assert fault(form, virtual(esp=pointer)) == (name, 0)


# -- flags ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["PUSHFD", "POPFD", "PUSHF", "POPF", "IRET", "IRETD", "CLI", "STI", "INT imm8"]
)
def test_below_iopl_3_flag_instructions_go_to_the_monitor(form: str) -> None:
    assert fault(form, virtual(iopl(2))) == ("#GP", 0)


@pytest.mark.parametrize("form", ["PUSHFD", "POPFD", "IRETD"])
def test_vme_does_not_help_instructions_with_32_bit_operands(form: str) -> None:
    assert fault(form, virtual(iopl(0), cr4=1)) == ("#GP", 0)


def test_with_vme_cli_and_sti_move_vif_alone() -> None:
    cleared = after("CLI", virtual(IF | VIF, cr4=1))
    assert int(cleared.eflags.value) & (IF | VIF) == IF
    assert int(after("STI", virtual(cr4=1)).eflags.value) & (IF | VIF) == VIF
    assert fault("STI", virtual(VIP, cr4=1)) == ("#GP", 0)


def test_with_iopl_3_cli_moves_if() -> None:
    assert int(after("CLI", virtual(IF | VIF | iopl(3), cr4=1)).eflags.value) & (IF | VIF) == VIF


def test_pushf_with_vme_shows_vif_and_iopl_3() -> None:
    pushed = after("PUSHF", virtual(VIF | iopl(1), cr4=1))
    assert peek(pushed, STACK - 2, 2) == 2 | IF | 0x3000
    hidden = after("PUSHF", virtual(IF | iopl(1), cr4=1))
    assert peek(hidden, STACK - 2, 2) == 2 | 0x3000


def test_popf_with_vme_moves_vif_and_keeps_if_and_iopl() -> None:
    popped = after("POPF", poke(virtual(iopl(1), cr4=1), STACK, 0x7FD5 & ~TF, 2))
    assert int(popped.eflags.value) == (0x4CD5 | 2 | VM | VIF | iopl(1))
    assert fault("POPF", poke(virtual(cr4=1), STACK, TF, 2)) == ("#GP", 0)
    assert fault("POPF", poke(virtual(VIP, cr4=1), STACK, IF, 2)) == ("#GP", 0)
    assert int(after("POPF", poke(virtual(VIP, cr4=1), STACK, 0, 2)).eflags.vip) == 1


def test_popfd_at_iopl_3_keeps_iopl_vm_vif_and_vip() -> None:
    popped = after("POPFD", poke(virtual(iopl(3) | VIF), STACK, 0xFFFFFFFF, 4))
    assert int(popped.eflags.value) == 0x244FD5 | 2 | VM | VIF | iopl(3)


def test_popfd_in_real_address_mode_takes_iopl_and_keeps_vif_and_vip() -> None:
    popped = after("POPFD", poke(real(eflags=2 | VIP), STACK, 0xFFFFFFFF, 4))
    assert int(popped.eflags.value) == 0x247FD5 | 2 | VIP


# -- interrupts -------------------------------------------------------------------------------------


def test_int_in_real_address_mode_goes_through_the_table_at_idtr() -> None:
    state = poke(
        real(eflags=2 | IF | TF | 1 << 18, idtr__base=0x500, idtr__limit=0x3FF),
        0x500 + 4 * 0x21,
        0x30001234,
        4,
    )
    entered = after("INT imm8", state, imm8=0x21)
    assert (int(entered.cs.selector.value), int(entered.eip)) == (0x3000, 0x1234)
    assert int(entered.eflags.value) == 2
    assert [peek(entered, STACK - at, 2) for at in (2, 4, 6)] == [2 | IF | TF, 0x2000, 2]


def test_a_vector_beyond_the_table_is_a_general_protection_fault() -> None:
    assert fault("INT imm8", real(idtr__limit=4 * 0x21 + 2), imm8=0x21) == ("#GP", None)
    after("INT imm8", real(idtr__limit=4 * 0x21 + 3), imm8=0x21)


def redirection(bit: int, level: int, vme: int = 1) -> Ia32:
    """A TSS whose redirection map has this bit for vector 21H, and a handler for it at 3000:1234."""
    state = virtual(iopl(level) | IF | VIF, cr4=vme, tr__base=TSS, tr__limit=0x2088, idtr__base=0x12000)
    state = poke(poke(state, TSS + 0x66, 0x88, 2), TSS + 0x68 + 4, bit << 1, 1)
    return poke(state, 4 * 0x21, 0x30001234, 4)


@pytest.mark.parametrize(("level", "shown", "left"), [(3, IF, VIF), (0, IF, IF)])
def test_a_redirected_interrupt_stays_in_virtual_8086_mode(level: int, shown: int, left: int) -> None:
    entered = after("INT imm8", redirection(0, level), imm8=0x21)
    assert (int(entered.cs.selector.value), int(entered.eip)) == (0x3000, 0x1234)
    assert peek(entered, STACK - 2, 2) & (IF | 0x3000) == shown | 0x3000
    assert int(entered.eflags.value) & (IF | VIF | VM) == left | VM


def test_an_interrupt_that_is_not_redirected_needs_iopl_3() -> None:
    assert fault("INT imm8", redirection(1, 0), imm8=0x21) == ("#GP", 0)
    assert fault("INT imm8", redirection(0, 2, vme=0), imm8=0x21) == ("#GP", 0)


def with_gate(state: Ia32, dpl: int = 3, code: int = 0x00CF9B000000FFFF) -> Ia32:
    """A 32-bit trap gate for vector 21H to 8:38000, and a stack for level 0 in the TSS."""
    state = state.with_changes(
        {"gdtr.base": 0x10000, "gdtr.limit": 0x17, "tr.base": TSS, "idtr.base": 0x12000}
    )
    state = poke(state, 0x12000 + 8 * 0x21, 0x8000 | 8 << 16 | (0x8F00 | dpl << 13) << 32 | 3 << 48, 8)
    state = poke(poke(state, 0x10008, code, 8), 0x10010, 0x00CF93000000FFFF, 8)
    return poke(state, TSS + 4, 0x10 << 32 | 0x29000, 8)


def test_an_interrupt_leaves_virtual_8086_mode_with_everything_on_the_stack_of_level_0() -> None:
    state = with_gate(virtual(iopl(3) | IF, gs__selector=0x1234, gs__base=0x12340))
    entered = after("INT imm8", state, imm8=0x21)
    assert (int(entered.cpl), int(entered.eflags.vm), int(entered.eip)) == (0, 0, 0x38000)
    frame = [peek(entered, 0x29000 - 36 + 4 * i, 4) for i in range(9)]
    assert frame == [2, 0x2000, int(state.eflags.value), 0x5000, 0x2000, 0x3000, 0x3000, 0x3000, 0x1234]
    assert all(getattr(entered, name).rights.unusable.value == 1 for name in ("ds", "es", "fs", "gs"))
    assert MACHINE.invariant(entered).value == 1


def test_a_gate_from_virtual_8086_mode_must_lead_to_level_0() -> None:
    ring_1 = with_gate(virtual(iopl(3)), code=0x00CFBB000000FFFF)
    assert fault("INT imm8", ring_1, imm8=0x21) == ("#GP", 8)
    assert fault("INT imm8", with_gate(virtual(iopl(3)), dpl=2), imm8=0x21) == ("#GP", 0x21 * 8 + 2)


def test_int3_does_not_ask_for_iopl_in_virtual_8086_mode() -> None:
    state = poke(with_gate(virtual(iopl(0))), 0x12000 + 8 * 3, 0x8000 | 8 << 16 | 0xEF00 << 32 | 3 << 48, 8)
    assert int(after("INT3", state).eip) == 0x38000


# -- from mode to mode --------------------------------------------------------------------------------


def test_iretd_at_cpl_0_enters_virtual_8086_mode_and_int_comes_back_to_the_same_frame() -> None:
    state = with_gate(Ia32.reset(esp=0x25000))
    frame = (0x100, 0x37F0, 2 | VM | IF | VIF | iopl(3), 0x5000, 0x2000, 1, 2, 3, 0xFFFF)
    for number, word in enumerate(frame):
        state = poke(state, 0x25000 + 4 * number, word, 4)
    entered = after("IRETD", state)
    assert MACHINE.invariant(entered).value == 1
    assert (int(entered.cpl), int(entered.cs.base) + int(entered.eip)) == (3, 0x38000)
    assert int(entered.eflags.value) == frame[2]
    assert int(entered.gs.base) == int(real_base(Word(16, 0xFFFF)))
    back = after("INT imm8", entered, imm8=0x21)
    assert [peek(back, 0x29000 - 36 + 4 * i, 4) for i in range(1, 9)] == list(frame[1:])
    assert peek(back, 0x29000 - 36, 4) == 0x102


def test_iretd_above_cpl_0_ignores_vm_in_the_image() -> None:
    state = Ia32.reset(esp=0x25000).with_changes(
        {
            "cs.selector": 0x0B,
            "ss.selector": 0x13,
            "cs.rights": 0xC0FB,
            "ss.rights": 0xC0F3,
            "gdtr.base": 0x10000,
        }
    )
    state = poke(state, 0x10008, 0x00CFFB000000FFFF, 8)
    for number, word in enumerate((0x100, 0x0B, 2 | VM)):
        state = poke(state, 0x25000 + 4 * number, word, 4)
    assert int(after("IRETD", state).eflags.value) == 2


def test_clearing_pe_enters_real_address_mode_with_the_hidden_parts_as_they_were() -> None:
    entered = after("MOV CR0, r32", Ia32.reset(eax=0x10))
    assert (int(entered.cr0.pe), int(entered.cpl), int(entered.ds.limit)) == (0, 0, 0xFFFFFFFF)
    assert MACHINE.invariant(entered).value == 1
    assert isinstance(
        run("MOV CR0, r32", Ia32.reset(eax=0x10).with_changes({"ds.rights": 0x10000})), NotModelled
    )


def test_lmsw_sets_pe_and_never_clears_it() -> None:
    flat = real(cs__selector=0xF000, ss__selector=0x2000)
    assert int(after("LMSW r16", flat.with_changes({"eax": 1})).cr0.pe) == 1
    assert isinstance(run("LMSW r16", flat.with_changes({"eax": 1, "cs.selector": 0xF001})), NotModelled)
    assert int(after("LMSW r16", Ia32.reset(eax=0)).cr0.pe) == 1


def test_sysenter_leaves_virtual_8086_mode_without_a_return_address() -> None:
    state = virtual(IF).copy()
    for number, value in ((0x174, 0x08), (0x175, 0x29000), (0x176, 0x38000)):
        state.msr = state.msr.store(Word(32, number), Word(64, value))
    entered = after("SYSENTER", state)
    assert (int(entered.cpl), int(entered.eip), int(entered.gpr[4])) == (0, 0x38000, 0x29000)
    assert int(entered.eflags.value) == 2
    assert fault("SYSENTER", real()) == ("#GP", None)


# -- ports ------------------------------------------------------------------------------------------


def test_virtual_8086_mode_asks_the_permission_map_whatever_iopl_is() -> None:
    denied = virtual(iopl(3), tr__base=TSS, tr__limit=0x66)
    assert fault("IN AL, imm8", denied, imm8=0x80) == ("#GP", 0)
    allowed = poke(virtual(iopl(0), tr__base=TSS, tr__limit=0x2088), TSS + 0x66, 0x68, 2)
    after("IN AL, imm8", allowed, imm8=0x80)
    after("IN AL, imm8", real(tr__limit=0), imm8=0x80)


# -- the setting ------------------------------------------------------------------------------------


def test_a_fixed_mode_is_known_before_an_instruction_is_explored() -> None:
    fixed = {
        label: operating_mode(MACHINE, configure(MACHINE, [f"MODE={label}"]))
        for label in ("protected", "real")
    }
    assert fixed == {"protected": {"cr0.pe": 1, "eflags.vm": 0}, "real": {"cr0.pe": 0, "eflags.vm": 0}}
    assert operating_mode(MACHINE, Configuration()) == {}
    instruction = MACHINE.instructions["PUSHF"]
    everywhere = explore_instruction(MACHINE, instruction)
    protected = explore_instruction(MACHINE, instruction, configuration=configure(MACHINE, ()))
    assert len(protected.paths) < len(everywhere.paths)
    read = {name for path in protected.paths for c in path.conditions for name in terms.variables_of([c])}
    assert "cr4" not in read, "VME has no say in protected mode"


def test_the_mode_can_be_asked_about() -> None:
    def row(form: str, *settings: str) -> Any:
        request = Request(Subject.of("ia32", "ring-deprivileging-0/3/3", settings), components=False)
        return Surveyor(request).row(form)

    assert row("SMSW r32").classes["critical"].value == "yes"
    # With IOPL 0 and without VME a virtual-8086 monitor sees every POPF; SMSW shows it the real CR0 all the same.
    assert row("POPF", "MODE=virtual-8086", "VME=0").classes["critical"].value == "no"
    assert row("SMSW r32", "MODE=virtual-8086").classes["critical"].value == "yes"


# -- mutations: each would pass if the test above did not look ---------------------------------------------


def test_a_monitor_that_forgets_the_redirection_map_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_redirected", lambda cpu, vector: False)
    with pytest.raises(AssertionError):
        test_a_redirected_interrupt_stays_in_virtual_8086_mode(0, IF, IF)


def test_a_segment_load_that_resets_the_limit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_limit(segment: Any, selector: Word) -> None:
        segment.selector, segment.base, segment.limit = (
            selector,
            selector.zero_extend(32) << 3,
            Word(32, 0xFFFF),
        )

    monkeypatch.setattr(descriptors, "load_real_segment", with_limit)
    with pytest.raises(AssertionError):
        test_a_segment_register_takes_any_selector_as_a_paragraph(real())


def test_virtual_flags_that_show_the_real_if_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "virtual_flags", lambda cpu: cpu.eflags.value[15:0])
    with pytest.raises(AssertionError):
        test_pushf_with_vme_shows_vif_and_iopl_3()
