"""`popek verify`: other solvers, certificates, and a folder that can be checked without popek."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import popek
from popek.checks import certification
from popek.solving.certificate import TooHardError
from popek.solving.proof_checker import check
from popek.solving.second_solver import second_answer
from popek.solving.solver import Answer, sha256

FEW = ("verify", "pg74", "--only", "SVC", "--only", "LPSW a", "--jobs", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a verification of two forms writes."""
    out = tmp_path_factory.mktemp("verification") / "pg74"
    done = popek(*FEW, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert f"how to check them: {out / 'README.md'}" in done.stdout
    return out


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_every_question_of_a_form_is_certified(folder: Path) -> None:
    found = summary(folder)
    assert found["questions"] == found["second_solver"] == found["third_solver"] == found["certified"] > 20
    assert found["not_certified"] == found["wrong"] == []
    rows = [line.split("\t") for line in (folder / "questions.tsv").read_text().splitlines()]
    assert {state for state, _, _ in rows} == {"certified"}
    asked = {name for _, _, name in rows}
    assert {"pg74/LPSW a/privileged", "pg74/LPSW a/faithful", "pg74/SVC/not mode_sensitive"} <= asked
    assert {"pg74/SVC/A1_fidelity", "pg74/SVC/safe, modelled"} <= asked
    assert "pg74/LPSW a/not control_sensitive" not in asked  # it is
    assert "pg74/SVC/no needless trap" in asked


def test_each_file_of_the_folder_stands_alone(folder: Path) -> None:
    names = {path.stem for path in (folder / "questions").glob("*.smt2")}
    assert len(names) == summary(folder)["texts"]
    for name in sorted(names)[::6]:
        text = (folder / "questions" / f"{name}.smt2").read_text()
        assert sha256(text).startswith(name)
        assert second_answer(text) is Answer.UNSAT
        check(*((folder / "questions" / f"{name}.{kind}").read_text() for kind in ("cnf", "drat")))


def test_the_commands_of_its_readme_name_what_is_not_accepted(folder: Path, tmp_path: Path) -> None:
    readme = (folder / "README.md").read_text()
    (loop,) = (line.strip() for line in readme.splitlines() if "python3 proof_checker.py" in line)
    few = tmp_path / "questions"
    few.mkdir()
    (tmp_path / "proof_checker.py").write_bytes((folder / "proof_checker.py").read_bytes())
    (tmp_path / "python3").symlink_to(sys.executable)
    for path in sorted((folder / "questions").glob("*.cnf"))[:2]:
        (few / path.name).write_bytes(path.read_bytes())
        (few / path.with_suffix(".drat").name).write_bytes(path.with_suffix(".drat").read_bytes())
    first, second = sorted(few.glob("*.cnf"))

    def run() -> str:
        here = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            loop, shell=True, capture_output=True, text=True, cwd=tmp_path, env=here, check=False
        )
        return done.stdout

    assert run() == ""
    second.with_suffix(".drat").write_text("")
    assert run() == f"questions/{second.name}\n"
    assert first.exists()


def test_what_a_folder_has_is_not_done_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    certify = certification.certify
    monkeypatch.setattr(
        certification,
        "certify",
        lambda text, *a, **k: made.append(sha256(text)[:16]) or certify(text, *a, **k),
    )
    before = summary(folder)
    assert popek(*FEW, "--out", str(folder)).returncode == 0
    assert made == []
    assert summary(folder) == before


