"""The least set to rewrite: members have witnesses, the rest is enough, and lists are judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import popek
from popek.checks.rewriting import ELSEWHERE, KERNEL, Rewriting, rewriting
from popek.checks.rewriting_saved import saving
from popek.checks.subject import Subject
from popek.checks.survey import Request, survey
from popek.checks.verdict import Truth


def asked(machine: str, *settings: str, promise: str = "both", forms: list[str] | None = None) -> Rewriting:
    return rewriting(Subject.of(machine, None, settings), promise=promise, forms=forms, jobs=1)


@pytest.fixture(scope="module")
def leaky() -> Rewriting:
    """The paper's machine with GMODE and LRA unprivileged: both tell where or in which mode the guest runs."""
    return asked("pg74", "GMODE=0", "LRA=0")


def test_the_papers_machine_needs_no_rewriting() -> None:
    found = asked("pg74")
    assert found.members == found.elsewhere == ()
    assert found.enough is Truth.YES


def test_each_member_breaks_a_promise_with_a_witness_and_the_rest_is_enough(leaky: Rewriting) -> None:
    assert [one.form for one in leaky.members] == ["GMODE a", "LRA a, b"]
    assert all(one.kernel.witness is not None for one in leaky.members)
    assert leaky.enough is Truth.YES
    assert len(leaky.direct) == len(leaky.forms) - 2


def test_reading_the_mode_breaks_nothing_where_the_guest_is_in_user_mode(leaky: Rewriting) -> None:
    assert [one.form for one in leaky.elsewhere] == ["LRA a, b"]


def test_the_members_differ_by_promise() -> None:
    """GMODE's result is wrong and yet shows nothing of the VMM's: the mode of the hardware is always the same."""
    found = asked("pg74", "GMODE=0", "LRA=0", promise="safety")
    assert [one.form for one in found.members] == ["LRA a, b"]


def test_the_two_sides_are_what_the_promises_are_broken_for(leaky: Rewriting) -> None:
    """Another way to ask: a form breaks a promise for some guest just where it does for one of either kind."""
    rows = survey(Request(Subject.of("pg74", None, ["GMODE=0", "LRA=0"]), promises=True), jobs=1).rows
    broken = {row.form for row in rows if Truth.NO in (row.faithful, row.safe)}
    assert broken == {one.form for one in (*leaky.members, *leaky.elsewhere)}


def test_jrst_1_breaks_in_the_kernel_alone() -> None:
    """Popek and Goldberg's example: JRST 1 enters user mode, and in user mode goes on as if nothing were."""
    (found,) = asked("pdp10-ka10", forms=["JRST 1, E"]).forms
    assert getattr(found, KERNEL).direct is Truth.NO
    assert getattr(found, ELSEWHERE).direct is Truth.YES


def test_without_a_guest_of_a_kind_nothing_is_asked_of_it() -> None:
    found = asked("ia32", forms=["SGDT m", "CLI"])
    assert set(found.not_asked) == {ELSEWHERE}
    assert {one.elsewhere.direct for one in found.forms} == {Truth.NOT_ASKED}
    assert [one.form for one in found.members] == ["SGDT m"]
    assert found.partial
    assert found.enough is Truth.UNKNOWN


@pytest.mark.parametrize(
    ("given", "complete", "missing", "needless"),
    [
        (["GMODE a", "LRA a, b"], Truth.YES, (), ()),
        (["LRA a, b"], Truth.NO, ("GMODE a",), ()),
        (["GMODE a", "LRA a, b", "SVC"], Truth.YES, (), ("SVC",)),
    ],
)
def test_lists_are_complete_incomplete_or_padded(
    leaky: Rewriting, given: list[str], complete: Truth, missing: tuple[str, ...], needless: tuple[str, ...]
) -> None:
    judged = leaky.judge(given)
    assert (judged.complete, judged.missing, judged.needless) == (complete, missing, needless)


FEW = ("rewrite", "pg74", "GMODE", "LRA", "SVC", "--set", "GMODE=0", "--set", "LRA=0", "--jobs", "1")


def test_a_shortened_list_is_refuted_by_a_witness(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# ours\nLRA  # by mnemonic\nSVC\n")
    done = popek(*FEW, "--given", "list.txt", folder=tmp_path)
    assert done.returncode == 1
    assert "incomplete" in done.stdout
    assert "missing: GMODE a" in done.stdout
    assert "needless: SVC" in done.stdout
    assert "on the hardware" in done.stdout
    (tmp_path / "list.toml").write_text('forms = ["GMODE", "LRA a, b"]\n')
    done = popek(*FEW, "--given", "list.toml", "--json", folder=tmp_path)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["given"]["complete"] == "unknown"
    assert found["rewrite"] == ["GMODE a", "LRA a, b"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.txt", "LRA\nLRB\n", "a.txt:2: unknown instruction"),
        ("a.txt", "# nothing\n", "expected at least one"),
        ("a.toml", "forms = 3", "a.toml: forms: expected a list"),
        ("a.toml", "forms = [", "a.toml: not TOML"),
        ("a.json", '["LRA", 3]', "item 2: expected text"),
        ("a.json", "[\n", "a.json:2: not JSON"),
    ],
)
def test_what_is_no_list_is_told_in_one_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    done = popek(*FEW, "--given", name, folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert told in done.stderr, done.stderr


SOME = ["MOV r32, Sreg", "SGDT m", "CLI"]


def test_of_the_segment_registers_only_those_that_hold_the_privilege_level_matter() -> None:
    """SDM vol. 3A: the CPL is in CS and SS alone; the others hold the RPL that was loaded."""
    found = rewriting(Subject.of("ia32"), promise="fidelity", forms=SOME, operands=True, jobs=1)
    assert {one.form: dict(one.operands) for one in found.members} == {
        "MOV r32, Sreg": {"Sreg": ("cs", "ss")},
        "SGDT m": {},
    }


@pytest.mark.parametrize(
    ("setting", "value", "saved", "added"),
    [("UMIP", 1, ("SGDT m",), ()), ("IOPL", 3, (), ("CLI",)), ("TSD", 1, (), ())],
)
def test_settings_save_forms_or_add_them(
    setting: str, value: int, saved: tuple[str, ...], added: tuple[str, ...]
) -> None:
    subject = Subject.of("ia32")
    found = rewriting(subject, promise="fidelity", forms=SOME, jobs=1)
    one = saving(subject, found, setting, value, promise="fidelity", jobs=1)
    assert (one.saved, one.added, one.open) == (saved, added, ())


def test_ways_without_hardware_help_are_counted_by_what_runs_directly(leaky: Rewriting) -> None:
    """LRA is silent in every mode, so that neither rewriting the kernel nor interpreting it is enough."""
    counts = {way.name.split(":")[0]: (way.kernel, way.elsewhere, way.keeps) for way in leaky.ways}
    assert counts == {
        "trap and emulate": (11, 11, Truth.NO),
        "rewriting in kernel mode": (9, 11, Truth.NO),
        "hybrid": (None, 11, Truth.NO),
        "interpretation": (None, None, Truth.YES),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("GMODE", "expected NAME=VALUE"),
        ("NONE=1", "unknown setting"),
        ("LRA=0", "its value already"),
        ("LRA=?", "another value"),
    ],
)
def test_what_is_no_other_setting_is_told_in_one_line(text: str, told: str) -> None:
    done = popek(*FEW, "--saves", text)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert told in done.stderr, done.stderr
    assert "--set" not in done.stderr
