"""The command line: exit codes, one-line errors, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import in_a_process, popek

AS_EXPECTED, OTHERWISE, BAD_INPUT, UNKNOWN = range(4)
HARD = str(Path(__file__).parents[1] / "hard_machine.py")


def answer(*arguments: str, code: int = AS_EXPECTED) -> Any:
    """The JSON that a command prints, and nothing but it, with sorted keys."""
    done = popek(*arguments, "--json")
    assert done.returncode == code, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert done.stdout == json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return found


def refusal(*arguments: str, folder: Path | None = None) -> str:
    """The one line with which a command refuses bad input."""
    done = popek(*arguments, folder=folder)
    assert done.returncode == BAD_INPUT, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("popek: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


# -- help and start-up ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["classify", "--help"], ["check", "--help"], ["machines", "--json"]],
)
def test_what_asks_no_solver_imports_none(arguments: list[str]) -> None:
    script = (
        "import sys; sys.argv = ['popek', *sys.argv[1:]]\n"
        "from popek.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('\\nimported:', *(name for name in ('bitwuzla', 'z3') if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.endswith("\nimported:\n")


def test_a_solver_that_is_not_known_is_named_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POPEK_SOLVER", "cvc5")
    done = popek("classify", "pg74")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "popek: POPEK_SOLVER=cvc5: expected bitwuzla or z3\n"


def test_help_names_every_command() -> None:
    done = popek("--help")
    assert done.returncode == AS_EXPECTED
    for command in ("machines", "classify", "explain", "check"):
        assert command in done.stdout


def test_shell_completion_can_be_installed() -> None:
    assert "--install-completion" in popek("--help").stdout


# -- exit codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["classify", "pg74", "--jobs", "1"], AS_EXPECTED),
        (
            ["vmcs", "check", str(Path(__file__).parents[1] / "vtx/dumps/16-drakvuf-388-cr3-bit63.txt")],
            OTHERWISE,
        ),
        (["classify", "pg47"], BAD_INPUT),
        (["explain", HARD, "FACTOR", "--timeout", "0.1"], UNKNOWN),
    ],
)
def test_a_shell_sees_what_the_other_tests_see(arguments: list[str], code: int) -> None:
    """Exit code, both streams: a process of its own, and this one, in which the other tests run commands."""
    seen, here = in_a_process(*arguments), popek(*arguments)
    assert seen.returncode == code, seen.stderr
    assert (here.returncode, here.stdout, here.stderr) == (seen.returncode, seen.stdout, seen.stderr)
    assert bool(seen.stderr) is (code == BAD_INPUT)
    assert bool(seen.stdout) is (code != BAD_INPUT)


def test_classifying_a_machine_exits_with_0_and_prints_the_verdict() -> None:
    done = popek("classify", "pg74", "--jobs", "1")
    assert done.returncode == AS_EXPECTED
    assert "holds  premise of Theorem 1: every sensitive instruction is privileged" in done.stdout
    assert done.stderr == ""


def test_a_claim_that_is_refuted_against_expectation_exits_with_1(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(claim_text(expected="refuted"))
    done = popek("check", str(file))
    assert done.returncode == OTHERWISE
    assert "expected refuted" in done.stdout


def test_a_claim_that_is_as_expected_exits_with_0(tmp_path: Path) -> None:
    file = tmp_path / "right.toml"
    file.write_text(claim_text())
    assert popek("check", str(file)).returncode == AS_EXPECTED


def test_a_tiny_timeout_gives_unknown_and_exits_with_3() -> None:
    found = answer("explain", HARD, "FACTOR", "--timeout", "0.1", code=UNKNOWN)
    (form,) = found["forms"]
    assert (form["critical"], form["privileged"]) == ("unknown", "no")


# -- one-line errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["classify", "ia32", "--set", "UMIP=maybe"], ["--set UMIP=maybe", "UMIP is one of 0, 1"]),
        (["classify", "ia32", "--set", "UMPI=1"], ["--set UMPI=1", "did you mean UMIP"]),
        (["classify", "ia32", "--set", "UMIP"], ["--set UMIP", "expected NAME=VALUE"]),
        (["classify", "ia32", "--set", "IOPL=4"], ["--set IOPL=4", "IOPL is one of 0, 1, 2, 3"]),
        (["classify", "ia23"], ["unknown machine 'ia23'", "did you mean ia32"]),
        (
            ["classify", "pg74", "--technique", "ring-deprivilegin"],
            ["technique of pg74", "ring-deprivileging?"],
        ),
        (["explain", "ia32", "POPFF"], ["unknown instruction 'POPFF'", "POPF"]),
        (["explain", "ia32", "SMWS"], ["unknown instruction 'SMWS'", "SMSW"]),
        (["classify", "no/such/machine.py"], ["no/such/machine.py", "No such file"]),
        (["check", "no-such-claim"], ["unknown claim 'no-such-claim'"]),
        (["check", "ia32.robin-irvin-2000"], ["did you mean ia32.robin-irvine-2000"]),
        (["check", "missing.toml"], ["missing.toml", "No such file"]),
        (["classify", "pg74", "--timeout", "-1"], ["--timeout -1", "seconds from 0"]),
        (["classify", "pg74", "--timeout", "soon"], ["timeout", "soon"]),
        (["clasify", "pg74"], ["clasify"]),
        (["classify"], ["MACHINE", "requires"]),
        (["classify", "ia32", "--symbolic", "UMPI"], ["UMPI", "UMIP"]),
    ],
)
def test_bad_input_gets_one_line_that_says_what_was_expected(
    arguments: list[str], expected: list[str]
) -> None:
    line = refusal(*arguments)
    for part in expected:
        assert part in line, line


# -- claims files ---------------------------------------------------------------------------------


def claim_text(expected: str = "holds", rows: str = "", **changes: str) -> str:
    """A claims file about the paper's machine; a change replaces a line, an empty one leaves it out."""
    lines = {
        "id": 'id = "mine"',
        "title": 'title = "Mine"',
        "source": 'source = "me"',
        "statement": 'statement = "as I say"',
        "machine": 'machine = "pg74"',
        "expected": f'expected = "{expected}"',
    } | changes
    row = rows or '[[rows]]\nsubject = "ADD"\nstatement = "innocuous"\nexpected = "holds"\n'
    return "\n".join(line for line in lines.values() if line) + "\n\n" + row


