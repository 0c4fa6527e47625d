"""Guest mode of IA-32 with SVM: each intercept alone, its place among the faults, and what the exit tells.

Exit codes, places and formats are those of AMD64 APM vol. 2, chapter 15 and appendix C, written down here again.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from popek.architectures.svm.operation import guest_mode, intercepts
from popek.architectures.svm.operation.exits import VM_EXIT
from popek.architectures.svm.operation.machine import build
from popek.architectures.svm.operation.settings import bits
from popek.architectures.svm.operation.state import SvmIa32
from popek.architectures.svm.vmcb import intercepts as named
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import Word

MACHINE: Final = build()
SVME: Final = 0x1000
LENGTH: Final = 3

# The instruction's form, its intercept, the exit code.
ALONE: Final = (
    ("SIDT m", "vector3.idtr_read", 0x66),
    ("SGDT m", "vector3.gdtr_read", 0x67),
    ("SLDT r32", "vector3.ldtr_read", 0x68),
    ("STR m16", "vector3.tr_read", 0x69),
    ("LIDT m16&32", "vector3.idtr_write", 0x6A),
    ("LGDT m16&32", "vector3.gdtr_write", 0x6B),
    ("LLDT r16", "vector3.ldtr_write", 0x6C),
    ("LTR m16", "vector3.tr_write", 0x6D),
    ("RDTSC", "vector3.rdtsc", 0x6E),
    ("RDPMC", "vector3.rdpmc", 0x6F),
    ("PUSHFD", "vector3.pushf", 0x70),
    ("POPF", "vector3.popf", 0x71),
    ("CPUID", "vector3.cpuid", 0x72),
    ("RSM", "vector3.rsm", 0x73),
    ("IRETD", "vector3.iret", 0x74),
    ("INT imm8", "vector3.intn", 0x75),
    ("INVD", "vector3.invd", 0x76),
    ("PAUSE", "vector3.pause", 0x77),
    ("HLT", "vector3.hlt", 0x78),
    ("INVLPG m", "vector3.invlpg", 0x79),
    ("INVLPGA", "vector3.invlpga", 0x7A),
    ("VMRUN", "vector4.vmrun", 0x80),
    ("VMMCALL", "vector4.vmmcall", 0x81),
    ("VMLOAD", "vector4.vmload", 0x82),
    ("VMSAVE", "vector4.vmsave", 0x83),
    ("STGI", "vector4.stgi", 0x84),
    ("CLGI", "vector4.clgi", 0x85),
    ("SKINIT", "vector4.skinit", 0x86),
    ("RDTSCP", "vector4.rdtscp", 0x87),
    ("INT1", "vector4.icebp", 0x88),
    ("WBINVD", "vector4.wbinvd", 0x89),
    ("WBNOINVD", "vector4.wbinvd", 0x89),
    ("MONITOR seg", "vector4.monitor", 0x8A),
    ("MWAIT", "vector4.mwait", 0x8B),
    ("XSETBV", "vector4.xsetbv", 0x8D),
    ("INVPCID r32, m128", "vector5.invpcid", 0xA2),
    ("MOV r32, CR0", "cr_read.cr0", 0x00),
    ("SMSW m16", "cr_read.cr0", 0x00),
    ("MOV r32, CR2", "cr_read.cr2", 0x02),
    ("MOV r32, CR3", "cr_read.cr3", 0x03),
    ("MOV r32, CR4", "cr_read.cr4", 0x04),
    ("MOV CR0, r32", "cr_write.cr0", 0x10),
    ("LMSW m16", "cr_write.cr0", 0x10),
    ("CLTS", "cr_write.cr0", 0x10),
    ("MOV CR2, r32", "cr_write.cr2", 0x12),
    ("MOV CR3, r32", "cr_write.cr3", 0x13),
    ("MOV CR4, r32", "cr_write.cr4", 0x14),
    ("LMSW r16", "vector3.cr0_sel_write", 0x65),
    *((f"MOV r32, DR{n}", f"dr_read.dr{n}", 0x20 + n) for n in range(8)),
    *((f"MOV DR{n}, r32", f"dr_write.dr{n}", 0x30 + n) for n in range(8)),
    ("INT3", "exceptions.bp", 0x43),
    ("INTO", "exceptions.of", 0x44),
    ("UD2", "exceptions.ud", 0x46),
)
EARLY: Final = ("PUSHFD", "POPF", "IRETD", "INT imm8", "INT1", "XSETBV", "VMMCALL", "CPUID", "RSM", "PAUSE")
"""Forms whose intercept comes before checks of privilege, or that check none."""
OPEN: Final = (
    "SIDT m",
    "SGDT m",
    "SLDT r32",
    "STR m16",
    "SMSW m16",
    "INT3",
    "INTO",
    "UD2",
    "RDTSC",
    "RDTSCP",
)
"""Forms that CPL 3 may execute as CR4 is here."""


def guest(**changes: int) -> SvmIa32:
    """A guest at CPL 0 that nothing is intercepted of."""
    state = SvmIa32.reset(cr0=0x80000011, guest_mode=1, eax=0x1000, eflags=0x802, cr4=0x40000)
    state = state.with_changes({"vector4": 0})
    state.msr = state.msr.store(Word(32, 0xC0000080), Word(64, SVME))
    return state.with_changes({name.replace("__", "."): value for name, value in changes.items()})


def user(state: SvmIa32, level: int = 3) -> SvmIa32:
    """At another privilege level."""
    return state.with_changes(
        {f"{name}.{part}": level for name in ("cs", "ss") for part in ("selector.rpl", "rights.dpl")}
    )


def run(form: str, state: SvmIa32, machine: Any = MACHINE, **operands: int) -> Outcome[SvmIa32]:
    instruction = machine.instructions[form]
    given = {name.replace("_", " "): value for name, value in operands.items()}
    parts = {
        name: Word(
            width, given.get(name, LENGTH if name == "operand length" else operand.kind.first.get(part, 0))
        )
        for operand in instruction.inputs
        for part, (name, width) in zip(operand.kind.parts, operand.part_names(), strict=True)
    }
    outcome: Outcome[SvmIa32] = machine.step(instruction, state, parts)
    return outcome


def code(outcome: Outcome[SvmIa32]) -> int | None:
    """The exit code; None where the guest was not left."""
    if isinstance(outcome, Trap) and outcome.vector is VM_EXIT:
        assert int(outcome.state.exit_code) == int(outcome.error_code or 0)
        return int(outcome.state.exit_code)
    return None


def vector(outcome: Outcome[SvmIa32]) -> str:
    assert isinstance(outcome, Trap)
    return outcome.vector.name


@pytest.mark.parametrize(("form", "control", "expected"), ALONE, ids=[f"{f} by {c}" for f, c, _ in ALONE])
def test_each_intercept_alone_decides(form: str, control: str, expected: int) -> None:
    state = guest()
    every = state.with_changes(
        {name: 1 for name in bits() if not name.startswith(("enables", "cr_write_trap"))}
    )
    both = {"vector3.cr0_sel_write": 0, "vector4.mwait_armed": 0, control: 0}
    source = {"operand_r32": 1} if form == "MOV CR4, r32" else {}  # ECX, which is 0
    assert code(run(form, state, **source)) is None
    found = run(form, state.with_changes({control: 1}), **source)
    assert code(found) == expected
    assert isinstance(found, Trap)
    assert int(found.state.eip) == int(state.eip)
    follows = int(state.eip) + LENGTH if control != "exceptions.ud" else 0
    assert int(found.state.exit_next_rip) == follows
    assert code(run(form, every.with_changes(both))) != expected
    assert code(run(form, state.with_changes({control: 1, "guest_mode": 0}))) is None


def test_every_row_of_the_data_is_tried() -> None:
    tried = {control for _, control, _ in ALONE}
    assert {i.control for i in intercepts.intercepts().values()} - tried == {"vector4.mwait_armed"}
    assert all(intercepts.codes()[c] == e for _, c, e in ALONE if c in intercepts.codes())


def test_the_bits_have_the_names_of_the_table() -> None:
    names = named()
    for control, (field, bit) in bits().items():
        if control.startswith(("vector3", "vector4", "vector5")):
            words = names[field, bit].lower().replace("/", " ").replace("(", " ").replace(",", " ").split()
            first = control.partition(".")[2].split("_")[0]
            assert words[0].startswith(first) or first == "cr0", control


@pytest.mark.parametrize("form", [form for form, c, _ in ALONE if "exceptions" not in c and form not in OPEN])
def test_the_place_among_the_faults_by_privilege(form: str) -> None:
    control = next(c for f, c, _ in ALONE if f == form)
    found = run(form, user(guest(**{control.replace(".", "__"): 1})))
    if form in EARLY:
        assert code(found) is not None
    else:
        assert code(found) is None
        assert vector(found) in ("#GP", "#UD")  # MONITOR and MWAIT are undefined above CPL 0


def test_xsetbv_is_undefined_before_it_is_intercepted() -> None:
    assert vector(run("XSETBV", guest(vector4__xsetbv=1, cr4=0))) == "#UD"


def test_virtual_8086_mode_and_pushf() -> None:
    """Below IOPL 3 PUSHF raises #GP(0); its intercept comes before."""
    state = guest(vector3__pushf=1, eflags=0x20002)
    assert code(run("PUSHFD", state)) == 0x70
    assert vector(run("PUSHFD", state.with_changes({"vector3.pushf": 0}))) == "#GP"


