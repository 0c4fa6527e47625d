"""System/360 Model 67 and System/370: classes, the technique, and what the manuals say of the PSW."""

from __future__ import annotations

import sys
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import pytest

from popek.checks.subject import Subject

sys.path.insert(0, str(Path(__file__).parent))

import random

from s370_cases import case_of, state_of

from popek.architectures.s360 import MACHINES, s370
from popek.architectures.s360 import interruptions as program
from popek.architectures.s360.encoding import encode
from popek.architectures.s360.state import ADDRESS, BLOCK, ENTRY, GRANTED, OFFSET, Cpu
from popek.architectures.s360.tables import walk
from popek.checks.classification import Classification
from popek.checks.classify import Classifier
from popek.checks.verdict import Truth
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Trap
from popek.kernel.words import Word

STATEMENTS = {
    "privileged": lambda c: c.privileged,
    "critical": lambda c: c.critical,
    "innocuous": lambda c: c.innocuous,
    "user-sensitive": lambda c: c.user_sensitive,
    "control-sensitive": lambda c: c.truth("control_sensitive"),
    "location-sensitive": lambda c: c.truth("location_sensitive"),
    "resource-sensitive": lambda c: c.truth("resource_sensitive"),
}


def classes(
    machine: Machine[Any],
    *,
    settings: tuple[str, ...] = (),
    time_is_state: bool = False,
    only: set[str] | None = None,
) -> list[Classification[Any]]:
    classifier = Classifier(Subject.of(machine, None, settings, time_is_state=time_is_state))
    return [
        classifier.classify(i) for i in machine.instructions.values() if only is None or i.mnemonic in only
    ]


