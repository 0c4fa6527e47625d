"""What answers depend on: every file and function that runs for a form is in its hash, and an edit finds it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import popek
import popek_proofs
import popek_specs
from popek.checks.kept_rows import sources_of
from popek.checks.subject import Subject
from popek.checks.survey import ALL, Request, Surveyor
from popek.keeping import sources as module
from popek.keeping.sources import Sources
from popek.machines import makers, origin

HOME = Path(popek.__file__).resolve().parent


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no file had changed since this process began: a developer edits while tests run."""
    monkeypatch.setattr(popek, "STARTED_NS", 2**62)


class Trace:
    """The functions that run, by file and line."""

    def __init__(self) -> None:
        self.places: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            self.places.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    def within(self, folder: Path) -> set[tuple[str, int]]:
        found = {(os.path.realpath(file), line) for file, line in self.places}
        return {(file, line) for file, line in found if folder in Path(file).parents}


@pytest.mark.parametrize("name", sorted(makers()))
@pytest.mark.usefixtures("old")
def test_what_runs_for_a_form_counts_for_it(name: str) -> None:
    """Functions of popek that run are in files that count; of other instructions' bodies none runs."""
    subject = Subject.of(name)
    found = sources_of(subject, None)
    assert found is not None
    read = module._Reader(None)
    assert read.closure([origin(name)[0]], None) is not None
    bodies = {(str(path), line) for path, one in read.parts.items() for line in one.own}
    forms = list(subject.machine.instructions)
    form = forms[len(forms) // 3]
    surveyor = Surveyor(Request(subject, witnesses=ALL, promises=len(forms) < 150))
    trace = Trace()
    sys.setprofile(trace)
    try:
        surveyor.row(form)
    finally:
        sys.setprofile(None)
    ran = trace.within(HOME)
    assert {Path(file) for file, _ in ran} <= found.files
    below = module._places(subject.machine.instructions[form].semantics)
    assert below is None or ran & bodies <= below


@pytest.mark.usefixtures("old")
def test_most_forms_have_a_hash_of_their_own() -> None:
    found = sources_of(Subject.of("ia32"), None)
    assert found is not None
    assert len(set(found.own.values())) > 100
    assert HOME / "architectures" / "ia32" / "instructions" / "flags.py" in found.files
    assert not any("s360" in file.parts for file in found.files if file.suffix == ".py")


def test_nothing_is_kept_of_files_that_changed_since_this_process_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = Subject.of("pg74")
    monkeypatch.setattr("popek.checks.kept_rows._named", {})
    monkeypatch.setattr(popek, "STARTED_NS", 0)
    assert sources_of(subject, None) is None
    monkeypatch.setattr("popek.checks.kept_rows._named", {})
    monkeypatch.setattr(popek, "STARTED_NS", 2**62)
    found = sources_of(subject, None)
    assert found is not None
    assert found.still_so()
    monkeypatch.setattr(popek, "STARTED_NS", 0)
    assert not found.still_so()


@pytest.mark.usefixtures("old")
def test_what_cannot_be_told_has_no_sources() -> None:
    subject = Subject.of("pg74")
    assert sources_of(Subject.of(subject.machine), None) is None  # no other process finds it
    assert sources_of(Subject.of("pg74", timeout=1.0), None) is None  # the clock has a say


MACHINE = Path(__file__).parents[2] / "docs" / "small-machine.md"


def own_machine(more: str = "") -> str:
    """The machine of the tutorial, in a file."""
    text = MACHINE.read_text(encoding="utf-8")
    begin = text.index("```python") + len("```python")
    return text[begin : text.index("```", begin)].lstrip() + more


def of_file(path: Path) -> Sources | None:
    return sources_of(Subject.of(str(path)), None)


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize(
    "more",
    [
        "\nimport tomllib\n",
        "\nimport beside\n",
        "\nimport math\n",  # a math.py lies beside it
        "\nwith open(__file__) as file:\n    TEXT = file.read()\n",
        "\nTEXT = eval('1')\n",
    ],
)
def test_a_file_that_may_read_others_has_no_sources(tmp_path: Path, more: str) -> None:
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "math.py").write_text("")
    path = tmp_path / "own.py"
    path.write_text(own_machine())
    assert of_file(path) is not None
    path.write_text(own_machine(more))
    assert of_file(path) is None


# -- edits ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """popek in a folder of its own, to be edited."""
    folder = tmp_path_factory.mktemp("copy")
    for package in (popek, popek_specs, popek_proofs):
        home = Path(str(package.__file__)).parent
        shutil.copytree(home, folder / home.name, ignore=shutil.ignore_patterns("__pycache__", "notebooks"))
    return folder