def test_user_mode_instruction_prevention_comes_before() -> None:
    assert vector(run("SGDT m", user(guest(vector3__gdtr_read=1, cr4__umip=1)))) == "#GP"


def test_rdpmc_of_no_counter_is_no_exit() -> None:
    assert vector(run("RDPMC", guest(vector3__rdpmc=1, ecx=0x123456))) == "#GP"


@pytest.mark.parametrize("form", ["VMRUN", "VMLOAD", "VMSAVE"])
def test_an_address_of_no_vmcb_is_no_exit(form: str) -> None:
    state = guest(vector4__vmrun=1, vector4__vmload=1, vector4__vmsave=1, eax=0x1001)
    assert vector(run(form, state)) == "#GP"


@pytest.mark.parametrize("form", ["VMRUN", "VMLOAD", "VMSAVE", "STGI", "CLGI", "INVLPGA", "SKINIT"])
def test_without_svme_its_instructions_are_undefined(form: str) -> None:
    state = user(guest())
    state.msr = state.msr.store(Word(32, 0xC0000080), Word(64, 0))
    assert vector(run(form, state)) == "#UD"
    assert vector(run(form, user(guest()))) == "#GP"


def test_wrong_values_of_control_registers_are_no_exit() -> None:
    assert vector(run("MOV CR0, r32", guest(cr_write__cr0=1, eax=0x80000000))) == "#GP"
    assert vector(run("MOV CR4, r32", guest(cr_write__cr4=1, eax=1 << 31))) == "#GP"


