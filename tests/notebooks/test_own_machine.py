"""A machine that a cell declares is asked about like one with a name: no file, no second process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from popek import notebook
from popek.architectures.pg74 import MACHINES
from popek.checks import survey
from popek.checks.subject import Subject
from popek.checks.survey import Request
from popek.kernel.configuration import Configuration
from popek.kernel.machine import Machine
from popek.machines import from_file
from popek.notebook import NotebookError
from popek.work import processes

MANY = 30  # forms; a named machine with so many is surveyed by several processes
CLAIM = """
id = "own.gmode"
title = "GMODE shows the mode"
source = "this test"
statement = "GMODE is critical"
machine = "./nowhere.py"
expected = "holds"

[[rows]]
subject = "GMODE"
statement = "critical"
expected = "holds"
"""


def _own() -> Machine[Any]:
    """Popek and Goldberg's machine, with more instructions than a single process would be asked about."""
    own = MACHINES["pg74"]()
    for number in range(MANY):
        own.instruction(f"NOP{number}", source="this test")(lambda cpu: None)
    return own


def test_own_machine_is_classified_without_a_file_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    own = _own()

    def no_pool(*_: object, **__: object) -> None:
        raise AssertionError("a machine with lambdas was sent to another process")

    monkeypatch.setattr(processes, "ProcessPoolExecutor", no_pool)
    found = survey.survey(Request(Subject.of(own), components=False), jobs=2)
    assert len(found.rows) == len(own.instructions) > MANY
    with pytest.raises(AssertionError, match="another process"):
        survey.survey(
            Request(Subject.of("pg74", None, Configuration()), components=False),
            forms=[*MACHINES["pg74"]().instructions] * 3,
            jobs=2,
        )


def test_own_machine_has_the_answers_of_the_named_one() -> None:
    own = MACHINES["pg74"]()
    assert notebook.classify(own, GMODE=0).mnemonics("critical") == ["GMODE"]
    assert str(notebook.explain(own, "GMODE", GMODE=0)) == str(notebook.explain("pg74", "GMODE", GMODE=0))
    assert str(notebook.machine(own)) == str(notebook.machine("pg74"))
    assert str(notebook.leaks(own, "GMODE", GMODE=0)) == str(notebook.leaks("pg74", "GMODE", GMODE=0))
    assert str(notebook.paths(own, "GMODE")) == str(notebook.paths("pg74", "GMODE"))
    assert notebook.critical_when(own, "GMODE", GMODE="?").answer.machine == "pg74"


def test_claims_speak_of_own_machines() -> None:
    found = notebook.check(CLAIM, of=MACHINES["pg74"]())
    # By default GMODE traps in user mode, so that the claim turns out otherwise.
    assert [row.verdict.value for row in found[0].rows] == ["refuted"]
    assert found[0].to_json()["machine"] == "pg74"
    with pytest.raises(NotebookError, match=r"claim: machine: .*nowhere\.py"):
        notebook.check(CLAIM)


def test_a_file_still_declares_one(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("from popek.architectures.pg74 import MACHINES\n")
    assert notebook.classify(str(file), "ADD").machine == from_file(file).name == "pg74"