ASK = """
import json, sys
from popek.checks.subject import Subject
from popek.checks.survey import Request, survey
from popek.keeping.store import store
name, settings, solver, *forms = json.loads(sys.argv[1])
found = survey(Request(Subject.of(name, configuration=settings), keep=True), forms=forms, jobs=1)
store().close()
print(json.dumps({row.form: [row.from_store, row.classes["critical"].value] for row in found.rows}))
"""


def ask(
    copy: Path, machine: str, *forms: str, settings: tuple[str, ...] = (), solver: str = ""
) -> dict[str, Any]:
    """Per form whether it was known, and whether it is critical, as another process finds it."""
    more = {
        "PYTHONPATH": str(copy),
        "POPEK_CACHE": str(copy / "kept"),
        "PYTHONPYCACHEPREFIX": str(copy / "compiled"),
    }
    environment = {**os.environ, **more, **({"POPEK_SOLVER": solver} if solver else {})}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    about = json.dumps([machine, settings, solver, *forms])
    time.sleep(0.1)  # what changed just before a process began is not kept by it
    done = subprocess.run(
        [sys.executable, "-c", ASK, about], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture
def edit(copy: Path) -> Iterator[Any]:
    """Changes a text in a file of the copy; it is as before afterwards."""
    before: dict[Path, str] = {}

    def change(file: str, old: str, new: str) -> None:
        path = copy / file
        text = before.setdefault(path, path.read_text(encoding="utf-8"))
        assert old in text
        write(path, text.replace(old, new, 1))

    def write(path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        for compiled in (copy / "compiled").rglob(f"{path.stem}.*.pyc"):
            compiled.unlink()  # Python tells an edit by the second

    yield change
    for path, text in before.items():
        write(path, text)


PG74 = "popek/architectures/pg74/machine.py"
MODE, MOVE = "GMODE a", "MOVE a, b"
BOTH = {MODE: [True, "no"], MOVE: [True, "no"]}


def asked_anew(answers: dict[str, Any]) -> dict[str, str]:
    """The forms that were not known, with whether they are critical."""
    return {form: critical for form, (from_store, critical) in answers.items() if not from_store}


def test_an_edited_instruction_is_asked_about_anew_and_no_other(copy: Path, edit: Any) -> None:
    ask(copy, "pg74", MODE, MOVE)
    assert ask(copy, "pg74", MODE, MOVE) == BOTH
    edit(PG74, "        _privileged(cpu, cpu.straps.gmode)\n", "")
    assert asked_anew(ask(copy, "pg74", MODE, MOVE)) == {MODE: "yes"}


def test_what_is_asked_is_what_is_known(copy: Path) -> None:
    ask(copy, "pg74", MODE, MOVE)
    assert asked_anew(ask(copy, "pg74", MODE, MOVE, settings=("GMODE=0",))) == {MODE: "yes", MOVE: "no"}
    assert asked_anew(ask(copy, "pg74", MODE, MOVE, solver="z3")) == {MODE: "no", MOVE: "no"}
    assert ask(copy, "pg74", MODE, MOVE) == BOTH


@pytest.mark.parametrize(
    ("file", "old", "new", "critical"),
    [
        (PG74, "if cpu.mode == 1 and strap:", "if cpu.mode == 1 and not strap:", "yes"),  # a helper's
        (PG74, '@machine.instruction("JUMP a")', '@machine.instruction("JUMP b")', "no"),
        ("popek/kernel/words.py", "from __future__", "# other words\nfrom __future__", "no"),
        ("popek/checks/classify.py", "COMPONENT = 2_000_000", "COMPONENT = 2_000_001", "no"),
        ("popek/solving/engine_bitwuzla.py", "Option.REWRITE_LEVEL, 0", "Option.REWRITE_LEVEL, 1", "no"),
        ("popek/solving/solver.py", "rlimit: int = 20_000_000", "rlimit: int = 20_000_001", "no"),
        ("popek_specs/pg74/instructions.toml", "source", "# a row\nsource", "no"),
    ],
)
def test_an_edit_of_what_all_share_leaves_nothing(
    copy: Path, edit: Any, file: str, old: str, new: str, critical: str
) -> None:
    ask(copy, "pg74", MODE, MOVE)
    edit(file, old, new)
    assert asked_anew(ask(copy, "pg74", MODE, MOVE)) == {MODE: critical, MOVE: "no"}


def test_a_machine_in_a_file_keeps_what_its_other_instructions_are(copy: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(own_machine(), encoding="utf-8")
    forms = list(Subject.of(str(path)).machine.instructions)
    assert len(asked_anew(ask(copy, str(path), *forms))) == len(forms)
    assert asked_anew(ask(copy, str(path), *forms)) == {}
    path.write_text(own_machine("\nLATER = 1\n"), encoding="utf-8")
    assert len(asked_anew(ask(copy, str(path), *forms))) == len(forms)
