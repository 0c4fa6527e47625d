"""What VT-x must be set to, derived: against the manual's exit reasons, and with witnesses."""

from __future__ import annotations

import itertools
import json
import re
from functools import cache, partial

import pytest

from popek.architectures.ia32.state import Ia32
from popek.architectures.vtx.operation.assistance import VT_X, governed_forms, machine
from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.ownership import EVERYTHING, OWNABLE, VmxProfile, profile
from popek.architectures.vtx.operation.settings import bit_numbers
from popek.architectures.vtx.operation.state import VmxIa32
from popek.architectures.x86.interception import Interception
from popek.assistance import exits
from popek.assistance.desk import Desk, Duty, desk_of
from popek.assistance.exits import Governed
from popek.assistance.needs import NeedRow, derive
from popek.assistance.requirements import Requirement
from popek.assistance.witness import witness
from popek.cli.assist import requirements as command
from popek.cli.errors import UserError
from popek.kernel.assistance import AssistanceError
from popek.kernel.exploration import explore
from popek.kernel.outcome import Trap
from popek.report import assistance as report
from popek_specs.vtx import rows

DESK = desk_of(VT_X)
ALL = profile(EVERYTHING)
SHADOW_PAGING = profile(EVERYTHING | {"cr3"})


def required(form: str, owned: VmxProfile, mode: str = "") -> Requirement:
    """What a form asks of the controls."""
    return DESK.required(form, owned, mode)


def short(text: str) -> str:
    """A condition without the names of the control words."""
    return report.short(VT_X, text)


def sound(form: str, owned: VmxProfile = ALL) -> str:
    """The weakest condition for fidelity and safety."""
    found = required(form, owned)
    assert not found.undecided & found.sound
    return short(found.condition(found.sound))


# -- weakest conditions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "condition"),
    [
        ("CPUID", "always"),
        ("INVD", "always"),
        ("XSETBV", "always"),
        ("SGDT m", "always"),
        ("STR r16", "always"),
        ("PAUSE", "always"),
        ("MOV r32, CR2", "always"),
        ("HLT", "hlt_exiting = 1"),
        ("WBINVD", "wbinvd_exiting = 1"),
        ("RDPMC", "rdpmc_exiting = 1"),
        ("MOV DR0, r32", "mov_dr_exiting = 1"),
        ("MOV r32, DR5", "mov_dr_exiting = 1"),
        ("SMSW r32", "cr0_mask = 1"),
        ("MOV CR0, r32", "cr0_mask = 1"),
        ("MOV CR4, r32", "cr4_mask = 1"),
        ("RDTSC", "rdtsc_exiting = 1 or use_tsc_offsetting = 1"),
        ("WRMSR", "msr_bitmap = 1 or use_msr_bitmaps = 0"),
        (
            "OUT DX, AL",
            "io_bitmap = 1 and use_io_bitmaps = 1 or unconditional_io_exiting = 1 and use_io_bitmaps = 0",
        ),
    ],
)
def test_weakest_conditions(form: str, condition: str) -> None:
    found = sound(form)
    assert sorted(" and ".join(sorted(c.split(" and "))) for c in found.split(" or ")) == sorted(
        " and ".join(sorted(c.split(" and "))) for c in condition.split(" or ")
    )


def test_shadow_paging_needs_the_three_exits_that_ept_spares() -> None:
    for form, control in (
        ("MOV CR3, r32", "cr3_load_exiting"),
        ("MOV r32, CR3", "cr3_store_exiting"),
        ("INVLPG m", "invlpg_exiting"),
    ):
        assert sound(form, SHADOW_PAGING) == f"{control} = 1"
        assert sound(form) == "always"


def test_what_the_vmm_does_not_own_needs_nothing() -> None:
    nothing = profile(())
    for form in ("HLT", "RDTSC", "RDPMC", "WBINVD", "MOV DR0, r32", "IN AL, DX", "RDMSR", "WRMSR"):
        assert sound(form, nothing) == "always", form
    # VMX operation itself is always the VMM's.
    assert sound("MOV r32, CR4", nothing) == "cr4_mask = 1"
    assert sound("SMSW r32", nothing) == "cr0_mask = 1"


@pytest.mark.parametrize(
    ("owner", "form"),
    [
        ("time", "RDTSC"), ("cr3", "MOV CR3, r32"), ("debug", "MOV DR7, r32"), ("counters", "RDPMC"),
        ("msrs", "WRMSR"), ("apic", "RDMSR"), ("ports", "INSB"), ("halt", "HLT"), ("caches", "WBNOINVD"),
    ],
)  # fmt: skip
def test_each_ownership_asks_something(owner: str, form: str) -> None:
    assert sound(form, profile([owner])) != "always"