def test_debug_registers_fault_first() -> None:
    assert vector(run("MOV r32, DR0", guest(dr_read__dr0=1, dr7__gd=1))) == "#DB"
    assert vector(run("MOV r32, DR4", guest(dr_read__dr4=1, cr4__de=1))) == "#UD"
    assert code(run("MOV r32, DR0", guest(dr_read__dr0=1, dr7__gd=1, exceptions__db=1))) == 0x41


def test_the_selective_intercept_leaves_ts_and_mp_alone() -> None:
    state = guest(vector3__cr0_sel_write=1)
    for changed, expected in ((8, None), (2, None), (4, 0x65), (0x10000, 0x65), (0, None)):
        assert code(run("MOV CR0, r32", state.with_changes({"eax": 0x80000011 ^ changed}))) == expected
    assert code(run("CLTS", state)) is None
    both = state.with_changes({"cr_write.cr0": 1, "eax": 0x80000015})
    assert code(run("MOV CR0, r32", both)) == 0x10


def test_what_a_move_of_a_register_tells() -> None:
    found = run("MOV r32, CR0", guest(cr_read__cr0=1), operand_r32=5)
    assert isinstance(found, Trap)
    assert int(found.state.exit_info1) == 1 << 63 | 5
    found = run("SMSW r32", guest(cr_read__cr0=1), operand_r32=5)
    assert isinstance(found, Trap)
    assert int(found.state.exit_info1) == 0
    found = run("MOV DR7, r32", guest(dr_write__dr7=1), operand_r32=6)
    assert isinstance(found, Trap)
    assert int(found.state.exit_info1) == 6
    found = run("MOV r32, CR0", guest(cr_read__cr0=1, features__decode_assists=0), operand_r32=5)
    assert isinstance(found, Trap)
    assert int(found.state.exit_info1) == 0


