"""What every command has in common: help, values of options, interruption, output that nobody takes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from popek.cli import COMMANDS, app, overview
from popek.cli.errors import UserError
from popek.cli.options import assert_one_of
from popek.report.difftest import entries

RUN = "import sys; from popek.cli import main; sys.argv[0] = 'popek'; main()"
DUMP = "tests/vtx/dumps/16-drakvuf-388-cr3-bit63.txt"


def refused(*arguments: str) -> str:
    """The message with which a command refuses its arguments."""
    with pytest.raises(UserError) as caught:
        app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    return str(caught.value)


def commands(group: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    for name in group:
        if name.startswith("-"):
            continue
        one = group[name]
        yield (*path, name), one
        if one.default_command is None:
            yield from commands(one, (*path, name))


def helped(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    app([*path, "--help"], exit_on_error=False, result_action="return_value")
    return capsys.readouterr().out


def test_every_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    known = list(commands(app))
    assert len(known) > 30
    for path, command in known:
        listed = helped(path[:-1], capsys)
        assert re.search(rf"│ {path[-1]} +[A-Z]", listed), path
        shown = helped(path, capsys)
        assert "--empty-" not in shown, path
        assert not re.search(r"\[default: *(\(\)|\"\"|False|None)\]", " ".join(shown.split("│"))), path
        assert command.help, path


def test_the_overview_is_what_the_commands_say_of_themselves() -> None:
    """`popek --help` imports nothing of what it lists, so what it says is said twice."""
    assert {name for name in app if not name.startswith("-")} == {name for name, _, _ in COMMANDS}
    for name, _, purpose in COMMANDS:
        own = " ".join(app[name].help.partition("\n\n")[0].split())
        assert purpose == own or (purpose[:8] == own[:8] and app[name].default_command is None), name
    shown = " ".join(overview().replace("│", " ").split())
    for name, _, purpose in COMMANDS:
        assert f"{name} {purpose}" in shown
    assert {len(line) for line in overview().splitlines() if line[:1] in "╭│╰" and line} == {80}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["classify", "pg74", "--timeout", "nan"], "--timeout nan: expected a number of seconds from 0"),
        (["problems", "pg74", "--timeout", "inf"], "--timeout inf: expected a number of seconds from 0"),
        (["check", "--timeout", "-1"], "--timeout -1: expected a number of seconds from 0"),
        (["prove", "theorem1", "--timeout", "5e6"], "--timeout 5e+06: expected a number of seconds from 0"),
        (["classify", "pg74", "--jobs", "-1"], "--jobs -1: expected a number of processes from 0"),
        (["check", "--jobs", "257"], "--jobs 257: expected a number of processes from 0"),
        (["classify", "pg74", "--set", "DROP=1", "--set", "drop=0"], "--set DROP=1: DROP is set 2 times"),
        (["safety", "pg74", "--set", "DROP=1", "--set", "DROP=0"], "--set DROP=1: DROP is set 2 times"),
        (["problems", "pg74", "--set", "LRA=1", "--set", "LRA=0"], "--set LRA=1: LRA is set 2 times"),
        (
            ["classify", "pg74", "--symbolic", "DROP", "--set", "DROP=0"],
            "--set DROP=0: DROP is left open by --symbolic DROP",
        ),
        (["classify", "pg74", "--symbolic", ","], "--symbolic ,: expected settings, comma-separated"),
        (
            ["prove", "theorem1.step", "--set", "DROP=0"],
            "--technique, --set and --time-is-state: expected only",
        ),
        (["prove", "--forms", "MOVE"], "--forms MOVE: expected with one machine, and 0 are named"),
        (["prove", "pg74", "ia32", "--forms", "MOVE"], "--forms MOVE: expected with one machine, and 2"),
        (["prove", "pg74", "--forms", "GMODF"], "unknown instruction 'GMODF'; did you mean GMODE"),
        (["prove", "--technique", "none"], "--technique, --set and --time-is-state: expected only"),
        (["explain", "ia32", "CLI", "--asm", "."], "--asm .: expected a file, and this is a folder"),
        (["vmcs", "check", ""], "expected a file, and its name is empty"),
        (["vmcb", "check", ""], "expected a file, and its name is empty"),
        (["difftest", "ia32", "--against", "qemu"], "--against qemu: expected bochs or unicorn"),
        (["difftest", "non-root", "--against", "qemu"], "--against qemu: expected bochs"),
        (["difftest", "vmrun", "--cases", "0"], "--cases 0: expected a number above 0"),
    ],
)
def test_values_are_checked_before_the_work(arguments: list[str], line: str) -> None:
    assert refused(*arguments).startswith(line)


def test_a_name_that_is_known_is_let_through() -> None:
    assert_one_of("--model", "a", ["a", "b"])
    with pytest.raises(UserError, match=r"^--model d: expected one of a, b, c$"):
        assert_one_of("--model", "d", ["c", "b", "a"])


def run(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", RUN, *arguments]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=buffered, **options)


def test_a_superfluous_argument_is_named() -> None:
    command = run("assist", "list", "surplus", stdout=subprocess.DEVNULL)
    assert command.communicate(timeout=60)[1] == "popek: no argument is expected here: surplus\n"
    assert command.returncode == 2


@pytest.mark.parametrize("arguments", [["--help"], ["machines"], ["vmcs", "check", DUMP, "--json"]])
def test_a_full_disk_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = run(*arguments, stdout=full, cwd=Path(__file__).parents[2])
        said = command.communicate(timeout=60)[1]
    assert (command.returncode, said) == (2, "popek: cannot write: No space left on device\n")


@pytest.mark.parametrize("arguments", [["vmcb", "decode", "a.json"], ["machines", "--json"]])
def test_a_closed_pipe_is_no_error_message(arguments: list[str], tmp_path: Path) -> None:
    """Whether the answer is longer than what the interpreter holds back until its end, or shorter."""
    (tmp_path / "a.json").write_text('{"fields": {"ASID": "0x1"}}', encoding="ascii")
    reader, writer = os.pipe()
    os.close(reader)
    command = run(*arguments, stdout=writer, cwd=tmp_path)
    os.close(writer)
    assert command.communicate(timeout=60)[1] == ""
    assert command.returncode == 0


def test_an_interrupt_is_one_line(tmp_path: Path) -> None:
    machine = tmp_path / "slow.py"
    machine.write_text("import time\nprint('there', flush=True)\ntime.sleep(60)\n", encoding="ascii")
    command = run("classify", str(machine), stdout=subprocess.PIPE)
    assert command.stdout is not None
    assert command.stdout.readline() == "there\n"
    command.send_signal(signal.SIGINT)
    assert command.communicate(timeout=60)[1] == "popek: interrupted\n"
    assert command.returncode == 130


def test_entries_are_reported_with_what_is_left_to_explain() -> None:
    from rich.console import Console

    left = {
        "mode": "pae",
        "origin": "random",
        "changes": {"CR0": "0x1", "CR4": "0x2"},
        "bochs": "enters",
        "admissible": ["vmexit-invalid", "crash"],
    }
    answer = {
        "cases": 30,
        "model": "ryzen",
        "seed": 4,
        "outcomes": {"enters": 29, "crash": 1},
        "modes": {"pae": 30},
        "origins": {"random": 30},
        "checks_violated": ["A-1", "A-2"],
        "deviations": ["d"],
        "unexplained": [left] * 22,
    }
    shown = Console(width=100)
    with shown.capture() as captured:
        shown.print(entries(answer, "VMRUNs"))
    lines = captured.get().splitlines()
    assert lines[0] == "30 VMRUNs against Bochs, model ryzen, seed 4"
    assert "outcomes: 1 crash, 29 enters" in lines
    assert "checks violated at least once: 2" in lines
    assert lines.count("pae, random: CR0 = 0x1, CR4 = 0x2") == 20
    assert "  checks    vmexit-invalid; crash" in lines
    assert lines[-3:] == ["and 2 more; --json prints all", "", "22 unexplained differences"]
