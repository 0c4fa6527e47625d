"""`popek machines --check`: what a trial finds in models that can be asked about, and in ones that cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_wrong_models import TOY, written

from commands import popek

COUNTS = '''

calls = []


@toy.instruction("COUNT")
def count(cpu):
    """It looks at what is no part of the state."""
    calls.append(1)
    cpu.acc = cpu.acc + len(calls)
'''
ASKS = '''

calls = []


@toy.instruction("ASKS")
def asks(cpu):
    """Another question each time."""
    calls.append(1)
    if cpu.acc == len(calls):
        cpu.acc = cpu.acc + 1
'''
BANKED = '''

for name in ("PUSH", "POP", "TOP"):

    @toy.instruction(name)
    def push(cpu):
        """The stack pointer of the mode."""
        cpu.acc = ite(cpu.mode == 1, cpu.usp, cpu.ksp)
'''


def check(folder: Path, changes: tuple[tuple[str, str], ...]) -> tuple[int, list[tuple[str, str]]]:
    """The exit code, and kind and text of each finding."""
    written(folder, changes)
    ran = popek("machines", "./toy.py", "--check", "--json", folder=folder)
    (found,) = json.loads(ran.stdout)["machines"].values()
    return ran.returncode, [(one["kind"], one["text"]) for one in found["findings"]]


def test_the_toy_can_be_asked_about(tmp_path: Path) -> None:
    assert check(tmp_path, ()) == (0, [])
    written(tmp_path, ())
    said = popek("machines", "./toy.py", "--check", folder=tmp_path).stdout
    assert "toy: can be asked about" in said
    assert "no trial can tell" in said


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    changes = (
        ('replaced=("timer",)', 'replaced=("timr",)'),
        ('owned=("mode", "timer")', 'owned=("mood", "timer")'),
    )
    code, found = check(tmp_path, changes)
    assert code == 2
    assert [kind for kind, _ in found] == ["mistake", "mistake"]
    assert "near: mode" in found[0][1]
    assert "near: timer" in found[1][1]


def test_a_semantics_that_is_no_function_of_the_state_breaks_the_law(tmp_path: Path) -> None:
    code, found = check(tmp_path, (("", COUNTS),))
    assert code == 1
    assert [kind for kind, _ in found] == ["law"]
    assert "COUNT: acc is" in found[0][1]
    code, found = check(tmp_path, (("", ASKS),))
    assert code == 2
    assert "asks another question" in found[0][1]


def test_a_bank_of_registers_is_recognised_and_the_remedy_told(tmp_path: Path) -> None:
    changes = (
        ("    timer = word(8", "    ksp = word(8)\n    usp = word(8)\n    timer = word(8"),
        ("import Word\n", "import Word, ite\n"),
        ("", BANKED),
    )
    code, found = check(tmp_path, changes)
    assert code == 0
    assert [text.partition(":")[0] for _, text in found] == [
        "PUSH, POP, TOP choose a register by the mode, so each is mode-sensitive"
    ]
    assert "exchange it where the mode changes" in found[0][1]


def test_a_bank_is_recognised_though_what_it_holds_is_checked(tmp_path: Path) -> None:
    limit = "        if ite(cpu.mode == 1, cpu.usp, cpu.ksp) > 200:\n            raise Fault(PRIVILEGED)\n"
    checked = BANKED.replace("        cpu.acc = ite(", limit + "        cpu.acc = ite(")
    assert checked != BANKED
    changes = (
        ("    timer = word(8", "    ksp = word(8)\n    usp = word(8)\n    timer = word(8"),
        ("import Word\n", "import Word, ite\n"),
        ("", checked),
    )
    code, found = check(tmp_path, changes)
    assert code == 0
    assert [text.partition(":")[0] for _, text in found] == [
        "PUSH, POP, TOP choose a register by the mode, so each is mode-sensitive"
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            (("    timer = word(8", "    spare = word(8, role=Role.RESOURCE)\n    timer = word(8"),),
            "spare: no instruction reads or changes it",
        ),
        (
            (('replaced=("timer",),', "replaced=(),"),),
            "toy under ring-deprivileging: the map takes timer from `private`, and `replaced` does not name it",
        ),
        (
            (
                ("    timer = word(8", "    spare = word(8)\n    timer = word(8"),
                ("import Machine\n", "import Machine, leaf_setting\n"),
                ("    Toy,\n", "    Toy,\n    settings=(leaf_setting('SPARE', 'spare', 8, 'spare', 0),),\n"),
            ),
            "setting SPARE: no instruction reads what it speaks of",
        ),
        (
            (("timer = word(8, role=Role.RESOURCE)", "timer = word(8)"),),
            "timer has the role general, and only SETT can change it, which trap in user mode",
        ),
    ],
)
def test_what_looks_odd_is_told_and_is_no_failure(
    changes: tuple[tuple[str, str], ...], line: str, tmp_path: Path
) -> None:
    code, found = check(tmp_path, changes)
    assert code == 0
    assert [kind for kind, _ in found] == ["advice"]
    assert found[0][1].startswith(line)


def test_one_of_several_machines_in_a_file_is_chosen_by_its_name(tmp_path: Path) -> None:
    two = (("", "\n\nimport attrs\n\nother = attrs.evolve(toy, name='other')\n"),)
    written(tmp_path, two)
    assert popek("classify", "./toy.py:other", folder=tmp_path).stdout.startswith("other under")
    ran = popek("classify", "./toy.py", folder=tmp_path)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "found 2: toy.py:toy, toy.py:other" in ran.stderr
    ran = popek("classify", "./toy.py:third", folder=tmp_path)
    assert "no machine is called 'third'; there are toy, other" in ran.stderr


def test_what_lies_beside_a_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "toy_parts.py").write_text("STEP = 1\n", encoding="utf-8")
    written(
        tmp_path / "below",
        (("from popek.kernel.machine", "from toy_parts import STEP\nfrom popek.kernel.machine"),),
    )
    assert popek("classify", "below/toy.py", "INC", folder=tmp_path).returncode == 0


def test_a_machine_is_shown_in_full() -> None:
    shown = popek("machines", "pg74").stdout
    assert "relocation.bound  8         resource" in shown
    assert "not modelled" in shown


def test_the_toy_of_the_page_is_what_is_changed_here() -> None:
    assert TOY.startswith("from popek.kernel.machine import Machine")


def test_an_answer_that_is_missing_has_its_reason(tmp_path: Path) -> None:
    asks = (
        '\n\n@toy.instruction("MOON")\ndef moon(cpu):\n'
        '    if cpu.acc == 3:\n        raise NotModelledError("the moon")\n'
    )
    written(tmp_path, (("import Fault, ", "import Fault, NotModelledError, "), ("", asks)))
    ran = popek("classify", "./toy.py", "MOON", "--promises", "--json", folder=tmp_path)
    (row,) = json.loads(ran.stdout)["instructions"]
    assert (row["safe"], row["breaches"]["safety"]) == ("unknown", "not modelled: the moon")