def claim(name: str) -> dict[str, Any]:
    text = resources.files("popek_specs").joinpath(f"claims/{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def answers(found: list[Classification[Any]], subject: str, statement: str) -> set[Truth]:
    of_subject = [c for c in found if subject in (c.instruction.mnemonic, c.instruction.form)]
    negated = statement.startswith("not ")
    truths = {STATEMENTS[statement.removeprefix("not ")](c) for c in of_subject}
    if Truth.UNKNOWN in truths or not truths:
        return truths
    # A mnemonic has a class when one of its forms has it; it is privileged or innocuous when all are.
    every = statement in ("privileged", "innocuous")
    holds = all(t is Truth.YES for t in truths) if every else Truth.YES in truths
    return {Truth.YES if holds != negated else Truth.NO}


# Words in storage that need not be aligned take the solver a second or more: left to the run of all claims.
UNALIGNED = {"L", "LH", "ST", "STH", "A", "S", "C", "CL", "LM", "STM", "MVC", "CLC", "LMC", "STMC", "STCTL"}


@pytest.mark.parametrize("name", ["s370", "s360", "s370-time", "s370-das"])
def test_the_claims_come_out_as_the_file_expects(name: str) -> None:
    file = claim(name)
    machine = MACHINES[file["machine"]]()
    settings = tuple(f"{key}={value}" for key, value in file["configuration"].items())
    refuted = file["expected"] == "refuted"
    every = (
        {row["subject"] for row in file["rows"]}
        if refuted
        else {i.mnemonic for i in machine.instructions.values()}
    )
    asked = every - UNALIGNED - (set() if file.get("time_is_state") else {"STCK"})
    found = classes(machine, settings=settings, time_is_state=file.get("time_is_state", False), only=asked)
    for row in file["rows"]:
        if row["subject"] in asked:
            assert answers(found, row["subject"], row["statement"]) == {Truth.YES}, row
    critical = {c.instruction.form for c in found if c.critical is not Truth.NO}
    assert bool(critical) == refuted


def test_every_row_of_the_claims_names_an_instruction() -> None:
    for name in ("s370", "s360", "s370-time", "s370-das"):
        file = claim(name)
        machine = MACHINES[file["machine"]]()
        assert file["technique"] in machine.techniques
        for row in file["rows"]:
            assert machine.find(row["subject"])
            assert row["statement"].removeprefix("not ") in STATEMENTS


def test_stck_shows_the_clock_and_only_the_clock() -> None:
    machine = s370.build()
    (found,) = classes(machine, time_is_state=True, only={"STCK"})
    assert found.components == ("tod.value", "tod.state")
    witness = found.witness
    assert witness is not None
    assert witness.second is not None
    assert all(d.name == "psw.cc" or d.name.startswith("memory[") for d in witness.differ)


@pytest.mark.parametrize(
    ("form", "sabotage", "sensitive"),
    [
        ("SSM D2(B2)", "unprivileged", "control_sensitive"),
        ("LRA R1,D2(X2,B2)", "unprivileged", "location_sensitive"),
        ("STIDP D2(B2)", "unprivileged", "resource_sensitive"),
        ("BALR R1,R2", "shows the mode", "mode_sensitive"),
        ("SPM R1", "sets the key", "control_sensitive"),
    ],
)
def test_a_broken_machine_is_refuted(form: str, sabotage: str, sensitive: str) -> None:
    machine = s370.build()
    (instruction,) = machine.find(form)

    def semantics(cpu: Cpu, *operands: Any, **settings: Any) -> None:
        problem = cpu.psw.problem
        if sabotage == "unprivileged":
            cpu.psw.problem = 0
        instruction.semantics(cpu, *operands, **settings)
        if sabotage == "unprivileged":
            cpu.psw.problem = problem
        elif sabotage == "shows the mode":
            cpu.gr[operands[0]] = cpu.gr[operands[0]] ^ problem.zero_extend(32)
        else:
            cpu.psw.key = cpu.gr[operands[0]][3:0]

    machine.instructions[form] = attrs.evolve(instruction, semantics=semantics)
    (found,) = classes(machine, only={instruction.mnemonic})
    assert found.critical is Truth.YES
    assert found.truth(sensitive) is Truth.YES
    assert found.witness is not None


# -- the technique, on numbers ---------------------------------------------------------------------

GUEST_BLOCKS, START = 0x400, 0x800


def _private(guest: s370.S370) -> s370.S370:
    """A VMM with the guest's storage at block START."""
    vmm = s370.S370.reset()
    vmm.psw.extended, vmm.psw.dat, vmm.psw.io, vmm.psw.external = (Word(1, 1) for _ in range(4))
    vmm.cr0.low_address_protection = guest.cr0.low_address_protection
    vmm.dual_address_space = guest.dual_address_space
    vmm.translation = Memory(BLOCK, ENTRY, {0: GRANTED << ADDRESS | START << OFFSET})
    vmm.prefix = Word(BLOCK - 1, 0x10)
    vmm.memory = Memory(ADDRESS, 8, {0x8000: 0x55})
    return vmm


def _view(state: s370.S370, mapped: bool) -> dict[str, int]:
    """What a guest can see of a state: registers and its storage around the places that cases touch."""
    shown = {
        n: int(w) for n, w in state.words().items() if n.startswith(("gr", "psw.c", "psw.p", "psw.address"))
    }
    shown = {n: v for n, v in shown.items() if n not in ("psw.problem", "psw.per", "psw.channels")}
    for start in (0, 0x1C0, 0x3FC0, 0x47C0, 0x1FFFC0):
        for address in range(start, start + 0x80):
            if address >> OFFSET < GUEST_BLOCKS:
                place = address + (START << OFFSET if mapped else 0)
                shown[f"{address:06x}"] = int(state.memory.load(Word(ADDRESS, place)))
    return shown


def test_a_guest_under_the_technique_does_what_it_would_do_alone() -> None:
    machine, rng = s370.build(), random.Random(67)
    technique = machine.technique()
    completed = trapped = 0
    for instruction in machine.instructions.values():
        if instruction.mnemonic == "STCK":  # shows the real clock
            continue
        for _ in range(6):
            case, parts = case_of(rng, instruction)
            guest = state_of(case)
            guest.dual_address_space, guest.prefix = Word(1, 0), Word(BLOCK - 1, rng.choice((0, 4)))
            private = _private(guest)
            assert int(technique.private(guest, private)) == 1
            hardware = technique.map(guest, private)
            words = {n: Word(w, parts[n]) for o in instruction.inputs for n, w in o.part_names()}
            alone, under = machine.step(instruction, guest, words), machine.step(instruction, hardware, words)
            if isinstance(alone, Next) and isinstance(under, Next):
                completed += 1
                assert _view(alone.state, False) == _view(under.state, True), instruction.assembly(parts)
            else:
                trapped += 1
                assert isinstance(under, Trap)
                expected = alone.vector if isinstance(alone, Trap) else program.PRIVILEGED_OPERATION
                assert under.vector in (expected, program.PRIVILEGED_OPERATION), instruction.assembly(parts)
    assert completed > 50
    assert trapped > 50


# -- PSW, interruptions, operands -----------------------------------------------------------------


def _run(cpu: Cpu, machine: Machine[Any], form: str, **parts: int) -> Any:
    (instruction,) = machine.find(form)
    words = {
        n: Word(
            w,
            parts.get(
                n.removeprefix("operand ")
                .replace("(", "_")
                .replace(")", "")
                .replace(",", "")
                .replace(".", "_"),
                0,
            ),
        )
        for o in instruction.inputs
        for n, w in o.part_names()
    }
    return machine.step(instruction, cpu, words)


def _stored(cpu: Cpu, address: int, size: int) -> int:
    return int.from_bytes(bytes(int(cpu.memory.load(Word(ADDRESS, address + i))) for i in range(size)), "big")


def test_balr_links_the_same_in_both_modes() -> None:
    machine = s370.build()
    for extended in (0, 1):
        for problem in (0, 1):
            cpu = s370.S370.reset(
                psw__extended=extended, psw__problem=problem, psw__cc=2, psw__program_mask=9
            )
            outcome = _run(cpu, machine, "BALR R1,R2", R1=5)
            assert isinstance(outcome, Next)
            assert int(outcome.state.gr[5]) == 0x69001002  # ILC 01, condition code 10, mask 1001


def test_an_svc_in_the_bc_mode_stores_code_and_length_in_the_old_psw() -> None:
    machine = s370.build()
    cpu = s370.S370.reset(psw__problem=1, psw__key=8, psw__cc=1)
    outcome = _run(cpu, machine, "SVC I", I=0x2A)
    assert isinstance(outcome, Trap)
    after = s370.deliver(cpu, outcome)
    assert _stored(after, 32, 8) == 0x0081002A_50001002


def test_a_program_interruption_in_the_ec_mode_identifies_itself_at_140() -> None:
    machine = s370.build()
    cpu = s370.S370.reset(psw__extended=1, psw__problem=1)
    outcome = _run(cpu, machine, "SSM D2(B2)")
    assert isinstance(outcome, Trap)
    after = s370.deliver(cpu, outcome)
    assert _stored(after, 40, 8) == 0x00090000_00001004
    assert _stored(after, 140, 4) == 0x00040002


def test_a_page_translation_exception_nullifies() -> None:
    machine = s370.build()
    cpu = s370.S370.reset(psw__extended=1, psw__dat=1)
    cpu.translation = Memory(BLOCK, ENTRY, {0: 2 << ADDRESS})
    outcome = _run(cpu, machine, "TS D2(B2)", D2_B2_d=0x123)
    assert isinstance(outcome, Trap)
    assert outcome.vector is program.PAGE_TRANSLATION
    assert outcome.memory
    after = s370.deliver(cpu, outcome)
    assert _stored(after, 44, 4) == 0x1000
    assert _stored(after, 144, 4) == 0


@pytest.mark.parametrize("name", list(MACHINES))
def test_privileged_comes_before_specification_and_protection(name: str) -> None:
    machine = MACHINES[name]()
    cpu = machine.state.reset(psw__problem=1, psw__key=5)
    outcome = _run(cpu, machine, "LPSW D2(B2)", D2_B2_d=1)
    assert isinstance(outcome, Trap)
    assert outcome.vector is program.PRIVILEGED_OPERATION
    supervisor = cpu.with_changes({"psw.problem": 0})
    outcome = _run(supervisor, machine, "LPSW D2(B2)", D2_B2_d=1)
    assert isinstance(outcome, Trap)
    assert outcome.vector is program.SPECIFICATION


def test_only_system_370_has_byte_oriented_operands() -> None:
    vectors = {}
    for name, build in MACHINES.items():
        machine = build()
        outcome = _run(machine.state.reset(), machine, "L R1,D2(X2,B2)", D2_X2B2_d=0x102)
        vectors[name] = outcome.vector if isinstance(outcome, Trap) else None
    assert vectors == {"s360-67": program.SPECIFICATION, "s370": None}


def test_the_extended_psw_of_the_model_67_is_chosen_by_control_register_6() -> None:
    machine = MACHINES["s360-67"]()
    image = 0x0709_2800_0012_3456
    memory = {0x100 + i: byte for i, byte in enumerate(image.to_bytes(8, "big"))}
    for extended, dat, cc in ((0, 0, 0), (1, 1, 2)):
        cpu = machine.state.reset(cr6__extended_psw=extended)
        cpu.memory = Memory(ADDRESS, 8, memory)
        outcome = _run(cpu, machine, "LPSW D2(B2)", D2_B2_d=0x100)
        assert isinstance(outcome, Next)
        psw = outcome.state.psw
        assert (int(psw.dat), int(psw.cc), int(psw.key), int(psw.problem)) == (dat, cc, 0, 1)
        assert int(psw.address) == 0x123456
    wide = {0x100: 0x08}
    cpu.memory = Memory(ADDRESS, 8, wide)
    assert isinstance(_run(cpu, machine, "LPSW D2(B2)", D2_B2_d=0x100), NotModelled)


def test_the_machines_differ_where_the_manuals_do() -> None:
    forms = {name: {i.mnemonic for i in build().instructions.values()} for name, build in MACHINES.items()}
    # BAS and BASR, which the Model 67 had first, are in the later editions of GA22-7000.
    assert forms["s360-67"] - forms["s370"] == {"LMC", "STMC"}
    assert {"LCTL", "STCK", "CS", "STNSM", "SPX"} <= forms["s370"] - forms["s360-67"]


def test_tables_yield_what_their_bits_say() -> None:
    # 4K pages and 64K segments; a segment table at 1000, a page table of 4 entries at 2000.
    storage = {0x1004: 0x30002000, 0x1008: 1}
    pages = {0x2002: 0x0450, 0x2004: 0x0008, 0x2006: 0x0002}

    def halfword(address: int) -> int | None:
        if address in pages:
            return pages[address]
        return storage.get(address & ~3, 0) >> (0 if address & 2 else 16) & 0xFFFF

    def found(address: int) -> tuple[int, int]:
        seen = walk(halfword, 0x00800000, 0x00001000, address)
        return seen.status, seen.address

    assert found(0x011234) == (0, 0x045234)
    assert found(0x012000) == (2, 0x002004)
    assert found(0x013000)[0] == 5
    assert found(0x014000) == (4, 0x002008)
    assert found(0x020000) == (1, 0x001008)
    assert found(0x100000) == (3, 0x001040)
    assert walk(halfword, 0, 0x1000, 0).status == 5


def test_instructions_are_encoded_as_the_manual_lists_them() -> None:
    machine = s370.build()

    def bytes_of(form: str, **parts: int) -> str:
        (instruction,) = machine.find(form)
        every = {n: 0 for o in instruction.inputs for n, _ in o.part_names()}
        return encode(instruction, every | {f"operand {n}": v for n, v in parts.items()}).hex()

    assert bytes_of("LR R1,R2", R1=1, R2=2) == "1812"
    assert bytes_of("SVC I", I=0x2A) == "0a2a"
    assert (
        bytes_of("L R1,D2(X2,B2)", **{"R1": 3, "D2(X2,B2).x": 4, "D2(X2,B2).b": 5, "D2(X2,B2).d": 0x678})
        == "58345678"
    )
    assert bytes_of("LM R1,R3=R1+1,D2(B2)", **{"R1,R3=R1+1": 15, "D2(B2).b": 1}) == "98f01000"
    assert (
        bytes_of("MVC D1(2,B1),D2(B2)", **{"D1(2,B1).b": 1, "D2(B2).b": 2, "D2(B2).d": 3}) == "d20110002003"
    )
    assert bytes_of("LPSW D2(B2)", **{"D2(B2).d": 0x40}) == "82000040"
    assert bytes_of("IPK") == "b20b0000"


def test_assembly_fills_in_the_operands() -> None:
    (instruction,) = s370.build().find("L R1,D2(X2,B2)")
    parts = {"operand R1": 3, "operand D2(X2,B2).x": 4, "operand D2(X2,B2).b": 5, "operand D2(X2,B2).d": 6}
    assert instruction.assembly(parts) == "L 3,6(4,5)"


def test_every_form_has_operands_and_a_source() -> None:
    for build in MACHINES.values():
        for instruction in build().instructions.values():
            assert instruction.source
            assert instruction.summary
            named = [o.name for o in instruction.operands]
            assert len(set(named)) == len(named)
            assert isinstance(instruction, Instruction)


def test_the_standard_mode_of_the_model_67_is_the_bc_mode_of_system_370() -> None:
    older, newer, rng = MACHINES["s360-67"](), s370.build(), random.Random(360)
    common = [
        f for f in older.instructions if f in newer.instructions and f.split()[0] not in ("ISK", "DIAGNOSE")
    ]
    compared = 0
    for form in common:
        (late,), (early,) = newer.find(form), older.find(form)
        for _ in range(8):
            case, parts = case_of(rng, late)
            case = attrs.evolve(case, psw=case.psw & ~(1 << 51), cr=(0,) * 16)
            young = state_of(case)
            young.dual_address_space = Word(1, 0)
            old = older.state.reset()
            for name in [n for n in old.words() if n in young.words()]:
                old[name] = young[name]
            old.memory, old.keys, old.devices = young.memory, young.keys, young.devices
            old.translation = young.translation
            words = {n: Word(w, parts[n]) for o in late.inputs for n, w in o.part_names()}
            then, now = older.step(early, old, words), newer.step(late, young, words)
            if isinstance(then, Trap) and then.vector is program.SPECIFICATION:
                continue  # operands off their boundary, and those alone, differ
            if isinstance(now, Trap) and now.vector is program.PSW_FORMAT:
                continue
            assert type(then) is type(now), form
            if isinstance(then, Trap):
                assert isinstance(now, Trap)
                assert then.vector is now.vector, form
            elif form.split()[0] != "LPSW" or not int(now.state.psw.extended):
                both = set(then.state.words()) & set(now.state.words())
                changed = {n for n in both if int(then.state[n]) != int(now.state[n])}
                assert changed <= {n for n in both if n.startswith("cr")}, form
                assert then.state.memory.cells() == now.state.memory.cells(), form
            compared += 1
    assert compared > 200


def test_bit_16_of_an_ec_psw_belongs_to_dual_address_space() -> None:
    machine = s370.build()
    image = 0x0008_8000_0000_2000
    for installed in (0, 1):
        cpu = s370.S370.reset(dual_address_space=installed)
        cpu.memory = Memory(ADDRESS, 8, {0x100 + i: byte for i, byte in enumerate(image.to_bytes(8, "big"))})
        outcome = _run(cpu, machine, "LPSW D2(B2)", D2_B2_d=0x100)
        if installed:
            assert isinstance(outcome, NotModelled)
        else:
            assert isinstance(outcome, Trap)
            assert outcome.vector is program.PSW_FORMAT
            assert _stored(s370.deliver(cpu, outcome), 40, 8) == image
            assert _stored(s370.deliver(cpu, outcome), 140, 4) == 6  # length code 0