def row(**changes: str) -> str:
    """One row; as `claim_text`."""
    lines = {
        "subject": 'subject = "ADD"',
        "statement": 'statement = "innocuous"',
        "expected": 'expected = "holds"',
    } | changes
    return "\n".join(["[[rows]]", *(line for line in lines.values() if line)]) + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (claim_text(source=""), ["source: is missing", "where it is published"]),
        (claim_text(source='source = " "'), ["source: ", "not empty"]),
        (claim_text(source="source = 1974"), ["source: ", "a text", "1974"]),
        (claim_text(title="titel = 'x'"), ["titel: unknown key", "did you mean title?"]),
        (claim_text(machine='machine = "pg47"'), ["machine: ", "did you mean pg74"]),
        (claim_text(expected="maybe"), ["expected: ", '"holds", "refuted" or "unknown"', "maybe"]),
        (claim_text(expected="holds\"\ntime_is_state = \"yes"), ["time_is_state: ", "true or false"]),
        (claim_text(expected="holds\"\ntechnique = \"vt-x"), ["technique: ", "vt-x"]),
        (claim_text(expected="holds\"\nconfiguration = { GMODE = 2 }\nnote = \""), ["configuration: ", "one of 0"]),
        (claim_text(expected="holds\"\nconfiguration = { GMOD = 1 }\nnote = \""), ["configuration: ", "GMODE"]),
        (claim_text(rows=row(subject='subject = "ADDD"')), ["rows[0].subject: ", "ADDD", "ADD"]),
        (claim_text(rows=row(subject="")), ["rows[0].subject: is missing", "a mnemonic or a form"]),
        (claim_text(rows=row(subject="subject = 3")), ["rows[0]", "subject", "a text"]),
        (claim_text(rows=row(statement='statement = "critcal"')), ["rows[0].statement: ", "critical"]),
        (claim_text(rows=row() + row(expected='expect = "holds"')), ["rows[1].expect: unknown key", "expected"]),
        (claim_text(rows="rows = 3\n"), ["rows"]),
        (claim_text(rows="rows = []\n"), ["rows: expected [[rows]]", "every row"]),
        (
            claim_text(statement='statement = "Theorem 1: each sensitive instruction is privileged"'),
            ["statement: expected, word for word, 'Theorem 1: every sensitive instruction is privileged'"],
        ),
        (claim_text(rows="rows = [3]\n"), ["rows[0]"]),
        (claim_text(statement="statement = "), ["not TOML"]),
        ("claims = 3\n", ["claims: "]),
        ("", ["id: is missing"]),
    ],
)  # fmt: skip
def test_a_wrong_claims_file_gets_one_line_with_file_and_key(
    text: str, expected: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    line = refusal("check", str(file))
    assert line.startswith(f"popek: {file}: ")
    for part in expected:
        assert part in line, line


def test_a_claims_file_that_is_not_text_gets_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert refusal("check", str(file)).endswith("not UTF-8 text")


def test_a_folder_is_no_claims_file(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal("check", str(tmp_path))


# -- JSON -----------------------------------------------------------------------------------------

FOUR_VALUES = {"yes", "no", "unknown", "not-asked"}
CLASSES = ("privileged", "control_sensitive", "location_sensitive", "mode_sensitive", "resource_sensitive",
           "user_sensitive", "critical", "faithful", "safe")  # fmt: skip


def test_some_instructions_can_refute_a_theorem_but_not_establish_it() -> None:
    innocent = answer("classify", "pg74", "ADD", "add a, b", "--set", "GMODE=0")
    assert [one["form"] for one in innocent["instructions"]] == ["ADD a, b"]
    assert (innocent["partial"], innocent["theorem1"], innocent["theorem3"]) == (True, "unknown", "unknown")
    guilty = answer("classify", "pg74", "ADD", "GMODE", "--set", "GMODE=0")
    assert (guilty["partial"], guilty["theorem1"], guilty["theorem3"]) == (True, "refuted", "unknown")
    assert "did you mean ADD" in refusal("classify", "pg74", "XADD")
    conditions = answer("classify", "pg74", "GMODE", "--symbolic", "GMODE")
    assert len(conditions["instructions"]) == 1


def test_promises_are_columns_of_the_table() -> None:
    done = popek("classify", "pg74", "GMODE", "--promises", "--set", "GMODE=0")
    assert done.returncode == AS_EXPECTED, done.stderr
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("GMODE  ")]
    assert row[-4:-1] == ["yes", "·", "yes"]  # critical; not faithful; safe


def test_a_file_may_build_on_a_machine_that_comes_with_popek(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from popek.architectures.pg74 import MACHINES\n"
        "machine = MACHINES['pg74']()\n"
        "@machine.instruction('NOP', source='here')\n"
        "def nop(cpu):\n    pass\n"
    )
    assert answer("classify", str(own), "NOP")["instructions"][0]["innocuous"] == "yes"


def test_classification_json_has_the_documented_keys() -> None:
    found = answer("classify", "pg74", "--set", "GMODE=0", "--jobs", "1")
    assert found["schema"] == "popek/classification/1"
    assert found["machine"] == "pg74"
    assert found["technique"] == "ring-deprivileging"
    assert found["configuration"]["GMODE"] == 0
    assert found["critical_mnemonics"] == ["GMODE"]
    assert (found["theorem1"], found["theorem3"]) == ("refuted", "holds")
    assert found["partial"] is False
    for one in found["instructions"]:
        assert {"mnemonic", "form", "components", "witness"} <= set(one)
        assert {one[name] for name in CLASSES} <= FOUR_VALUES
    (critical,) = [one for one in found["instructions"] if one["critical"] == "yes"]
    assert {"before", "native", "virtualized"} <= set(critical["witness"])
    assert critical["components"] == ["mode"]


def test_words_in_a_witness_are_hexadecimal_strings() -> None:
    found = answer("classify", "pg74", "--set", "GMODE=0", "--jobs", "1")
    (witness,) = [one["witness"] for one in found["instructions"] if one["witness"]]
    values = [*witness["before"].values(), *(v for pair in witness["differ"].values() for v in pair)]
    assert values
    assert all(value.startswith("0x") for value in values)


def test_explanation_json_has_witnesses_and_evidence() -> None:
    found = answer("explain", "pg74", "GMODE", "--set", "GMODE=0")
    assert found["schema"] == "popek/explanation/1"
    (form,) = found["forms"]
    assert set(form["witnesses"]) >= {"mode_sensitive", "fidelity"}
    evidence = form["evidence"]["mode_sensitive"]
    assert len(evidence["smtlib_sha256"]) == 64
    assert list(evidence["solvers"].values()) == ["sat"]


def test_check_json_has_a_verdict_per_claim_and_row() -> None:
    found = answer("check", "pg74.hybrid")
    assert found["schema"] == "popek/claims/1"
    (claim,) = found["claims"]
    assert {"id", "source", "verdict", "expected", "rows"} <= set(claim)
    assert (claim["id"], claim["verdict"], claim["expected"]) == ("pg74.hybrid", "holds", "holds")
    for one in claim["rows"]:
        assert {"subject", "statement", "verdict", "expected", "evidence"} <= set(one)


def test_machines_json_lists_techniques_and_settings() -> None:
    found = answer("machines")
    known = {one["name"]: one for one in found["machines"]}
    assert {"pg74", "ia32", "ia64", "s360-67", "s370", "pdp10-ka10", "pdp10-ks10", "pdp11-45"} <= set(known)
    assert {"ring-deprivileging-0/1/3", "ring-deprivileging-0/3/3"} <= set(known["ia32"]["techniques"])
    assert known["ia32"]["settings"]["UMIP"]["values"] == [0, 1]


def test_settings_left_open_give_the_condition_under_which_it_is_critical() -> None:
    found = answer("classify", "pg74", "--symbolic", "GMODE,DROP", "--jobs", "1")
    assert found["schema"] == "popek/conditions/1"
    when = {one["mnemonic"]: one["critical_when"] for one in found["instructions"]}
    assert when["GMODE"] == [{"GMODE": [0]}]
    assert when["DROP"] == [{"DROP": [0]}]
    assert when["ADD"] == []


def test_the_same_question_gets_the_same_answer_byte_by_byte() -> None:
    first = in_a_process("explain", "pg74", "LRA", "--set", "LRA=0", "--json").stdout
    assert first == in_a_process("explain", "pg74", "LRA", "--set", "LRA=0", "--json").stdout
    assert first


# -- a user's machine -----------------------------------------------------------------------------

TOY = '''\
"""A toy: an accumulator, a mode bit, and an instruction that shows the mode to everyone."""

from popek.kernel.machine import Machine
from popek.kernel.state import Role, State, word
from popek.kernel.technique import Technique


class Toy(State):
    mode = word(1, role=Role.MODE)
    acc = word(8)


toy = Machine("toy", "A toy", Toy, supervisor=lambda s: s.mode == 0, user=lambda s: s.mode == 1)


def in_user_mode(guest, private):
    return guest.with_changes({"mode": 1})


toy.techniques["plain"] = Technique(
    "plain", "everything in user mode", in_user_mode, ("mode",), ("mode",), lambda s: s.mode == 1
)


@toy.instruction("INC")
def inc(cpu):
    """ACC := ACC + 1."""
    cpu.acc = cpu.acc + 1


@toy.instruction("GETMODE")
def getmode(cpu):
    """ACC := M."""
    cpu.acc = cpu.mode.zero_extend(8)
'''


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    file = tmp_path / "mymachine.py"
    file.write_text(TOY)
    return file


def test_a_machine_of_the_users_own_is_classified(toy: Path) -> None:
    done = popek("classify", "./mymachine.py", "--json", folder=toy.parent)
    assert done.returncode == AS_EXPECTED, done.stderr
    found = json.loads(done.stdout)
    assert found["critical_mnemonics"] == ["GETMODE"]
    assert found["theorem1"] == "refuted"


def test_a_users_claim_about_a_users_machine_is_checked(toy: Path) -> None:
    rows = row(subject='subject = "GETMODE"', statement='statement = "mode-sensitive"')
    text = claim_text(machine='machine = "mymachine.py"', rows=rows)
    (toy.parent / "mine.toml").write_text(text)
    done = popek("check", "mine.toml", folder=toy.parent)
    assert done.returncode == AS_EXPECTED, done.stderr


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("cpu.acc = cpu.acc + 1", "cpu.acc = cpu.acc +", "invalid syntax"),
        ('Machine("toy", "A toy", Toy, ', 'Machine("toy", "A toy", Toys, ', "NameError"),
        ("toy = Machine(", "toy = dict(", "dict"),
        ('"GETMODE")', '"INC")', "declared twice"),
    ],
)
def test_a_broken_machine_file_gets_one_line_with_file_and_line(
    old: str, new: str, expected: str, toy: Path
) -> None:
    toy.write_text(TOY.replace(old, new))
    line = refusal("classify", str(toy))
    assert line.startswith(f"popek: {toy}:")
    number = line.removeprefix(f"popek: {toy}:").partition(":")[0]
    assert number.isdecimal()
    assert expected in line


def test_a_file_without_a_machine_gets_one_line(tmp_path: Path) -> None:
    file = tmp_path / "empty.py"
    file.write_text("x = 1\n")
    assert "expected one Machine" in refusal("classify", str(file))


def test_semantics_that_break_while_they_run_get_one_line(toy: Path) -> None:
    toy.write_text(TOY.replace("cpu.mode.zero_extend(8)", "cpu.mode + cpu.acc"))
    line = refusal("classify", str(toy))
    assert f"{toy}:" in line
    assert "do not mix" in line


def test_a_machine_without_a_technique_gets_one_line(toy: Path) -> None:
    start, end = TOY.index("toy.techniques"), TOY.index('@toy.instruction("INC")')
    toy.write_text(TOY[:start] + TOY[end:])
    assert "technique of toy" in refusal("classify", str(toy))