def test_a_feature_is_enabled_for_the_guest_that_is_told_of_it_alone() -> None:
    assert "enable_invpcid = 1" in sound("INVPCID r32, m128")
    hidden = profile(EVERYTHING, hidden=["secondary.enable_invpcid"])
    assert "enable_invpcid = 0" in sound("INVPCID r32, m128", hidden)


def test_an_unrestricted_guest_may_own_pe_and_pg_with_the_control_alone() -> None:
    free = profile(EVERYTHING, unrestricted=True)
    found = required("MOV CR0, r32", free)
    assert found.knobs == ("secondary.unrestricted_guest", "cr0_mask")
    assert found.faithful == {(1, 1)}


def test_a_change_that_the_vmm_never_learns_of_is_unfaithful_too() -> None:
    for form, control, owned in (
        ("HLT", "hlt_exiting", ALL),
        ("MOV CR3, r32", "cr3_load_exiting", SHADOW_PAGING),
        ("MOV DR0, r32", "mov_dr_exiting", ALL),
    ):
        found = required(form, owned)
        assert short(found.condition(found.faithful)) == f"{control} = 1"
        assert short(found.condition(found.safe)) == f"{control} = 1"


def test_nmis_that_exit_need_to_be_virtual() -> None:
    found = required("IRETD", ALL)
    assert short(found.condition(found.faithful)) == "nmi_exiting = 0 or virtual_nmis = 1"


def test_a_name_that_cannot_be_owned_is_refused() -> None:
    with pytest.raises(AssistanceError, match=r"'prots'.*did you mean ports"):
        VT_X.owner(["prots"])
    assert {"time", "cr3", "apic", "ports"} <= set(OWNABLE)


# -- other modes ---------------------------------------------------------------------------------------

UNRESTRICTED = profile(EVERYTHING, unrestricted=True)


def test_in_real_address_and_virtual_8086_mode_privilege_and_tables_are_others() -> None:
    # Undefined in both modes, so there is nothing that could exit.
    for mode in ("real", "virtual-8086"):
        assert required("STR r16", UNRESTRICTED, mode).exits == frozenset()
    assert required("STR r16", UNRESTRICTED).exits
    # Real-address mode is CPL 0, virtual-8086 mode CPL 3.
    for form in ("HLT", "LGDT m16&32", "INVLPG m", "WBINVD"):
        assert required(form, UNRESTRICTED, "real").exits
        assert required(form, UNRESTRICTED, "virtual-8086").exits == frozenset()
    found = required("HLT", UNRESTRICTED, "real")
    assert short(found.condition(found.sound)) == "hlt_exiting = 1"
    found = required("HLT", UNRESTRICTED, "virtual-8086")
    assert found.condition(found.sound) == "always"


def test_no_mode_asks_more_than_protected_mode() -> None:
    """So controls that are synthesized for protected mode are sound in every mode."""
    forms = [form for form in DESK.representatives() if required(form, UNRESTRICTED).knobs]
    assert len(forms) > 40
    for form in forms:
        protected = required(form, UNRESTRICTED)
        for mode in ("real", "virtual-8086"):
            other = required(form, UNRESTRICTED, mode)
            names = tuple(dict.fromkeys((*protected.knobs, *other.knobs)))
            for values in itertools.product((0, 1), repeat=len(names)):
                setting = dict(zip(names, values, strict=True))
                assert other.allows(setting) or not protected.allows(setting), (form, mode, setting)


def test_a_witness_in_real_address_mode() -> None:
    row = next(iter(derive(DESK, ["OUT DX, AL"], UNRESTRICTED, mode="real", witnesses=True)))
    assert row.needs
    for need in row.needs:
        assert need.witness.guest["cr0.pe"] == "0x0"
        assert need.witness.vmm["secondary.unrestricted_guest"] == "0x1"


def test_only_an_unrestricted_guest_is_in_real_address_mode_on_the_hardware() -> None:
    with pytest.raises(ValueError, match="only an unrestricted guest"):
        required("HLT", ALL, "real")
    with pytest.raises(UserError, match=r"--mode real: .*add --assume unrestricted"):
        command("vt-x", "HLT", mode="real")