@pytest.mark.parametrize("kind", ["smt2", "cnf", "drat", "json"])
def test_a_truncated_or_swapped_file_is_noticed_and_made_again(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    certify = certification.certify
    monkeypatch.setattr(
        certification,
        "certify",
        lambda text, *a, **k: made.append(sha256(text)[:16]) or certify(text, *a, **k),
    )
    one, other = sorted((folder / "questions").glob(f"*.{kind}"), key=lambda path: path.stat().st_size)[-2:]
    whole = one.read_bytes(), other.read_bytes()
    one.write_bytes(whole[0][:-5])
    other.write_bytes(whole[0])
    assert popek(*FEW, "--out", str(folder)).returncode == 0
    assert set(made) == ({one.stem} if whole[0] == whole[1] else {one.stem, other.stem})
    if kind != "json":  # it says how long it took
        assert (one.read_bytes(), other.read_bytes()) == whole


def test_what_is_too_hard_is_named_and_tried_again_with_more_conflicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    certify = certification.certify

    def hard(text: str, *rest: Any, conflicts: int, **more: Any) -> Any:
        tried.append(conflicts)
        if conflicts < 3:
            raise TooHardError("too hard")
        return certify(text, *rest, conflicts=conflicts, **more)

    monkeypatch.setattr(certification, "certify", hard)
    few = ("verify", "pg74", "--only", "SVC", "--part", "promises", "--jobs", "1", "--out", str(tmp_path))
    assert popek(*few, "--conflicts", "2").returncode == 0  # other solvers confirm
    named = summary(tmp_path)["not_certified"]
    asked = len(tried)
    assert {row["why"] for row in named} == {"too hard"}
    for no_more in "12":
        assert popek(*few, "--conflicts", no_more).returncode == 0
    assert len(tried) == asked
    assert popek(*few).returncode == 0
    assert tried == [2] * asked + [200_000] * asked
    assert summary(tmp_path)["not_certified"] == []


def test_a_form_of_ia32_is_certified() -> None:
    done = popek("verify", "ia32", "--only", "MOV r32, r32", "--part", "classes", "--jobs", "1", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["schema"] == "popek/verification/1"
    assert found["questions"] == found["certified"] == found["second_solver"] > 5


def test_a_theorem_is_answered_by_two_solvers_and_says_why_it_has_no_certificate() -> None:
    done = popek("verify", "theorem1.step", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert (found["questions"], found["second_solver"], found["certified"]) == (1, 1, 0)
    (row,) = found["not_certified"]
    assert (row["id"], row["why"]) == ("theorem1.step", "it has sorts other than bit-vectors")
    assert len(row["solvers"]) == 2


def test_a_claim_is_verified_by_its_forms(tmp_path: Path) -> None:
    text = """id = "c"
title = "t"
source = "s"
machine = "pg74"
statement = "said of some"
expected = "holds"
[[rows]]
subject = "JUMP"
statement = "faithful"
expected = "holds"
"""
    (tmp_path / "c.toml").write_text(text)
    done = popek("verify", str(tmp_path / "c.toml"), "--jobs", "1", "--no-certificates", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["questions"] == found["second_solver"] > 0
    assert {row["id"].partition("/")[0] for row in found["not_certified"]} == {"c"}
    assert {row["why"] for row in found["not_certified"]} == {"no certificate was asked for"}
    assert "c/JUMP a/faithful" in {row["id"] for row in found["not_certified"]}


def test_a_solver_that_disagrees_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certification, "others", lambda text, answered: [("another", Answer.SAT)])
    done = popek("verify", "pg74", "--only", "SVC", "--part", "promises", "--jobs", "1")
    assert done.returncode == 1
    assert "wrong  pg74/SVC/safe: another finds an assignment" in done.stdout


def test_what_nobody_confirms_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certification, "others", lambda text, answered: [("another", Answer.UNKNOWN)])
    done = popek("verify", "pg74", "--only", "SVC", "--part", "promises", "--jobs", "1", "--no-certificates")
    assert done.returncode == 3


def test_what_cannot_be_verified_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("")
    for arguments, told in (
        ((), "expected machines, claims or theorems"),
        (("pg75",), "unknown proposition 'pg75'"),
        (("pg74", "--only", "NONE"), "NONE"),
        (("pg74", "--part", "class"), "--part class: expected one of classes, premises, promises"),
        (("pg74", "--conflicts", "0"), "--conflicts 0: expected a number from 1"),
        (("theorem1", "--only", "SVC"), "expected with machines alone, not theorem1"),
        (("theorem1.step", "--out", str(tmp_path)), "holds letter, which is no part of a verification"),
        (("theorem1.step", "--out", str(tmp_path / "letter")), "--out"),
    ):
        done = popek("verify", *arguments)
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