def test_what_int_n_and_invlpg_tell() -> None:
    found = run("INT imm8", guest(vector3__intn=1), operand_imm8=0x80)
    assert isinstance(found, Trap)
    assert int(found.state.exit_info1) == 0x80
    instruction = MACHINE.instructions["INVLPG m"]
    state = guest(vector3__invlpg=1, ds__base=0x1000)
    names = [name for operand in instruction.inputs for name, _ in operand.part_names()]
    offset = next(name for name in names if "offset" in name or "displacement" in name)
    segment = next(name for name in names if "segment" in name)
    found = run("INVLPG m", state, **{offset.replace(" ", "_"): 0x234, segment.replace(" ", "_"): 3})
    assert isinstance(found, Trap)
    assert int(found.state.exit_info1) == 0x1234


@pytest.mark.parametrize(
    ("form", "flags"),
    [
        ("IN AL, DX", 0x111),  # type IN, 8 bits, 32-bit addresses
        ("OUT DX, AX", 0x120),
        ("IN EAX, DX", 0x141),
        ("INSB", 0x115),  # a string
        ("OUTSD seg", 0x144 | 3 << 10),  # of DS
        ("REP INSW", 0x12D),
    ],
)
def test_what_a_port_tells(form: str, flags: int) -> None:
    state = guest(vector3__ioio_prot=1, edx=0x60, ecx=2)
    state.iopm = state.iopm.store(Word(17, 0x60), Word(1, 1))
    found = run(form, state, **({"operand_seg": 3} if "seg" in form else {}))
    assert code(found) == 0x7B
    assert isinstance(found, Trap)
    assert int(found.state.exit_info1) == 0x60 << 16 | flags
    assert int(found.state.exit_info2) == int(state.eip) + LENGTH


def test_the_map_of_ports_goes_on_behind_the_last_one() -> None:
    state = guest(vector3__ioio_prot=1, edx=0xFFFE)
    for bit, expected in ((0xFFFD, None), (0xFFFE, 0x7B), (0xFFFF, 0x7B), (0x10000, 0x7B), (0x10001, 0x7B)):
        marked = state.copy()
        marked.iopm = marked.iopm.store(Word(17, bit), Word(1, 1))
        assert code(run("IN EAX, DX", marked)) == expected
        assert code(run("IN EAX, DX", marked.with_changes({"vector3.ioio_prot": 0}))) is None


def test_the_map_of_msrs_has_three_ranges_and_two_bits_each() -> None:
    for base, offset in ((0, 0), (0xC0000000, 0x800), (0xC0010000, 0x1000)):
        for number in (0x0, 0x174, 0x1FFF):
            for write in (0, 1):
                state = guest(vector3__msr_prot=1, ecx=base + number)
                place = offset * 8 + number * 2 + write
                state.msrpm = state.msrpm.store(Word(16, place), Word(1, 1))
                assert code(run("WRMSR" if write else "RDMSR", state)) == 0x7C
                assert code(run("RDMSR" if write else "WRMSR", state)) is None
    found = run("WRMSR", guest(vector3__msr_prot=1, ecx=0x2000))
    assert code(found) == 0x7C  # no map lists it
    assert isinstance(found, Trap)
    assert int(found.state.exit_info1) == 1
    assert vector(run("WRMSR", user(guest(vector3__msr_prot=1, ecx=0x2000)))) == "#GP"


