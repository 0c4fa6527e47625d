"""The witnesses that everybody quotes, run on Bochs: as cases of the step harness, and as assembly of their own."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest

from popek.architectures import ia32
from popek.architectures.ia32.state import Ia32
from popek.checks.counterexample import Counterexample
from popek.checks.promises import Keeper
from popek.checks.runs import explore_instruction
from popek.checks.subject import Subject
from popek.emulators.bochs.simulator import assemble, run_rom
from popek.emulators.ia32.compare import BOCHS
from popek.emulators.ia32.step import segment_descriptor
from popek.emulators.ia32.unicorn import UNICORN
from popek.emulators.ia32.witness import confirm
from popek.emulators.ia32.witness_asm import Listing, nasm_source
from popek.emulators.ia32.witness_run import WitnessSetup
from popek.emulators.ia32.witness_setup import set_up
from popek.emulators.witnesses import WitnessRun, WitnessVerdict
from popek.emulators.x86.witness import Refused
from popek.kernel.configuration import configure
from popek.kernel.machine import Machine
from popek.kernel.program import Line
from popek.kernel.words import Word
from popek.report.witnesses import Named, assembly, runs_of
from popek_proofs.eight_problems import problems as eight_problems
from popek_proofs.eight_problems.search import Asking

pytestmark = pytest.mark.emulator

MACHINE = ia32.MACHINES["ia32"]()
CONFIGURATION = configure(MACHINE, [])


def asking(*forms: str) -> Asking:
    return Asking(
        Subject.of(MACHINE, None, CONFIGURATION), tuple(MACHINE.instructions[form] for form in forms)
    )


def fidelity(form: str) -> Counterexample[Any] | None:
    keeper = Keeper(Subject.of(MACHINE, None, CONFIGURATION))
    return keeper.keeps(MACHINE.instructions[form]).fidelity.witness


def safety(form: str) -> Counterexample[Any] | None:
    keeper = Keeper(Subject.of(MACHINE, None, CONFIGURATION))
    instruction = MACHINE.instructions[form]
    run = explore_instruction(MACHINE, instruction, configuration=CONFIGURATION)
    return keeper.safety(instruction, run).witness


QUOTED = {
    "POPF drops IF": lambda: fidelity("POPFD"),
    "PUSH CS shows the ring": lambda: eight_problems.ring_aliasing(asking("PUSH CS"), False).witness,
    "SGDT": lambda: eight_problems.silent_reads(asking("SGDT m"), False).witness,
    "LSL on the VMM's descriptor": lambda: safety("LSL r32, r16"),
    "SYSENTER from a ring-1 kernel": lambda: (
        eight_problems.bypassed_kernel(asking("SYSENTER"), False).witness
    ),
    "a hidden descriptor cache that no instruction restores": lambda: (
        eight_problems.no_way_back(asking(), False).witness
    ),
}


@cache
def quoted(name: str) -> Counterexample[Any]:
    witness = QUOTED[name]()
    assert witness is not None
    return witness


def changed(witness: Counterexample[Any]) -> set[str]:
    return {d.name for d in witness.differ if d.name != "eip"}


def test_what_the_quoted_witnesses_show() -> None:
    assert "eflags.if" in changed(quoted("POPF drops IF"))
    pushed = quoted("PUSH CS shows the ring")
    (byte,) = pushed.differ
    assert (byte.before & 3, byte.after & 3) == (0, 1)
    assert all(name.startswith("memory[") for name in changed(quoted("SGDT")))
    assert changed(quoted("LSL on the VMM's descriptor")) & {"eflags.zf", "eax"}
    entered = quoted("SYSENTER from a ring-1 kernel")
    assert entered.second is not None
    assert {"cs.selector.rpl"} <= {d.name for d in entered.second.changes}
    assert int(entered.second.before.cpl) == 1
    cached = quoted("a hidden descriptor cache that no instruction restores")
    assert {"ebx", "fs.base"} <= changed(cached)
    assert cached.second is not None
    assert len(cached.second.lines) == len(cached.first.lines) + 1 == 4


def test_bochs_confirms_every_one() -> None:
    found = confirm(MACHINE, [runs_of(quoted(name)) for name in QUOTED], BOCHS)
    told = {
        name: [(run.label, run.verdict, run.details) for run in runs]
        for name, runs in zip(QUOTED, found, strict=True)
    }
    assert all(verdict is WitnessVerdict.CONFIRMED for runs in told.values() for _, verdict, _ in runs), told
    assert [len(runs) for runs in told.values()] == [2] * len(QUOTED)


def test_bochs_denies_a_witness_of_a_wrong_model() -> None:
    """POPFD that changes IF in ring 1: set up all the same, and the emulator does something else."""
    wrong: Machine[Ia32] = ia32.MACHINES["ia32"]()
    right = wrong.instructions["POPFD"].semantics

    def changes_if(cpu: Ia32, **settings: Any) -> None:
        image = cpu.memory.load_little_endian(cpu.gpr[4], 4)
        right(cpu, **settings)
        cpu.eflags.if_ = image[9]

    instruction = attrs.evolve(wrong.instructions["POPFD"], semantics=changes_if)
    wrong.instructions["POPFD"] = instruction
    runs = [
        attrs.evolve(run, lines=(Line(instruction, run.lines[0].operands),))
        for run in runs_of(quoted("POPF drops IF"))
    ]
    (found,) = confirm(wrong, [runs], BOCHS)
    assert [run.verdict for run in found] == [WitnessVerdict.CONFIRMED, WitnessVerdict.DIFFERS]
    assert any(detail.startswith("eflags: ") for detail in found[1].details)


def test_bochs_denies_a_program_whose_second_instruction_is_wrong() -> None:
    wrong: Machine[Ia32] = ia32.MACHINES["ia32"]()

    def stores_another(cpu: Ia32, m: Any, r: Any) -> None:
        cpu.memory = cpu.memory.store_little_endian(cpu.ds.base + m.offset, cpu.gpr[r] + 1)

    witness = quoted("a hidden descriptor cache that no instruction restores")
    instruction = attrs.evolve(wrong.instructions["MOV m32, r32"], semantics=stores_another, settings={})
    runs = [
        attrs.evolve(
            run,
            lines=tuple(
                Line(instruction, line.operands) if line.instruction.form == "MOV m32, r32" else line
                for line in run.lines
            ),
        )
        for run in runs_of(witness)[:1]
    ]
    (found,) = confirm(wrong, [runs], BOCHS)
    assert [run.verdict for run in found] == [WitnessVerdict.DIFFERS]


def test_unicorn_confirms_what_it_can_and_says_what_it_cannot() -> None:
    names = ["SGDT", "PUSH CS shows the ring", "a hidden descriptor cache that no instruction restores"]
    single, pushed, several = confirm(MACHINE, [runs_of(quoted(name)) for name in names], UNICORN)
    assert {run.verdict for run in single} == {WitnessVerdict.CONFIRMED}
    assert {run.verdict for run in pushed} == {WitnessVerdict.DEVIATES}
    assert pushed[0].details[-1] == "a known deviation: segment-push-zero-extends"
    assert {run.verdict for run in several} == {WitnessVerdict.IMPOSSIBLE}
    assert several[0].details == ("unicorn runs one instruction at a time",)


def test_what_cannot_be_set_up_is_named() -> None:
    taken = eight_problems.taken_addresses(asking("MOV r32, m32"), False).witness
    assert taken is not None
    native, hardware = set_up(MACHINE, runs_of(taken))
    assert isinstance(native, WitnessSetup)
    assert isinstance(hardware, Refused)
    assert "reserved.base" in hardware.reason
    assert "paging" in hardware.reason
    state = MACHINE.state.reset(fs__selector=0, fs__base=0x3000)
    reads = Line(
        MACHINE.instructions["MOV r32, m32"],
        {
            "operand r32": 0,
            "operand m32.segment": 4,
            "operand m32.offset": 0,
            "operand length": 1,
        },
    )
    state.memory = state.memory.store_little_endian(state.fs.base, state.fs.base + 1)
    (usable,) = set_up(MACHINE, [WitnessRun("usable with a null selector", state, (reads,))])
    assert isinstance(usable, WitnessSetup)  # nothing depends on the selector, so it gets another
    assert usable.step.registers["fs"] >= 8
    limit = state.with_changes({"fs.limit": 0x12345678})
    (odd,) = set_up(MACHINE, [WitnessRun("a limit that no descriptor gives", limit, (reads,))])
    assert isinstance(odd, Refused)
    assert odd.reason == "FS.limit is 0x12345678 with G = 1: no descriptor gives that"


def stale_run() -> WitnessRun:
    """CS is flat while the table has another limit under its selector: PUSH CS; LSL EAX, CX."""
    state = MACHINE.state.reset(ecx=8)
    changed = segment_descriptor(0, 0x1234, 0x409B00)
    for number, byte in enumerate(changed):
        state.memory = state.memory.store(Word(32, 8 + number), Word(8, byte))
    push, look = MACHINE.instructions["PUSH CS"], MACHINE.instructions["LSL r32, r16"]
    operands = {"operand r32": 0, "operand r16": 1, "operand length": 1}
    return WitnessRun("stale", state, (Line(push, {"operand length": 1}), Line(look, operands)))


def test_a_table_that_changed_after_the_loads_is_set_up_on_bochs_and_as_assembly(tmp_path: Path) -> None:
    (setup,) = set_up(MACHINE, [stale_run()])
    assert isinstance(setup, WitnessSetup)
    assert setup.stale
    assert setup.effect.leaves["eax"] == 0x1234
    ((verdict,),) = confirm(MACHINE, [[stale_run()]], BOCHS)
    assert verdict.verdict is WitnessVerdict.CONFIRMED, verdict
    path = tmp_path / "stale.asm"
    path.write_text(nasm_source("a stale table", [Listing("stale", (), (setup,))]), encoding="ascii")
    (run,) = report(path, 1)
    assert int(run["eax"], 16) == 0x1234


# -- as assembly ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = [Named(quoted(name).assembly, name, quoted(name)) for name in QUOTED]
    path = tmp_path_factory.mktemp("assembly") / "witnesses.asm"
    path.write_text(assembly(MACHINE, "what everybody quotes", named), encoding="ascii")
    return path


def report(source: Path, number: int) -> list[dict[str, str]]:
    """What each run of a witness reports, booted as the ROM of an emulator."""
    rom = assemble(source, defines={"WITNESS": number})
    assert len(rom) == 0x10000
    lines = run_rom(rom, b"", timeout=60).decode("ascii").splitlines()
    return [dict(re.findall(r"(\S+)=(\S+)", line)) for line in lines]


def test_the_assembly_has_no_warnings_and_says_what_to_expect(source: Path, tmp_path: Path) -> None:
    for number in range(1, len(QUOTED) + 1):
        command = ["nasm", "-Werror", "-f", "bin", f"-DWITNESS={number}", "-o", str(tmp_path / "rom")]
        done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    text = source.read_text(encoding="ascii")
    assert text.count("%if WITNESS = ") == len(QUOTED)
    assert "cannot be set up" not in text
    assert "Expected: completes." in text
    assert "; popfd" in text


def test_as_assembly_popf_drops_if(source: Path) -> None:
    native, hardware = report(source, 1)
    assert (int(native["cs"], 16) & 3, int(hardware["cs"], 16) & 3) == (0, 1)
    assert int(native["eflags"], 16) >> 9 & 1 != int(hardware["eflags"], 16) >> 9 & 1
    assert {native["vector"], hardware["vector"]} == {"00000001"}  # the INT1 behind the instruction


def test_as_assembly_push_cs_and_sgdt_store_what_the_model_says(source: Path) -> None:
    for number, name in ((2, "PUSH CS shows the ring"), (3, "SGDT")):
        for run, seen in zip((quoted(name).first, quoted(name).second), report(source, number), strict=True):
            assert run is not None
            stored = {d.name: d.after for d in run.changes if d.name.startswith("memory[")}
            shown = {key: value for key, value in seen.items() if key.startswith("memory.")}
            assert shown
            for key, value in shown.items():
                start = int(key.removeprefix("memory."), 16)
                found = bytes.fromhex(value)
                for address, byte in stored.items():
                    where = int(address[len("memory[") : -1], 16) - start
                    if 0 <= where < len(found):
                        assert found[where] == byte


def test_as_assembly_the_cache_is_stale_until_the_selector_is_loaded_again(source: Path) -> None:
    undisturbed, disturbed = report(source, 6)
    witness = quoted("a hidden descriptor cache that no instruction restores")
    (shown,) = (d for d in witness.differ if d.name == "ebx")
    assert (int(undisturbed["ebx"], 16), int(disturbed["ebx"], 16)) == (shown.before, shown.after)


def test_as_assembly_lsl_and_sysenter_end_as_the_model_says(source: Path) -> None:
    one, another = report(source, 4)
    assert (int(one["eflags"], 16) ^ int(another["eflags"], 16)) >> 6 & 1
    for run in report(source, 5):
        assert int(run["cs"], 16) & 3 == 0
