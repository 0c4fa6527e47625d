"""System/370 one instruction at a time: the model and Hercules agree, but for the deviations listed."""

from __future__ import annotations

import random
import struct
import sys
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

import attrs
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import s370_cases
from s370_cases import answer, case_of, state_of, tables

from popek.architectures.s360.encoding import encode
from popek.architectures.s360.s370 import build
from popek.architectures.s360.s370_state import S370
from popek.architectures.s360.state import BAD_FORMAT, PAGE_LENGTH
from popek.architectures.s360.tables import walk
from popek.emulators.hercules import (
    CODE,
    KEY_BLOCKS,
    WINDOWS,
    HerculesCase,
    HerculesResult,
    initial_storage,
    run_steps,
)
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.words import Word

pytestmark = pytest.mark.emulator("hercules")

CASES_PER_FORM = 16
KEY, FETCH_PROTECTION, REFERENCE_CHANGE = 0x78, 0x04, 0x03
TWO_OPERANDS = (
    *("MVC", "MVN", "MVZ", "MVO", "MVCIN", "NC", "OC", "XC", "PACK", "UNPK", "TR", "TRT"),
    *s370_cases.DECIMAL,
)
ACCESS_CODES = (0x04, 0x05, 0x10, 0x11, 0x12)


@attrs.frozen
class Compared:
    """One case: what the model says and what Hercules does."""

    instruction: Instruction
    parts: Mapping[str, int]
    case: HerculesCase
    model: HerculesResult
    hercules: HerculesResult

    @property
    def mnemonic(self) -> str:
        return self.instruction.mnemonic

    @property
    def extended(self) -> bool:
        return bool(self.case.psw >> 51 & 1)

    def differing(self) -> set[str]:
        """The names of what differs; R and C bits count only where no storage reference can set them."""
        found = {
            f.name
            for f in attrs.fields(HerculesResult)
            if getattr(self.model, f.name) != getattr(self.hercules, f.name)
        }
        if "keys" in found and self.mnemonic not in s370_cases.KEY_INSTRUCTIONS:
            mask = KEY | FETCH_PROTECTION
            if [k & mask for k in self.model.keys] == [k & mask for k in self.hercules.keys]:
                found.remove("keys")
        return found

    def code(self, result: HerculesResult) -> int | None:
        """The program-interruption code."""
        if result.kind != "program":
            return None
        return (
            int.from_bytes(result.assigned[14:16], "big") if self.extended else result.old_psw >> 32 & 0xFFFF
        )

    def addresses(self) -> list[int]:
        """The first bytes of the storage operands."""
        words = {n: Word(w, self.parts[n]) for o in self.instruction.inputs for n, w in o.part_names()}
        cpu = state_of(self.case)
        if self.mnemonic == "IVSK":
            return [self.case.gr[self.parts["operand R2"]] & 0xFFFFFF]
        storage = [o for o in self.instruction.operands if "b" in o.kind.parts]
        return [int(cpu.effective(o.kind.make(o.own(words)))) for o in storage]

    def meets(self, status: int) -> bool:
        """Translating some byte of an operand ends with this status."""
        image = initial_storage(self.case, tables())

        def halfword(address: int) -> int:
            return image.get(address, 0) << 8 | image.get(address + 1, 0)

        cr0, cr1 = self.case.cr[:2]
        touched = [a + i for a in self.addresses() for i in (0, 1, 3, 7)]
        return any(walk(halfword, cr0, cr1, a & 0xFFFFFF).status == status for a in touched)

    def __str__(self) -> str:
        shown = ", ".join(
            f"{name}: {getattr(self.model, name)!r} / {getattr(self.hercules, name)!r}"
            for name in sorted(self.differing())
        )
        return f"{self.instruction.assembly(self.parts)} from PSW {self.case.psw:016x}: {shown}"


def _clock_comparator(c: Compared) -> bool:
    pairs = [
        pair
        for m, h in zip(c.model.windows, c.hercules.windows, strict=True)
        for pair in zip(m, h, strict=True)
    ]
    unequal = [h for m, h in pairs if m != h]
    return c.mnemonic == "STCKC" and c.differing() == {"windows"} and unequal == [0]


def _prefix_operand(c: Compared) -> bool:
    if c.mnemonic != "SPX" or c.code(c.hercules) != 0x05:
        return False
    operand = initial_storage(c.case, tables()).get(c.addresses()[0], 0)
    return bool(operand & 0x7F) or bool(c.case.psw >> 58 & 1)


def _interrupted_move(c: Compared) -> bool:
    codes = 3 << (44 if c.extended else 28)
    return (
        c.mnemonic in s370_cases.LONG
        and c.code(c.model) in ACCESS_CODES
        and c.differing() == {"old_psw"}
        and (c.model.old_psw ^ c.hercules.old_psw) & ~codes == 0
    )


