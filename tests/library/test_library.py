"""`import popek`: what it costs, what it offers, and that it says what the command line says."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import popek
from commands import popek as command
from schemas import assert_valid

HERE = Path(__file__).parent


def test_importing_it_imports_nothing_else() -> None:
    program = "import sys; before = set(sys.modules); import popek; print(*set(sys.modules) - before)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert {name.partition(".")[0] for name in told.split()} - sys.stdlib_module_names == {"popek"}
    assert [name for name in told.split() if name.startswith("popek")] == ["popek"]


def test_a_step_imports_no_solver() -> None:
    program = "import sys, popek; popek.step('pg74', 'GMODE a'); print({'z3', 'bitwuzla'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "set()"


def test_the_types_are_of_the_same_names() -> None:
    stub = ast.parse((files("popek") / "__init__.pyi").read_text(encoding="utf-8"))
    named = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert named | {"__version__"} == set(popek.__all__)
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            assert all(popek._HOME[alias.name] == node.module for alias in node.names)


def test_no_name_is_hidden_by_a_module_of_the_same_name() -> None:
    assert not {module.name for module in pkgutil.iter_modules(popek.__path__)} & set(popek.__all__)


def test_every_name_is_there_and_documented() -> None:
    for name in popek.__all__:
        assert getattr(popek, name).__doc__, name
    assert set(popek.__all__) <= set(dir(popek))
    with pytest.raises(AttributeError, match="has no attribute 'clasify'"):
        popek.clasify  # noqa: B018


SAME: Mapping[str, tuple[list[str], Callable[[], Any]]] = {
    "a strap": (
        ["classify", "pg74", "--promises", "--set", "GMODE=0"],
        lambda: popek.classify("pg74", GMODE=0),
    ),
    "by the letter": (
        ["classify", "pg74", "LRA", "--by-the-letter", "--set", "LRA=0"],
        lambda: popek.classify("pg74", "LRA", by_the_letter=True, LRA=0),
    ),
    "ia32": (
        ["classify", "ia32", "SGDT", "CLI", "--promises"],
        lambda: popek.classify("ia32", "SGDT", "CLI"),
    ),
    "another technique": (
        ["classify", "ia32", "CLI", "--promises", "--technique", "ring-deprivileging-0/3/3"],
        lambda: popek.classify("ia32", "CLI", technique="ring-deprivileging-0/3/3"),
    ),
    "s370": (
        ["classify", "s370", "SSM", "STCK", "--promises"],
        lambda: popek.classify("s370", "SSM", "STCK"),
    ),
    "an instruction": (
        ["explain", "pg74", "GREL", "--set", "GREL=0"],
        lambda: popek.explain("pg74", "GREL", GREL=0),
    ),
    "left open": (
        ["classify", "ia32", "SGDT", "--set", "UMIP=?"],
        lambda: popek.critical_when("ia32", "SGDT", UMIP="?"),
    ),
    "a claim": (["check", "pg74.silent"], lambda: popek.check("pg74.silent")),
    "a theorem": (["prove", "theorem1.step"], lambda: popek.prove("theorem1.step")),
    "a problem": (["problems", "ia32", "ring-aliasing"], lambda: popek.problems("ia32", "ring-aliasing")),
    "safety": (["safety", "pg74"], lambda: popek.safety("pg74")),
    "rewriting": (["rewrite", "pg74", "--set", "LRA=0"], lambda: popek.rewrite("pg74", LRA=0)),
}


@pytest.mark.parametrize("what", SAME)
def test_it_says_what_the_command_says(what: str) -> None:
    words, ask = SAME[what]
    told = command(*words, "--json")
    said = json.loads(json.dumps(ask().to_json()))
    assert without_times(said) == without_times(json.loads(told.stdout))
    assert_valid(said)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(one) for name, one in value.items() if not name.endswith("seconds")}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def test_a_dump_is_diagnosed_as_the_command_does() -> None:
    dump = HERE.parent / "vtx" / "dumps" / "16-drakvuf-388-cr3-bit63.txt"
    found = popek.diagnose(dump)
    told = json.loads(command("vmcs", "check", str(dump), "--json").stdout)
    said = json.loads(json.dumps(found.to_json()))
    assert said | {"name": told["name"]} == told  # the command is told the whole path
    assert popek.diagnose(dump.read_text()).diagnosis.verdict.failed == found.diagnosis.verdict.failed
    assert any(row["kind"] == "failed" for row in popek.rows(found))


def test_tables_are_plain_rows() -> None:
    for answer in (
        popek.classify("pg74", "GMODE", "MOVE", GMODE=0),
        popek.explain("pg74", "GMODE", GMODE=0),
        popek.critical_when("pg74", "GMODE", GMODE="?"),
        popek.check("pg74.silent"),
        popek.rewrite("pg74", "GMODE", GMODE=0),
    ):
        table = popek.rows(answer)
        assert table
        assert all(list(row) == list(table[0]) for row in table)
        assert all(value is None or isinstance(value, str | int) for row in table for value in row.values())
    with pytest.raises(TypeError, match="expected an answer with a table, not a str"):
        popek.rows("ia32")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: popek.classify("pg47"), "unknown machine 'pg47'; did you mean pg74"),
        (lambda: popek.classify("pg74", GMOD=0), "GMOD"),
        (lambda: popek.classify("pg74", GMODE=2), "GMODE"),
        (lambda: popek.classify("pg74", GMODE="?"), "popek.critical_when"),
        (lambda: popek.classify("pg74", "GMOD"), "did you mean GMODE"),
        (lambda: popek.classify("pg74", timeout=-1), "timeout=-1"),
        (lambda: popek.classify(Path("nowhere.py")), "nowhere.py: No such file"),
        (lambda: popek.explain("pg74", "GMODE", technique="magic"), "unknown technique"),
        (lambda: popek.critical_when("pg74"), "open setting"),
        (lambda: popek.check("pg74-gmode"), "did you mean pg74.one-silent-instruction?"),
        (lambda: popek.prove("theorem9"), "theorem9"),
        (lambda: popek.prove("theorem1", GMODE=0), "expected only with a machine"),
        (
            lambda: popek.prove("theorem1", forms=["MOVE"]),
            "forms: expected with one machine, and 0 are named",
        ),
        (lambda: popek.prove("pg74", forms=["MOVF"]), "did you mean MOVE"),
        (lambda: popek.diagnose("nowhere.txt"), "nowhere.txt: No such file"),
        (lambda: popek.diagnose("nothing\nof the kind\n"), "expected a Linux KVM or Xen dump"),
        (lambda: popek.scan_file(__file__), "neither ELF, PE nor bzImage"),
        (lambda: popek.synthesize("vt-y"), "unknown hardware assistance"),
        (lambda: popek.step("pg74", "GMODE a", {"mod": 1}), "did you mean mode"),
        (lambda: popek.step("pg74", "GMODE a", {"mode": 2}), "mode: 0x2 does not fit into 1 bits"),
        (lambda: popek.step("pg74", "GMODE a", {"memory[0x100]": 2}), "its address: 0x100 does not fit"),
        (lambda: popek.step("pg74", "GMODE a", {}, {"b": 2}), "unknown operand of GMODE a 'b'"),
        (lambda: popek.step("pg74", "GMODE a", {"memory": 2}), "memory is a storage: expected a cell of it"),
        (lambda: popek.step("pg74", "GMODE a", {"memory[1]": "2"}), "cell memory[1]: expected a number"),
        (lambda: popek.step("m68k", "ADD.B"), "did you mean ADD"),
        (lambda: popek.step("m68k", "ADDA"), "ADDA: expected one form; there are"),
        (lambda: popek.step("m68k", "MOVE (An), SR", {}, {"An": 1}), "did you mean (An)?"),
        (
            lambda: popek.step("ia32", "MOV r32, CR0", {"cr0.pe": 0}),
            "the invariant of ia32 excludes this state, Ia32(cr0.pe=0",
        ),
        (lambda: popek.step("pdp11-45", "MOV R, R", {}, {"R": 6}), "R 0x6: pdp11-45 has no such operand"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(ask: Callable[[], object], told: str) -> None:
    with pytest.raises(popek.PopekError) as caught:
        ask()
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_page_lists_every_public_name_and_no_other() -> None:
    page = (HERE.parents[1] / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    first, second = (
        page.partition("## Every public name")[2].partition("## The functions")[0].split("The rest")
    )
    cells = [line.split("|")[1] for line in first.splitlines() if line.startswith("| `")]
    listed = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(listed) == sorted(popek.__all__)
    for line in second.splitlines()[4:]:
        if line.startswith("| `"):
            module, *names = re.findall(r"`([\w.]+)`", line)
            known = importlib.import_module(module)
            assert [n for n in names if n != "deliver" and not hasattr(known, n)] == []


def test_a_component_is_taken_whole_and_its_leaves_say_more() -> None:
    for before in ({"sr.s": 0, "sr": 0x2700}, {"sr": 0x2700, "sr.s": 0}):
        assert popek.step("m68k", "NOP", before).before == {"sr.i": 7}


def test_a_step_is_a_document_and_ends_in_a_trap_or_a_state() -> None:
    silent = popek.step("pg74", "GMODE a", {"mode": 1, "straps.gmode": 0, "memory[0x9]": 3}, {"a": 9})
    assert silent.changes == {"pc": (0, 1), "memory[0x9]": (3, 1)}
    trapping = popek.step("pg74", "GMODE a", {"mode": 1})
    assert (trapping.trap, trapping.changes) == ("privileged-instruction trap", {})
    beyond = popek.step("pg74", "GMODE a", {"relocation.bound": 4}, {"a": 4})
    assert beyond.trap == "memory trap"
    for one in (silent, trapping, beyond):
        assert_valid(one.to_json())


def test_a_machine_is_written_with_what_popek_offers() -> None:
    class Toy(popek.State):
        mode = popek.word(1, role=popek.Role.MODE)
        acc = popek.word(8)
        timer = popek.word(8, role=popek.Role.RESOURCE)

    def deprivileged(guest: Toy, private: Toy) -> Toy:
        hardware = guest.copy()
        hardware.mode, hardware.timer = popek.Word(1, 1), private.timer
        return hardware

    technique = popek.Technique(
        "ring-deprivileging",
        "the guest in user mode",
        map=deprivileged,
        owned=("mode", "timer"),
        replaced=("timer",),
        shadowed=("mode", "timer"),
        deprivileged=lambda state: state.mode == 1,
    )
    toy = popek.Machine(
        "toy",
        "A toy",
        Toy,
        supervisor=lambda state: state.mode == 0,
        user=lambda state: state.mode == 1,
        techniques={technique.name: technique},
    )

    @toy.instruction("GETT")
    def get_timer(cpu: Toy) -> None:
        cpu.acc = cpu.timer

    assert popek.classify(toy).mnemonics("critical") == ["GETT"]


def test_a_kept_classification_is_compared(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(command("classify", "pg74", "--json").stdout)
    same = command("classify", "pg74", "--expect", str(kept))
    assert (same.returncode, same.stdout) == (0, f"as {kept} says: 11 forms\n")
    document = json.loads(kept.read_text())
    next(row for row in document["instructions"] if row["form"] == "GMODE a")["critical"] = "yes"
    document["theorem1"] = "refuted"
    document["instructions"] = [row for row in document["instructions"] if row["form"] != "SVC"]
    kept.write_text(json.dumps(document))
    other = command("classify", "pg74", "--expect", str(kept))
    assert other.returncode == 1
    assert other.stdout.splitlines() == [
        "premise of Theorem 1: expected refuted, found holds",
        "GMODE a: critical: expected yes, found no",
        "SVC: instruction: expected nothing, found there",
    ]
    told = json.loads(command("classify", "pg74", "--expect", str(kept), "--json").stdout)
    assert [one["what"] for one in told["otherwise"]] == ["premise of Theorem 1", "critical", "instruction"]
    assert_valid(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "expected JSON, such as popek classify --json prints"),
        ('{"schema": "popek/claims/1"}', "schema: expected popek/classification/1"),
        ('{"schema": "popek/classification/1"}', "instructions: expected a list"),
        (
            '{"schema": "popek/classification/1", "instructions": [{"form": "SVC", "critical": "maybe"}]}',
            "SVC: critical: expected one of yes, no, unknown, not-asked",
        ),
        (
            '{"schema": "popek/classification/1", "instructions": [], "machine": "ia32"}',
            "machine: ia32; asked about pg74",
        ),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_classification_is_refused(tmp_path: Path, text: str | None, told: str) -> None:
    kept = tmp_path / "kept.json"
    if text is not None:
        kept.write_text(text)
    found = command("classify", "pg74", "SVC", "--expect", str(kept))
    assert (found.returncode, found.stdout) == (2, "")
    assert told in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_notebook_begins_without_solver_or_figures() -> None:
    program = "import sys, popek.notebook; print({'z3', 'bitwuzla', 'networkx', 'rich'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "set()"
