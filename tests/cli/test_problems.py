"""`popek problems`, `popek safety` and what `explain` does with `--asm` and `--confirm`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from test_command_line import answer, refusal

from commands import popek
from popek.emulators import programs


def test_problems_as_json() -> None:
    found = answer("problems", "ia32", "hidden-state", "interrupt-virtualization")
    assert found["schema"] == "popek/problems/1"
    assert (found["machine"], found["technique"]) == ("ia32", "ring-deprivileging-0/1/3")
    assert found["configuration"]["IOPL"] == 0
    hidden, interrupts = found["problems"]
    assert (hidden["name"], hidden["present"]) == ("hidden-state", "yes")
    lost, trapping = interrupts["questions"]
    assert lost["forms"] == ["POPFD"]
    assert lost["witness"]["assembly"] == "POPFD"
    assert [trace["trace"] for trace in trapping["traces"]] == ["critical section"]


def test_problems_for_people() -> None:
    done = popek("problems", "ia32", "ring-aliasing")
    assert done.returncode == 0, done.stderr
    assert "Ring aliasing  present" in done.stdout
    assert "PUSH CS" in done.stdout
    assert done.stdout.rstrip().endswith("1 present, 0 absent, 0 unknown")


def test_safety_as_json() -> None:
    found = answer("safety", "ia32", "OUT", "--without", "io-map")
    assert found["schema"] == "popek/safety/1"
    assert {"pages", "iopl", "io-map"} <= set(found["hypotheses"])
    assert found["held"] is None
    (dropped,) = found["dropped"]
    assert (dropped["without"], dropped["safe"]) == (["io-map"], "no")
    assert dropped["escape"]["form"] == "OUT imm8, AL"
    assert dropped["escape"]["witness"]["native"]["changes"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("problems", "ia32", "ring-aliazing"),
            "unknown problem 'ring-aliazing'; did you mean ring-aliasing?",
        ),
        (("problems", "ia33"), "unknown machine"),
        (("problems", "ia32", "--technique", "ring"), "unknown technique of ia32 'ring'"),
        (("problems", "ia32", "--timeout", "-1"), "--timeout -1: expected a number of seconds"),
        (("safety", "ia32", "--without", "pagez"), "unknown hypothesis of ring-deprivileging-0/1/3 'pagez'"),
        (("safety", "ia32", "POPP"), "unknown instruction 'POPP'"),
        (("explain", "pg74", "GMODE", "--asm"), "--asm: there is no assembler or emulator for pg74"),
        (("explain", "ia32", "CLI", "--confirm", "simh"), "--confirm simh: expected bochs or unicorn"),
        (
            ("explain", "ia32", "CLI", "--asm", "no/such/folder/cli.asm"),
            "--asm no/such/folder/cli.asm: there is no",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refusal(*arguments)


@pytest.mark.emulator
def test_explain_prints_assembly_and_nothing_else(tmp_path: Path) -> None:
    done = popek("explain", "ia32", "CLI", "--set", "IOPL=1", "--asm")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("; CLI: witnesses")
    source = tmp_path / "cli.asm"
    source.write_text(done.stdout, encoding="ascii")
    nasm = programs.find("nasm")
    assert nasm is not None
    made = subprocess.run(
        [nasm, "-Werror", "-f", "bin", "-o", str(tmp_path / "cli.bin"), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "cli.bin").stat().st_size == 0x10000


@pytest.mark.emulator
def test_explain_confirms_on_an_emulator_beside_the_answer_and_writes_a_file(tmp_path: Path) -> None:
    file = tmp_path / "out.asm"
    found = answer("explain", "ia32", "POPFD", "--confirm", "--asm", str(file))
    assert found["schema"] == "popek/explanation/1"
    assert {(one["question"], one["verdict"]) for one in found["emulated"]} == {
        ("mode-sensitive", "confirmed"),
        ("control-sensitive", "confirmed"),
        ("fidelity", "confirmed"),
    }
    assert {one["on"] for one in found["emulated"]} == {"bochs"}
    assert "popfd" in file.read_text(encoding="ascii")


@pytest.mark.emulator
def test_escapes_are_confirmed(tmp_path: Path) -> None:
    found = answer("safety", "ia32", "OUT", "--without", "io-map", "--confirm")
    assert [one["verdict"] for one in found["emulated"]] == ["confirmed"]