# How a deviation is recognised, by its name in hercules-deviations.toml.
RECOGNISED: Mapping[str, Callable[[Compared], bool]] = {
    "page-table-length": lambda c: c.meets(PAGE_LENGTH) and c.case.cr[0] >> 19 & 0x1F == 0x10,
    "monitor-class-bc-mode": lambda c: (
        c.mnemonic == "MC" and not c.extended and c.differing() == {"assigned"}
    ),
    "prefix-operand": _prefix_operand,
    "reset-reference-bit-4k": lambda c: c.mnemonic == "RRB" and c.differing() <= {"old_psw", "keys"},
    "extended-real-addressing": lambda c: (
        c.meets(BAD_FORMAT) and any(0x7FF9 <= a <= 0x8FFF for a in c.addresses())
    ),
    "direct-control": lambda c: c.mnemonic in ("WRD", "RDD") and c.code(c.hercules) == 0x01,
    "clock-comparator-resolution": _clock_comparator,
    "order-of-operands": lambda c: (
        c.mnemonic in TWO_OPERANDS and c.code(c.model) in ACCESS_CODES and c.code(c.hercules) in ACCESS_CODES
    ),
    "digits-before-access": lambda c: (
        c.mnemonic in s370_cases.DECIMAL and c.code(c.model) in ACCESS_CODES and c.code(c.hercules) == 0x07
    ),
    "condition-code-of-an-interrupted-move": _interrupted_move,
    "translation-in-the-bc-mode": lambda c: (
        c.mnemonic in s370_cases.VIRTUAL_KEY and not c.extended and c.case.psw >> 58 & 1 == 1
    ),
    "key-of-a-page": lambda c: (
        c.mnemonic == "ISKE"
        and c.differing() == {"gr"}
        and all((m ^ h) & ~0xF8 == 0 for m, h in zip(c.model.gr, c.hercules.gr, strict=True))
    ),
    "compare-until-unequal": lambda c: (
        c.mnemonic in ("CLC", "CLM")
        and c.code(c.model) in ACCESS_CODES
        and c.differing() <= {"kind", "old_psw", "assigned"}
    ),
}


