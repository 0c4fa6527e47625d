"""The IA-32 model and Unicorn agree where Unicorn is faithful."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

import pytest

from popek.architectures import ia32
from popek.architectures.ia32.instructions import far_transfers, flags, protection
from popek.architectures.ia32.state import Ia32
from popek.architectures.x86 import descriptors
from popek.architectures.x86.flags import IF
from popek.emulators.ia32.cases import Ia32Case
from popek.emulators.ia32.compare import DifftestReport, compare, difftest
from popek.emulators.ia32.unicorn import FORMS, LEFT_OUT, UNICORN
from popek.emulators.ia32.unicorn_deviations import recognised
from popek.emulators.x86.expectation import OutsideError
from popek.kernel.words import TRUE, Word

pytestmark = pytest.mark.emulator

CASES = 2500


@pytest.fixture(scope="module")
def report() -> DifftestReport:
    return difftest(CASES, 3, FORMS, against=UNICORN)


def test_the_model_and_unicorn_agree(report: DifftestReport) -> None:
    assert report.cases == CASES
    assert report.unexplained == 0, [
        (d.assembly, d.expected, d.observed, d.details) for d in report.differences
    ]


def test_both_ends_and_every_level_are_reached(report: DifftestReport) -> None:
    assert report.against == "unicorn"
    assert set(report.by_level) == {0, 1, 2, 3}
    assert sum(report.completed.values()) > CASES // 3
    assert sum(report.trapped.values()) > CASES // 10


def test_explanations_are_in_the_list_and_the_list_has_its_evidence(report: DifftestReport) -> None:
    text = resources.files("popek_specs.ia32").joinpath("unicorn-deviations.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text)["deviation"]
    assert set(entries) == recognised()
    assert {name for names in report.explained for name in names.split(" + ")} <= set(entries)
    for name, entry in entries.items():
        assert set(entry) == {"kind", "summary", "evidence"}, name
        assert entry["kind"] in ("emulator", "latitude", "processor"), name
        assert entry["evidence"].startswith("SDM vol."), name


def test_every_mnemonic_is_asked_about_or_left_out_with_a_reason() -> None:
    instructions = ia32.MACHINES["ia32"]().instructions
    mnemonics = {i.mnemonic for i in instructions.values()}
    families = {"MOV from CR", "MOV to CR", "MOV from DR", "MOV to DR"}
    asked = {instructions[name].mnemonic if name in instructions else name for name in FORMS}
    named = (
        asked | families | {"INT n"} | {word for names in LEFT_OUT for word in names.replace(",", "").split()}
    )
    assert asked <= mnemonics
    assert mnemonics <= named


def test_what_unicorn_cannot_do_is_refused_aloud() -> None:
    with pytest.raises(OutsideError, match="UMIP"):
        compare([Ia32Case("STR r32", {"operand r32": 0}, 3, {"cr4": 1 << 11})], against=UNICORN)


def _found(form: str, cases: int) -> Any:
    report = difftest(cases, 7, [form], against=UNICORN)
    assert report.unexplained > 0
    return report.differences[0]


def test_a_widened_mask_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "STATUS_AND_PROGRAM", flags.STATUS_AND_PROGRAM | IF)
    difference = _found("POPFD", 60)
    assert [line.split(":")[0] for line in difference.details] == ["eflags"]


def test_an_ignored_table_limit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def always(cpu: Ia32, selector: Word) -> Word:
        return TRUE

    for module in (descriptors, protection):
        monkeypatch.setattr(module, "in_table", always)
    _found("VERR r16", 200)


def test_a_forgotten_unusable_register_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_transfers, "null_if_outranked", lambda segment, level: None)
    _found("RETF", 150)