def test_the_command_says_which_mode(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("vt-x", "STR r16", mode="virtual-8086") == 0
    assert "; in virtual-8086 mode" in capsys.readouterr().out
    assert command("vt-x", "STR r16", mode="real", assume=("unrestricted",), json=True) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == "real"


# -- the manual's exit reasons -----------------------------------------------------------------------


@cache
def derived() -> tuple[Governed, ...]:
    """Which control decides about which exit."""
    return tuple(row for form in DESK.representatives() for row in exits.governs(DESK, form))


# Controls that the facts name for a reason, and why the derivation does not find them.
NOT_FOUND = {
    (28, "primary.cr8_load_exiting"): "CR8 exists in 64-bit mode alone",
    (28, "primary.cr8_store_exiting"): "CR8 exists in 64-bit mode alone",
    (40, "secondary.pause_loop_exiting"): "the PAUSE loop is about time",
}


def test_the_derived_controls_are_those_of_the_exit_reasons() -> None:
    names = {(name.partition(".")[0], bit): name for name, bit in bit_numbers().items()}
    words = {"pin": "pin", "pri": "primary", "sec": "secondary"}
    facts = {int(row["number"]): row for row in rows("exit-reasons.csv")}
    found: dict[int, set[str]] = {}
    for item in derived():
        if item.reason is not None:
            found.setdefault(item.reason, set()).update(c for c in item.controls if "." in c)
    assert len(found) > 35
    for reason, controls in found.items():
        trigger = facts[reason]["trigger"] if reason != 64 else facts[63]["trigger"]
        stated = {
            names[words[word], int(bit)] for word, bit in re.findall(r"\b(pin|pri|sec)\[(\d+)\]", trigger)
        }
        missing = {control for control in stated - controls if (reason, control) not in NOT_FOUND}
        assert (controls - stated, missing) == (set(), set()), f"{reason}: {trigger}"
        if facts[reason]["class"] == "unconditional" and reason != 9:
            assert controls == set()


def test_masks_and_bitmaps_decide_where_the_facts_say_so() -> None:
    facts = {int(row["number"]): row["trigger"] for row in rows("exit-reasons.csv")}
    by_form = {item.form: item for item in derived()}
    for form, cover, word in (
        ("MOV CR0, r32", "cr0_mask", "mask"), ("CLTS", "cr0_mask", "CLTS"), ("LMSW r16", "cr0_mask", "LMSW"),
        ("MOV CR4, r32", "cr4_mask", "mask"), ("IN AL, imm8", "io_bitmap", "bitmap"), ("RDMSR", "msr_bitmap", "bitmap"),
        ("WRMSR", "msr_bitmap", "bitmap"),
    ):  # fmt: skip
        item = by_form[form]
        assert cover in item.controls
        assert item.reason is not None
        assert word in facts[item.reason]


def test_where_the_grouping_is_coarser_is_said() -> None:
    found = report.groupings(VT_X, derived())
    reasons = " ".join(found["one exit reason, several controls"])
    assert reasons.startswith("28 CR_ACCESS")
    for control in ("cr3_load_exiting", "cr3_store_exiting", "cr0_mask", "cr4_mask"):
        assert control in reasons
    controls = " ".join(found["one control, several exit reasons"])
    for text in ("invlpg_exiting (14, 58)", "rdtsc_exiting (16, 51)", "descriptor_table_exiting (46, 47)"):
        assert text in controls


# -- every form has a hook or never exits --------------------------------------------------------------

TASK_SWITCHES = ("CALL far", "JMP far", "INT n", "INT1", "INT3", "INTO", "IRET")
NO_MNEMONICS = {"MOV"}  # of MOV_DR
OUTSIDE_SMM = {"RSM"}  # undefined in this machine


class _AllFeasible:
    """An oracle that prunes nothing: paths that cannot be taken are looked at, too."""

    assignment = None

    def push(self, condition: object) -> None:
        """Take a condition for possible."""

    def pop(self) -> None:
        """Forget it."""

    def feasible(self) -> bool:
        """Say yes."""
        return True


def test_a_form_has_a_hook_or_never_exits() -> None:
    """Forms without a hook are run along every path: none is an exit."""
    known, governed = machine(), set(governed_forms())
    free = [
        instruction
        for form, instruction in known.instructions.items()
        if form not in governed and instruction.mnemonic not in TASK_SWITCHES
    ]
    assert len(free) > 150
    for instruction in free:
        state = known.state.symbolic().with_changes({"non_root": 1})
        paths = explore(partial(known.step, instruction, state, instruction.symbols()), _AllFeasible())
        exits = [p for p in paths if isinstance(p.result, Trap) and p.result.vector is VM_EXIT]
        assert not exits, f"{instruction.form} exits, and no hook was seen from a plain state"


def test_task_switches_are_the_only_exits_of_far_transfers() -> None:
    for form in ("JMP ptr16:32", "CALL ptr16:32"):
        found = [
            p.result
            for p in DESK.run(form).paths
            if isinstance(p.result, Trap) and p.result.vector is VM_EXIT
        ]
        assert found
        assert {int(trap.state.exit_reason) for trap in found} == {9}


def test_every_instruction_that_can_exit_by_its_mnemonic_has_a_hook() -> None:
    """The mnemonics that the exit reasons name, where this machine has them."""
    named = {name for row in rows("exit-reasons.csv") for name in re.findall(r"[A-Z]{3,}", row["name"])}
    have = {i.mnemonic for i in machine().instructions.values()}
    hooked = {machine().instructions[form].mnemonic for form in governed_forms()}
    assert named & have - hooked == NO_MNEMONICS | OUTSIDE_SMM
    assert len(named & hooked) > 30


def test_a_hook_on_the_bare_processor_changes_nothing() -> None:
    cpu = Ia32.reset(cr0=0x80000031, cr4=0x2000, tsc=5)
    bare = Interception()
    before = dict(cpu.words())
    bare.instruction(cpu, "HLT")
    bare.recognized(cpu, "INVPCID")
    bare.msr(cpu, write=True)
    assert int(bare.time_stamp(cpu)) == 5
    assert int(bare.read_control_register(cpu, 0)) == 0x80000031
    assert dict(cpu.words()) == before
    assert type(Ia32.interception) is Interception
    assert type(VmxIa32.interception) is not Interception
    assert not {leaf.name for leaf in Ia32.leaves} & {"non_root", "primary.hlt_exiting"}


# -- witnesses -----------------------------------------------------------------------------------------


def needs(form: str, owned: VmxProfile = ALL) -> NeedRow:
    """The requirement with a witness for each need."""
    return next(iter(derive(DESK, [form], owned, witnesses=True)))


def test_each_need_has_a_witness() -> None:
    for form in ("HLT", "RDTSC", "MOV CR3, r32", "IN AL, DX"):
        row = needs(form, SHADOW_PAGING)
        controls = {need.knob for need in row.needs}
        assert controls, form
        for need in row.needs:
            assert need.witness.setting[need.knob] == 1 - need.value
            assert need.witness.failure in ("unfaithful", "unsafe")
            assert need.witness.native != need.witness.virtualized or need.witness.failure == "unsafe"


def test_a_silent_msr_bitmap_over_an_owned_msr_is_refuted_with_both_instructions() -> None:
    silent = {"primary.use_msr_bitmaps": 1, "msr_bitmap": 0, "primary.use_tsc_offsetting": 1}
    for form, failure in (("RDMSR", "unfaithful"), ("WRMSR", "unsafe")):
        due = DESK.duty(form, ALL)
        shown = witness(due, {name: value for name, value in silent.items() if name in due.knobs})
        assert shown.failure == failure
        assert shown.assembly == form
        assert "msr" in shown.virtualized or "e" in shown.virtualized


def test_an_open_port_shows_the_device_to_the_guest() -> None:
    shown = witness(DESK.duty("OUT imm8, AL", ALL), {"primary.use_io_bitmaps": 1, "io_bitmap": 0})
    assert shown.failure == "unsafe"
    assert "ports" in shown.virtualized


def test_a_failure_that_is_none_has_no_witness() -> None:
    with pytest.raises(RuntimeError, match="no failure"):
        witness(DESK.duty("HLT", ALL), {"primary.hlt_exiting": 1})


# -- exits that another setting spares -------------------------------------------------------------------


def test_needless_exits_are_those_that_a_sound_setting_spares() -> None:
    table: Requirement = required("SGDT m", ALL)
    assert exits.excess(DESK.duty("SGDT m", ALL), table) == {(1,)}
    clock = required("RDTSC", ALL)
    spared = exits.excess(DESK.duty("RDTSC", ALL), clock)
    assert {setting[clock.knobs.index("primary.rdtsc_exiting")] for setting in spared} == {1}
    assert exits.excess(DESK.duty("HLT", ALL), required("HLT", ALL)) == frozenset()


# -- mutations: what the questions must notice -----------------------------------------------------------


def _failing(due: Duty) -> bool:
    return any(c.value != 0 and due.ask([c]) is not False for c in (due.unfaithful, due.unsafe))


def test_a_processor_that_forgets_the_read_shadow_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from popek.architectures.vtx.operation.non_root import NonRoot

    setting = {"cr0_mask": 1}
    form = "SMSW r32"
    assert not _failing(DESK.duty(form, ALL, setting))
    monkeypatch.setattr(NonRoot, "read_control_register", Interception.read_control_register)
    assert _failing(Desk(VT_X).duty(form, ALL, setting))
