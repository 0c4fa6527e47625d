"""`--certify`, the ladder of evidence, and the JSON Schemas of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from commands import popek
from popek.checks import certification
from popek.schemas import schemas
from popek.solving.certificate import NotCertifiedError
from popek.solving.solver import Answer
from popek_proofs import rocq

GMODE = ("explain", "pg74", "GMODE", "--set", "GMODE=0")


def accepted(data: Any, name: str) -> None:
    registry: Registry[Any] = Registry().with_resources(
        (one["$id"], Resource.from_contents(one)) for one in schemas().values()
    )
    jsonschema.Draft202012Validator(schemas()[name], registry=registry).validate(data)


def answered(*arguments: str) -> Any:
    done = popek(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rungs(evidence: dict[str, Any]) -> dict[str, str]:
    return {step["rung"]: step["reached"] for step in evidence["ladder"]}


def told(evidence: dict[str, Any], rung: str) -> str:
    return next(str(step["told"]) for step in evidence["ladder"] if step["rung"] == rung)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of one form."""
    out = tmp_path_factory.mktemp("certificates") / "pg74"
    assert popek(*GMODE, "--certify", str(out)).returncode == 0
    return out


def test_without_it_the_certificate_is_not_asked_and_the_evidence_says_so() -> None:
    (form,) = answered(*GMODE)["forms"]
    no, yes = form["evidence"]["control_sensitive"], form["evidence"]["mode_sensitive"]
    assert no["certificate"] is None
    assert rungs(no)["certificate"] == "not asked"
    assert rungs(yes) == {"replayed": "reached", "emulator": "not asked", "solver": "reached"}
    assert told(yes, "emulator") == "with --confirm"


def test_with_it_every_no_has_a_certificate_that_the_folder_keeps(folder: Path) -> None:
    (form,) = answered(*GMODE, "--certify", str(folder))["forms"]
    answers = {name: set(one["solvers"].values()) for name, one in form["evidence"].items()}
    impossible = [name for name, said in answers.items() if said == {"unsat"}]
    assert {"control_sensitive", "location_sensitive", "safety", "needless_trap"} <= set(impossible)
    for name in impossible:
        one = form["evidence"][name]
        assert rungs(one) == dict.fromkeys(("solver", "second solver", "certificate"), "reached")
        kept = json.loads((folder / "questions" / f"{one['smtlib_sha256'][:16]}.json").read_text())
        assert one["certificate"]["files"] == kept["files"]
        accepted(kept, "popek/question/1")
    assert {"README.md", "proof_checker.py"} <= {path.name for path in folder.iterdir()}


def test_what_verify_kept_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(certification, "certify", lambda text, *a, **k: made.append(text))
    done = popek(*GMODE, "--certify", str(folder))
    assert made == []
    assert "second solver 6 of 6; certificate 6 of 6" in " ".join(done.stdout.split())
    assert popek("classify", "pg74", "GMODE", "--set", "GMODE=0", "--certify", str(folder)).returncode == 0
    assert made == []  # the questions of a classification are those of an explanation


def test_a_classification_says_how_far_it_goes(folder: Path) -> None:
    plain = answered("classify", "pg74", "GMODE", "--promises", "--set", "GMODE=0")
    certified = answered(
        "classify", "pg74", "GMODE", "--promises", "--set", "GMODE=0", "--certify", str(folder)
    )
    rows = {row["rung"]: row for row in plain["ladder"]}
    assert rows["certificate"]["not_asked"] == rows["certificate"]["of"] == 6
    assert rows["replayed"]["reached"] == 1
    rows = {row["rung"]: row for row in certified["ladder"]}
    assert rows["certificate"]["reached"] == rows["certificate"]["of"] == 6
    assert "ladder" not in plain["instructions"][0]
    assert rungs({"ladder": certified["instructions"][0]["ladder"]["safety"]})["certificate"] == "reached"


def test_a_claim_says_how_far_it_goes(tmp_path: Path) -> None:
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
    (claim,) = answered("check", str(tmp_path / "c.toml"), "--certify", str(tmp_path / "kept"))["claims"]
    rows = {row["rung"]: row for row in claim["ladder"]}
    assert rows["certificate"]["reached"] == rows["certificate"]["of"] > 5


TWO = """
import attrs
from popek.machines import machine as known

found = known("pg74")
kept = {form: one for form, one in found.instructions.items() if form in ("SVC", "JUMP a")}
two = attrs.evolve(found, name="two", instructions=kept)
del found
"""


