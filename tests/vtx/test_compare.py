"""`popek vmcs compare`: rule sets with the mistakes that were published, found by a separating VMCS."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from popek.architectures.vtx.baselines import MODES, baseline
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.entry_checks import CHECKS
from popek.architectures.vtx.evaluation import Evaluator
from popek.cli.errors import UserError
from popek.cli.vmcs_questions import app
from popek.solving.solver import Answer
from popek.vmcs.compare import Comparison, compare_rules
from popek.vmcs.rule_files import RuleFileError, load_rules, predicate

TIGERLAKE = load_capabilities("bochs-tigerlake")
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_it(text: str, name: str = "rules.toml") -> str:
        (tmp_path / name).write_text(text, "utf-8")
        return str(tmp_path / name)

    return write_it


def compared(path: str) -> Comparison:
    return compare_rules(load_rules(path), TIGERLAKE)


def replays(found: Comparison, path: str) -> tuple[set[str], set[str]]:
    """What each rule set finds wrong with the separating VMCS, on integers."""
    assert found.separating is not None
    first = Evaluator(TIGERLAKE).run(found.separating)
    second = Evaluator(TIGERLAKE, load_rules(path).values()).run(found.separating)
    return {check.id for check in first.violated}, {check.id for check in second.violated}


# The mistakes that were published: a rule reads the wrong control word; the consistency of CR0 and CR4 is not
# checked; a rule is evaluated and its failure never reported.
def test_a_rule_that_reads_the_wrong_control_word(write: Write) -> None:
    path = write('[replace.CTL-IOBM-01]\ngates = ["pin[25]"]\n')
    found = compared(path)
    assert found.answer is Answer.SAT
    assert set(found.changes) == {"IO_BITMAP_A", "PRIMARY_PROC_CONTROLS"}
    ours, theirs = replays(found, path)
    assert (ours, theirs) == ({"CTL-IOBM-01"}, set())
    assert found.first == "VMfailValid 7 (CTL-IOBM-01)"
    assert found.second == "enters"


def test_a_missing_rule_about_cr0_and_cr4(write: Write) -> None:
    path = write('remove = ["GUEST-CR-04"]\n')
    found = compared(path)
    assert {"GUEST_CR0", "GUEST_CR4"} == set(found.changes)
    assert replays(found, path) == ({"GUEST-CR-04"}, set())
    before, after = found.changes["GUEST_CR4"]
    assert before ^ after == 1 << 23  # CET
    before, after = found.changes["GUEST_CR0"]
    assert before ^ after == 1 << 16  # WP


def test_a_rule_whose_failure_is_never_reported(write: Write) -> None:
    text = """
import attrs

def rules(checks):
    silent = attrs.evolve(checks["GUEST-RFL-02"], holds=lambda view: view.GUEST_RFLAGS == view.GUEST_RFLAGS)
    return {**checks, silent.id: silent}
"""
    path = write(text, "silent.py")
    found = compared(path)
    assert replays(found, path) == ({"GUEST-RFL-02"}, set())
    assert set(found.changes) == {"GUEST_RFLAGS"}


def test_a_stricter_rule(write: Write) -> None:
    """Where the variant refuses and ours does not."""
    path = write('[replace.GUEST-RIP-01]\ngates = []\nholds = "GUEST_RIP >> 32 == 0"\n')
    found = compared(path)
    ours, theirs = replays(found, path)
    assert (ours, theirs) == (set(), {"GUEST-RIP-01"})


def test_an_outcome_that_differs_is_a_difference(write: Write) -> None:
    text = """
import attrs
from popek.architectures.vtx.entry_checks import Outcome

def rules(checks):
    other = attrs.evolve(checks["GUEST-CR-03"], outcome=Outcome("vmfail-valid", errors=(8,)))
    return {**checks, other.id: other}
"""
    found = compared(write(text, "outcome.py"))
    assert found.answer is Answer.SAT
    assert "entry failure 33" in found.first
    assert "VMfailValid 8" in found.second


def test_other_words_for_the_same_rules_are_equivalent(write: Write) -> None:
    path = write(
        """
[replace.CTL-IOBM-01]
gates = ["PRIMARY_PROC_CONTROLS & 0x2000000 != 0"]
holds = "placed(IO_BITMAP_A) and not IO_BITMAP_A[3]"
[replace.GUEST-RFL-02]
holds = "GUEST_RFLAGS & 2 == 2"
[replace.GUEST-CR-02]
holds = "not (GUEST_CR0[31] and not GUEST_CR0[0])"
"""
    )
    assert compared(path).answer is Answer.UNSAT


def test_a_shadowed_check_is_not_missed(write: Write) -> None:
    assert compared(write('remove = ["HOST-ASZ-04"]\n')).answer is Answer.UNSAT


def test_what_is_beyond_fields_is_not_called_equivalent(write: Write) -> None:
    found = compared(write('remove = ["PRE-06"]\n'))
    assert found.answer is Answer.UNKNOWN
    assert found.beyond == ("PRE-06",)


def test_our_rules_are_equivalent_to_themselves_and_let_baselines_enter() -> None:
    assert compare_rules(CHECKS, TIGERLAKE).answer is Answer.UNSAT
    for mode in MODES:
        assert not Evaluator(TIGERLAKE).run(baseline(mode, TIGERLAKE)).violated


@pytest.mark.parametrize(
    "text",
    [
        "GUEST_CR0 +",
        "__import__('os')",
        "GUEST_CR9 == 0",
        "cap.secrets == 0",
        "GUEST_CR0[64]",
        "(lambda: 1)()",
        "1.5",
        "GUEST_CR0.denominator",
    ],
)
def test_expressions_are_not_python(text: str) -> None:
    with pytest.raises(RuleFileError) as caught:
        predicate(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "complaint"),
    [
        ('remove = ["GUEST-CR-99"]', "a.toml", "GUEST-CR-99"),
        ("remove = [", "a.toml", "not TOML"),
        ("drop = []", "a.toml", "drop"),
        ("[replace.GUEST-CR-02]\n", "a.toml", "gates"),
        ("x = 1", "a.py", "rules"),
        ("def rules(checks):\n    return 1\n", "a.py", "must return"),
        ("x = 1\nraise ValueError('no')", "a.py", "a.py:2: ValueError: no"),
        ("def rules(checks):\n    return checks['x']\n", "a.py", "a.py:2: rules(checks): KeyError"),
        ("x = (", "a.py", "a.py:1: '(' was never closed"),
        ("", "a.txt", ".toml patch or a .py file"),
    ],
)
def test_bad_files_are_one_line(text: str, name: str, complaint: str, write: Write) -> None:
    with pytest.raises(UserError, match=re.escape(complaint)) as caught:
        app(["compare", "--with", write(text, name)], result_action="return_value", exit_on_error=False)
    assert "\n" not in str(caught.value)


def test_the_command(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write('remove = ["GUEST-CR-02"]\n')
    arguments = ["compare", "--with", path, "--capabilities", "bochs-tigerlake"]
    assert app([*arguments, "--json"], result_action="return_value") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["equivalent"] is False
    assert app(arguments, result_action="return_value") == 1
    assert "Different" in capsys.readouterr().out
    path = write("remove = []\n")
    assert app(["compare", "--with", path], result_action="return_value") == 0
    assert "Equivalent on intel-haswell" in capsys.readouterr().out
