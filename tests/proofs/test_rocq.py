"""The Coq proofs and their lock; compiling them needs Coq, the rest does not."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from popek_proofs import rocq

FOLDER = Path(__file__).parents[2] / "proofs" / "rocq"
LOCK = FOLDER.parent / "popek_proofs" / "rocq.lock.json"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rocq_build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lock_is_of_the_files_of_this_checkout() -> None:
    assert rocq.checkout() == FOLDER
    assert rocq.compare(rocq.load(), FOLDER) == []


def test_the_lock_has_the_files_in_the_order_in_which_they_are_read() -> None:
    assert list(rocq.load().files) == script().sources(FOLDER)


def test_every_theorem_that_is_listed_is_in_the_lock_and_rests_on_nothing() -> None:
    listed = tomllib.loads((FOLDER / "top.toml").read_text())
    assert list(rocq.load().theorems) == list(listed["theorem"])
    assert all(theorem.closed for theorem in rocq.load().theorems.values())


def test_a_theorem_names_the_premises_that_a_machine_has_to_satisfy() -> None:
    one = rocq.load().theorem("Theorem1.theorem_1_from_premises")
    assert one.premises == ("A0_image", "A1_fidelity", "A2_fetch", "A4_entry_tells", "A5_vector")
    three = rocq.load().theorem("Theorem3.theorem_3_from_premises")
    assert three.premises == ("A0_image", "A10_hybrid", "A2_fetch", "A4_entry_tells", "A5_vector")
    for theorem in rocq.load().theorems.values():
        assert set(theorem.premises) <= set(rocq.load().premises)


def test_a_changed_a_missing_and_a_new_file_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "rocq"
    shutil.copytree(FOLDER, folder)
    (folder / "Map.v").write_text((folder / "Map.v").read_text().replace("Nat.min", "Nat.max"))
    (folder / "Runs.v").unlink()
    (folder / "More.v").write_text("")
    assert rocq.compare(rocq.load(), folder) == [
        "More.v: not in the lock",
        "Map.v: changed since the lock was written",
        "Runs.v: not there",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["theorems"][0].update(assumptions="Axioms: classic"), "not proved outright"),
        (lambda data: data.update(schema="popek/rocq-lock/0"), "schema"),
        (lambda data: data.pop("premises"), "premises"),
    ],
)
def test_what_is_no_lock_is_refused(change, message: str) -> None:  # type: ignore[no-untyped-def]
    data = json.loads(LOCK.read_text())
    change(data)
    with pytest.raises(rocq.LockError, match=message):
        rocq.read(json.dumps(data))


def test_an_unknown_theorem_is_refused_with_the_known_ones() -> None:
    with pytest.raises(rocq.LockError, match=r"Theorem1\.theorem_1"):
        rocq.load().theorem("Theorem4")


def test_words_in_comments_are_no_admissions() -> None:
    build = script()
    assert build.FORBIDDEN.search(build.code_of("(* Admitted (* nested *) Axiom *) Lemma a : True.")) is None
    assert build.FORBIDDEN.search(build.code_of("(* said *) Axiom a : False.")) is not None


def test_every_mutation_still_has_its_place() -> None:
    mutations = script().mutations()
    assert len(mutations) >= 12
    for mutation in mutations:
        assert (FOLDER / mutation["file"]).read_text().count(mutation["old"]) == 1, mutation["what"]
        assert mutation["what"] in (FOLDER / "README.md").read_text()
        assert mutation["rejected_by"] in (FOLDER / "README.md").read_text()


def test_a_program_that_fails_is_not_taken_for_one_that_succeeds() -> None:
    build = script()
    with pytest.raises(build.RejectedError, match="exit code 3"):
        build.run([sys.executable, "-c", "print('fine'); raise SystemExit(3)"], FOLDER)


@pytest.mark.rocq
def test_coq_and_its_checker_accept_the_proofs_and_say_what_the_lock_says() -> None:
    done = subprocess.run([sys.executable, FOLDER / "build.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Closed under the global context".lower() in done.stdout


@pytest.mark.rocq
def test_mutations_are_rejected(tmp_path: Path) -> None:
    """Two of them, of files that are compiled early; all: `proofs/rocq/build.py --mutations`."""
    build = script()
    names = build.sources(FOLDER)
    build.copied(tmp_path, names)
    early = names[: names.index("Monitor.v") + 1]
    build.compile_all(tmp_path, early, tell=False)
    chosen = [m for m in build.mutations() if m["what"] in ("M is not noted", "the monitor does not step")]
    assert len(chosen) == 2
    for mutation in chosen:
        assert build.replay(tmp_path, early, mutation) == mutation["rejected_by"]