def test_a_theorem_about_a_machine_goes_up_to_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two.py").write_text(TWO)
    found = answered("prove", str(tmp_path / "two.py"), "--certify", str(tmp_path / "kept"))
    accepted(found, "popek/proofs/1")
    rows = {row["rung"]: row for row in found["propositions"][0]["ladder"]}
    assert rows["solver"]["of"] == rows["certificate"]["reached"] > 5
    assert rows["theorem lock"]["reached"] == 1
    (locked,) = rows["theorem lock"]["told"]
    assert rocq.load().sha256.startswith(locked.rpartition(" ")[2])
    monkeypatch.setattr(rocq, "compare", lambda *_: ["Map.v: changed since the lock was written"])
    rows = {
        row["rung"]: row for row in answered("prove", str(tmp_path / "two.py"))["propositions"][0]["ladder"]
    }
    assert rows["theorem lock"]["unknown"] == 1
    assert "Map.v: changed" in rows["theorem lock"]["told"][0]


def test_what_cannot_be_certified_is_unknown_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hard(*_: object, **__: object) -> None:
        raise NotCertifiedError("too hard today")

    monkeypatch.setattr(certification, "certify", hard)
    monkeypatch.setattr(certification, "others", lambda *_: [("another", Answer.UNKNOWN)])
    (form,) = answered(*GMODE, "--certify", str(tmp_path / "new"))["forms"]
    one = form["evidence"]["safety"]
    assert rungs(one) == {"solver": "reached", "second solver": "unknown", "certificate": "unknown"}
    assert told(one, "certificate") == "too hard today"
    assert told(one, "second solver") == "another does not decide"


def test_a_solver_that_disagrees_stops_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certification, "others", lambda *_: [("another", Answer.SAT)])
    done = popek(*GMODE, "--certify", str(tmp_path / "new"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no assignment, but another finds an assignment" in done.stderr


def test_what_cannot_be_done_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("")
    for arguments, message in (
        ((*GMODE, "--certify", str(tmp_path)), f"--certify {tmp_path}: holds letter"),
        (("prove", "theorem1.step", "--certify", str(tmp_path)), "expected only with a machine"),
        (("classify", "pg74", "--symbolic", "DROP", "--certify", "x"), "expected with no setting left open"),
    ):
        done = popek(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "questions").exists()


# -- schemas --------------------------------------------------------------------------------------


def test_every_schema_is_one() -> None:
    assert set(schemas()) >= {
        f"popek/{name}/1" for name in ("evidence", "proofs", "question", "rocq-lock", "verification")
    }
    for one in schemas().values():
        jsonschema.Draft202012Validator.check_schema(one)


def test_outputs_are_as_their_schemas_say(folder: Path) -> None:
    for one in answered(*GMODE, "--certify", str(folder))["forms"][0]["evidence"].values():
        accepted(one, "popek/evidence/1")
    accepted(answered("prove", "theorem1.step"), "popek/proofs/1")
    accepted(json.loads(Path(rocq.__file__).with_name("rocq.lock.json").read_text()), "popek/rocq-lock/1")
    for more in ((), ("--no-certificates",)):
        arguments = ("verify", "pg74", "--only", "SVC", "--part", "promises", "--jobs", "1", *more)
        accepted(answered(*arguments), "popek/verification/1")


def changed(data: Any) -> Iterator[Any]:
    """The same without one key, with one more, and with a value of another kind, at every place."""
    if isinstance(data, list):
        for place, one in enumerate(data):
            for other in changed(one):
                yield [*data[:place], other, *data[place + 1 :]]
    if isinstance(data, dict):
        yield {**data, "more": {}}
        for key, value in data.items():
            yield {k: v for k, v in data.items() if k != key}
            yield {**data, key: 0.5}
            for other in changed(value) if key != "solvers" else ():
                yield {**data, key: other}


def test_a_schema_refuses_what_lacks_a_key_or_has_another_kind() -> None:
    found = answered("verify", "pg74", "--only", "SVC", "--part", "promises", "--no-certificates")
    others = [one for one in changed(found) if one != {**found, "processor_seconds": 0.5}]
    assert len(others) > 50
    for other in others:
        with pytest.raises(jsonschema.ValidationError):
            accepted(other, "popek/verification/1")