def directed(machine: Machine[S370]) -> list[tuple[Instruction, HerculesCase, dict[str, int]]]:
    """A case for each listed deviation, so that a stale entry shows, and for boundaries that chance may miss."""
    supervisor = CODE
    bc, ec, dat = supervisor, 0x00080000 << 32 | supervisor, 0x04080000 << 32 | supervisor

    def build_case(
        form: str,
        parts: Mapping[str, int],
        psw: int,
        content: int = 0,
        keys: tuple[int, ...] = (0, 0, 0, 0),
        last: tuple[int, ...] = (0, 0, 0, 0),
        **cr: int,
    ) -> tuple[Instruction, HerculesCase, dict[str, int]]:
        (instruction,) = machine.find(form)
        every = {n: parts.get(n, 0) for o in instruction.inputs for n, _ in o.part_names()}
        registers = [cr.get("cr0", 0x00800000), s370_cases.TABLES, *[0] * 14]
        registers[8] = cr.get("cr8", 0)
        gr = [0, 0x24000, 0x8000, 0x4000, 0x1FFFFF, 0x3FFF, *[0] * 6, *last]
        windows = tuple(struct.pack(">Q", content) * (n // 8) for _, n in WINDOWS)
        case = HerculesCase(encode(instruction, every), psw, tuple(gr), tuple(registers), keys, windows, 0x92)
        return instruction, case, every

    def shift(value: int, amount: int) -> tuple[Instruction, HerculesCase, dict[str, int]]:
        parts = {"operand R1": 12, "operand D2(B2).d": amount}
        return build_case("SLA R1,D2(B2)", parts, bc, last=(value, 0, 0, 0))

    rx, s, first, second = "operand D2(X2,B2)", "operand D2(B2)", "operand D1(B1)", "operand D2(B2)"
    good = 0x00080000_00000000 | s370_cases.LANDINGS[0]
    reserved = [
        build_case("LPSW D2(B2)", {f"{s}.d": 0x1C0}, bc, content=good | 1 << bit)
        for bit in (63, 61, 60, 59, 46, *range(39, 23, -1))  # 47: secondary space, not modelled
    ]
    low_addresses = [
        build_case("MVI D1(B1),I2", {f"{first}.d": at}, psw, cr0=0x10800000)
        for at in (0, 0x1FF, 0x200)
        for psw in (bc, ec)
    ]
    shifts = [shift(v, n) for v in (0xFFFFFFFF, 0x80000000, 0xC0000000, 1) for n in (0, 1, 30, 31, 32, 63)]
    return [
        *reserved,
        *shifts,
        *low_addresses,
        build_case("SSM D2(B2)", {f"{s}.d": 0x1C0}, ec, cr0=0x40800000),
        build_case(
            "MVCL R1,R2",
            {"operand R1": 12, "operand R2": 14},
            bc | 8 << 52 | 2 << 28,
            keys=(0, 0x40, 0, 0),
            last=(0x47FC, 8, 0x4010, 8),
        ),
        build_case("L R1,D2(X2,B2)", {f"{rx}.b": 1, "operand R1": 9}, dat),
        build_case("MC D1(B1),I2", {"operand I2": 6, f"{first}.d": 0x123}, bc, cr8=0xFFFF),
        build_case("ISKE R1,R2", {"operand R1": 9, "operand R2": 3}, bc, keys=(0, 0x45, 0x4A, 0)),
        build_case("EPAR R1", {"operand R1": 3}, bc | 1 << 58),
        build_case("SPX D2(B2)", {f"{s}.d": 0x1C0}, bc, content=0x01000000_01000000),
        build_case("RRB D2(B2)", {f"{s}.b": 3}, ec, keys=(0, 1, 2, 0)),
        build_case("L R1,D2(X2,B2)", {f"{rx}.b": 2, "operand R1": 9}, dat),
        build_case("WRD D1(B1),I2", {f"{first}.d": 0x1C0}, bc),
        build_case("STCKC D2(B2)", {f"{s}.d": 0x1C0}, bc),
        build_case(
            "MVC D1(2,B1),D2(B2)",
            {"operand D1(2,B1).b": 3, f"{second}.b": 4},
            0x00800000 << 32 | supervisor,
            keys=(0, 0x48, 0, 0x40),
        ),
        build_case(
            "CLC D1(2,B1),D2(B2)",
            {"operand D1(2,B1).d": 0x1C1, f"{second}.b": 5},
            0x00900000 << 32 | supervisor,
            content=0x01020304_01020304,
            keys=(0, 4, 0, 0),
        ),
    ]  # fmt: skip


def compared(machine: Machine[S370], seed: int, forms: list[Instruction], count: int) -> list[Compared]:
    rng = random.Random(seed)
    jobs = [(form, *case_of(rng, form, easy=number < 2)) for form in forms for number in range(count)]
    jobs += directed(machine)
    results = run_steps([case for _, case, _ in jobs], tables=tables())
    return [
        Compared(form, parts, case, answer(machine, case, form, parts, seen), seen)
        for (form, case, parts), seen in zip(jobs, results, strict=True)
    ]


def listed() -> Mapping[str, Mapping[str, str]]:
    text = (
        resources.files("popek_specs").joinpath("s370/hercules-deviations.toml").read_text(encoding="utf-8")
    )
    return tomllib.loads(text)["deviation"]


@pytest.fixture(scope="module")
def machine() -> Machine[S370]:
    return build()


@pytest.fixture(scope="module")
def everything(machine: Machine[S370]) -> list[Compared]:
    return compared(machine, 370, list(machine.instructions.values()), CASES_PER_FORM)


def test_model_and_hercules_agree_but_for_the_listed_deviations(everything: list[Compared]) -> None:
    unexplained = [
        str(c) for c in everything if c.differing() and not any(test(c) for test in RECOGNISED.values())
    ]
    assert unexplained == []


def test_every_listed_deviation_is_seen(everything: list[Compared]) -> None:
    seen = {name for c in everything if c.differing() for name, test in RECOGNISED.items() if test(c)}
    assert seen == set(RECOGNISED) == set(listed())


def test_the_list_gives_a_kind_and_evidence_for_each() -> None:
    for name, entry in listed().items():
        assert entry["kind"] in ("emulator", "latitude", "processor"), name
        assert entry["summary"], name
        assert entry["manual"], name
        assert entry["evidence"], name


def test_the_cases_reach_every_outcome(everything: list[Compared]) -> None:
    codes = {c.code(c.model) for c in everything}
    assert codes >= {0x02, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x40, None}
    assert {c.code(c.model) for c in everything if c.mnemonic == "SSM"} >= {0x13}
    completed = {c.instruction.form for c in everything if c.model.kind == "svc"}
    trapping = {"DIAGNOSE D1(B1),I2"}  # in the supervisor state it does as it likes, so it is not run there
    assert completed == {c.instruction.form for c in everything} - trapping


@pytest.mark.parametrize(
    ("form", "sabotage"),
    [
        ("SSM D2(B2)", "unprivileged"),
        ("STIDP D2(B2)", "unprivileged"),
        ("IPK", "shows the mode"),
        ("BALR R1,R2", "shows the mode"),
        ("LPSW D2(B2)", "unprivileged"),
    ],
)
def test_a_fault_planted_in_the_model_is_found(machine: Machine[S370], form: str, sabotage: str) -> None:
    (instruction,) = machine.find(form)

    def semantics(cpu: S370, *operands: Word, **settings: object) -> None:
        problem = cpu.psw.problem
        if sabotage == "unprivileged":
            cpu.psw.problem = 0
        instruction.semantics(cpu, *operands, **settings)
        if sabotage == "unprivileged":
            cpu.psw.problem = problem
        if sabotage == "shows the mode":
            cpu.gr[operands[0] if operands else 2] = cpu.gr[
                operands[0] if operands else 2
            ] ^ problem.zero_extend(32)

    changed = attrs.evolve(
        machine, instructions={**machine.instructions, form: attrs.evolve(instruction, semantics=semantics)}
    )
    found = compared(changed, 7, changed.find(form), 40)
    assert any(c.differing() and not any(test(c) for test in RECOGNISED.values()) for c in found)


def test_storage_key_blocks_are_those_of_the_windows() -> None:
    for block in KEY_BLOCKS:
        assert any(start < block + 0x800 and block < start + size for start, size in WINDOWS)
