"""What the page is told: the protocol without a page."""

from __future__ import annotations

import json
from typing import Any

import pytest

import popek
from popek.checks.survey import CLASSES
from popek.explorer.answers import Explorer
from popek.explorer.edits import edited, source_of


def ask(explorer: Explorer, **message: Any) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(answer)) for answer in explorer.answers(message)]


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer()


def test_every_machine_can_be_chosen(explorer: Explorer) -> None:
    (told,) = ask(explorer, ask="machines")
    assert [one["name"] for one in told["machines"]] == list(popek.list_machines())
    (one,) = ask(explorer, ask="machine", machine="ia32")
    assert {setting["name"] for setting in one["settings"]} >= {"IOPL", "UMIP"}


@pytest.mark.parametrize("settings", [{}, {"GMODE": 0}, {"LPSW": 0, "GREL": 0}])
def test_the_table_is_what_the_library_says(explorer: Explorer, settings: dict[str, int]) -> None:
    first, *rows, last = ask(explorer, ask="classify", machine="pg74", settings=settings, promises=True)
    found = popek.classify("pg74", **settings)
    assert first["forms"] == len(rows) == len(found.rows)
    for told, row in zip(rows, found.rows, strict=True):
        assert {name: told["row"][name] for name in CLASSES} == {n: t.value for n, t in row.classes.items()}
        assert (told["row"]["faithful"], told["row"]["safe"]) == (row.faithful.value, row.safe.value)  # type: ignore[union-attr]
    assert (last["theorem1"], last["theorem3"]) == (found.theorem1.value, found.theorem3.value)
    assert last["critical"] == found.mnemonics("critical")


def test_the_witness_is_the_one_that_is_replayed(explorer: Explorer) -> None:
    (told,) = ask(explorer, ask="explain", machine="pg74", form="GMODE a", settings={"GMODE": 0})
    witness = told["witnesses"]["mode_sensitive"]
    assert witness["differ"] == ["memory[0x0]"]
    for run in witness["runs"]:
        (step,) = ask(
            explorer,
            ask="step",
            machine="pg74",
            form=run["form"],
            before=run["before"],
            operands=run["operands"],
        )
        assert step["changes"] == run["changes"]
    assert told["paths"] == 7


def ends(node: dict[str, Any]) -> int:
    return 1 if node["kind"] else sum(ends(node[way]) for way in ("yes", "no") if way in node)


@pytest.mark.parametrize(("machine", "form"), [("pg74", "LPSW a"), ("ia32", "CLI"), ("s370", "SSM D2(B2)")])
def test_the_tree_has_every_path(explorer: Explorer, machine: str, form: str) -> None:
    form = next(one for one in popek.machine(machine).instructions if one.startswith(form.split()[0]))
    (told,) = ask(explorer, ask="explain", machine=machine, form=form)
    assert ends(told["tree"]) == told["paths"]


def test_a_rewritten_instruction_has_another_verdict(explorer: Explorer) -> None:
    (told,) = ask(explorer, ask="explain", machine="pg74", form="GMODE a", settings={"GMODE": 0})
    about = {"ask": "classify", "machine": "pg74", "settings": {"GMODE": 0}}
    assert ask(explorer, **about)[-1]["theorem1"] == "refuted"
    repaired = told["python"].replace("cpu.mode.zero_extend(WORD)", "Word(WORD, 1)")
    assert repaired != told["python"]
    assert ask(explorer, **about, edits={"GMODE a": repaired})[-1]["theorem1"] == "holds"
    assert ask(explorer, **about)[-1]["theorem1"] == "refuted"  # the machine itself is as it was


@pytest.mark.parametrize(
    ("machine", "form", "also"),
    [("pg74", "GMODE a", []), ("x86-64", "SIDT m", ["SGDT m"]), ("pdp10-ka10", "HLL AC, E", ["HLLZ AC, E"])],
)
def test_forms_that_share_a_semantics_are_rewritten_together(
    machine: str, form: str, also: list[str]
) -> None:
    known = popek.machine(machine)
    old = known.instructions[form].semantics
    changed = edited(known, {form: source_of(known.instructions[form])}).instructions
    new = changed[form].semantics
    assert new is not old
    assert (new.__name__, new.__doc__) == (old.__name__, old.__doc__)
    assert all(changed[name].semantics is new for name in also)
    assert not any(one.semantics is old for one in changed.values())


def test_a_machine_of_ones_own(explorer: Explorer) -> None:
    text = ask(explorer, ask="machines")[0]["example"]
    assert ask(explorer, ask="classify", machine="own", text=text)[-1]["critical"] == ["GETT"]
    mended = text.replace(
        '    """acc := timer, in any mode: the mistake."""',
        "    if cpu.mode == 1:\n        raise Fault(PRIVILEGED)",
    )
    assert ask(explorer, ask="classify", machine="own", text=mended)[-1]["theorem1"] == "holds"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"ask": "everything"}, "ask 'everything': expected one of machines"),
        ({}, "ask None"),
        ({"ask": "machine", "machine": "pg47"}, "did you mean pg74"),
        ({"ask": "machine", "machine": "/etc/passwd"}, "unknown machine"),
        ({"ask": "machine", "machine": "conftest.py"}, "unknown machine"),
        ({"ask": "classify", "machine": "pg74", "settings": {"GMODE": 7}}, "GMODE"),
        ({"ask": "classify", "machine": "pg74", "settings": [1]}, "settings: expected an object"),
        ({"ask": "classify", "machine": "pg74", "technique": "magic"}, "unknown technique"),
        ({"ask": "classify", "machine": "pg74", "edits": {"GMODE a": 1}}, "edits: expected"),
        ({"ask": "classify", "machine": "pg74", "edits": {"GMOD": ""}}, "did you mean GMODE"),
        ({"ask": "classify", "machine": "pg74", "edits": {"GMODE a": "def f(:"}}, "GMODE.py:1: "),
        (
            {"ask": "classify", "machine": "pg74", "edits": {"GMODE a": "x = 1"}},
            "expected one function; found 0",
        ),
        (
            {"ask": "classify", "machine": "pg74", "edits": {"GMODE a": "def f(cpu): pass"}},
            "the semantics takes cpu",
        ),
        (
            {"ask": "classify", "machine": "pg74", "edits": {"GMODE a": "def f(cpu, a):\n    cpu.mod = a"}},
            "GMODE.py:2: pg74, GMODE a: Pg74 has no component 'mod'; near: mode",
        ),
        ({"ask": "classify", "machine": "own", "text": "x ="}, "machine.py:1: invalid syntax"),
        ({"ask": "classify", "machine": "own", "text": "x = 1"}, "expected one Machine"),
        (
            {"ask": "step", "machine": "pg74", "form": "GMODE a", "before": {"mode": "one"}},
            "before: expected numbers",
        ),
        (
            {"ask": "step", "machine": "pg74", "form": "GMODE a", "before": {"mode": "9"}},
            "does not fit into 1 bits",
        ),
        ({"ask": "doctor", "text": ""}, "no dump"),
        ({"ask": "doctor", "text": "hello"}, "no VMCS field"),
        ({"ask": "doctor", "text": 7}, "text: expected a text"),
    ],
)
def test_what_is_wrong_is_one_line(explorer: Explorer, message: dict[str, Any], told: str) -> None:
    last = ask(explorer, **message)[-1]
    assert list(last) == ["error"]
    assert told in last["error"]
    assert "\n" not in last["error"]