def test_an_exception_tells_its_error_code() -> None:
    state = guest(exceptions__gp=1, ecx=0x123456)
    found = run("RDPMC", state)
    assert code(found) == 0x4D
    assert isinstance(found, Trap)
    assert (int(found.state.exit_info1), int(found.state.exit_next_rip)) == (0, 0)


def test_a_fault_while_int_n_is_delivered_tells_of_it() -> None:
    found = run("INT imm8", guest(exceptions__gp=1, idtr__limit=7), operand_imm8=0x80)
    assert code(found) == 0x4D
    assert isinstance(found, Trap)
    assert int(found.state.exit_int_info) == 1 << 31 | 4 << 8 | 0x80
    assert int(found.state.exit_info1) == 0x80 * 8 + 2


def test_vmsave_and_vmload_are_inverse_and_reach_physical_memory() -> None:
    state = guest(fs__base=0x12345678, gs__selector=0x33, tr__limit=0x1234, ldtr__rights=0x10000)
    state.msr = state.msr.store(Word(32, 0x175), Word(64, 0xDEADBEEF))
    saved = run("VMSAVE", state)
    assert isinstance(saved, Next)
    assert int(saved.state.host_memory.load_little_endian(Word(32, 0x1448), 4)) == 0x12345678
    other = saved.state.with_changes({"fs.base": 0, "gs.selector": 0, "tr.limit": 0, "ldtr.rights": 0x82})
    loaded = run("VMLOAD", other)
    assert isinstance(loaded, Next)
    for name in ("fs.base", "fs.limit", "fs.rights", "gs.selector", "tr.limit", "ldtr.rights"):
        assert int(loaded.state[name]) == int(state[name]), name
    assert int(loaded.state.msr.load(Word(32, 0x175))) == 0xDEADBEEF
    kept = run("VMSAVE", state.with_changes({"enables.virtual_vmload_vmsave": 1}))
    assert isinstance(kept, Next)
    assert not kept.state.host_memory.stores
    assert int(kept.state.memory.load_little_endian(Word(32, 0x1448), 4)) == 0x12345678


def test_a_virtual_gif_takes_stgi_and_clgi() -> None:
    for vgif, expected in ((0, (0, 1)), (1, (1, 0))):
        found = run("CLGI", guest(enables__vgif=vgif))
        assert isinstance(found, Next)
        assert (int(found.state.gif), int(found.state.virtual_gif)) == expected


# -- changes that a test must notice -------------------------------------------------------------------


def _noticed(monkeypatch: pytest.MonkeyPatch, name: str, **change: Any) -> bool:
    import attrs

    found = dict(intercepts.intercepts())
    found[name] = attrs.evolve(found[name], **change)
    monkeypatch.setattr(guest_mode, "intercepts", lambda: found)
    try:
        for form, control, expected in ALONE:
            test_each_intercept_alone_decides(form, control, expected)
            if "exceptions" not in control and form not in OPEN:
                test_the_place_among_the_faults_by_privilege(form)
        test_rdpmc_of_no_counter_is_no_exit()
        for form in ("VMRUN", "VMLOAD", "VMSAVE"):
            test_an_address_of_no_vmcb_is_no_exit(form)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("PUSHF", {"when": "late"}),  # never: the intercept is lost
        ("XSETBV", {"when": "checked"}),  # after #GP instead of before
        ("RDPMC", {"when": "checked"}),  # before #GP instead of after
        ("RDTSC", {"control": "vector4.rdtscp"}),
        ("SGDT", {"control": "vector3.idtr_read"}),
        ("WBINVD", {"code": 0x76}),
    ],
)
def test_a_changed_intercept_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any]
) -> None:
    assert _noticed(monkeypatch, name, **change)
