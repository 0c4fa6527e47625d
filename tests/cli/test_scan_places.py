"""`popek scan --explain --rewrite-plan`: a place is asked about with the operands that stand there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import popek
from popek.kernel.instruction import Instruction, Operand, OperandKind

# MOV EAX, CS | MOV ECX, SS | MOV EAX, DS | STR EAX | MOV EAX, CS
CODE = bytes.fromhex("8cc8 8cd1 8cd8 0f00c8 8cc8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program, and what is so of its forms, asked once."""
    path = tmp_path_factory.mktemp("places")
    (path / "image").write_bytes(CODE)
    (path / "answers.json").write_text(
        popek("classify", "ia32", "MOV", "STR", "--promises", "--json", "--jobs", "1").stdout
    )
    return path


def scan(folder: Path, *more: str) -> str:
    told = ("--mode", "32", "--answers", "answers.json", "--jobs", "1")
    done = popek("scan", "image", *told, *more, folder=folder)
    assert done.returncode == 1, done.stderr
    return done.stdout


def test_only_the_operands_break_that_show_the_privilege_level(folder: Path) -> None:
    """CS and SS hold the privilege level, DS does not (Robin and Irvine 2000); the form is all of them."""
    found = json.loads(scan(folder, "--explain", "--json"))["occurrences"]
    by_text = {one["text"]: one for one in found}
    assert {text for text, one in by_text.items() if not one["breaks"]} == {"mov eax, ds"}
    assert [one["address"] for one in by_text["mov eax, cs"]["places"]] == ["0x0", "0x9"]
    for text, one in by_text.items():
        assert {witness["assembly"].lower() for witness in one["witnesses"].values()} <= {text}
        assert bool(one["witnesses"]) == bool(one["breaks"])
    assert "fidelity" in by_text["mov ecx, ss"]["witnesses"]


def test_a_replacement_has_its_own_registers(folder: Path) -> None:
    """SDM vol. 2: MOV writes its destination; STR shows TR, and raises #GP(0) by UMIP alone."""
    found = json.loads(scan(folder, "--rewrite-plan", "--json"))["occurrences"]
    plans = {one["text"]: one["replacement"] for one in found}
    general = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"}
    written = {text: general & set(plan["writes"]) for text, plan in plans.items()}
    assert written == {
        "mov eax, cs": {"eax"},
        "mov ecx, ss": {"ecx"},
        "mov eax, ds": {"eax"},
        "str eax": {"eax"},
    }
    assert {text: plan["traps"] for text, plan in plans.items() if plan["traps"]} == {"str eax": ["#GP"]}
    assert "cs.selector.rpl" in plans["mov eax, cs"]["own"]
    assert {name.partition(".")[0] for name in plans["str eax"]["own"]} == {"tr"}
    assert (plans["mov eax, cs"]["size"], plans["str eax"]["size"]) == (2, 3)


def test_the_text_has_a_witness_and_a_plan_for_each_place(folder: Path) -> None:
    text = scan(folder, "--explain", "--rewrite-plan")
    assert "mov eax, cs (MOV r32, Sreg) at 0x0, 0x9" in text
    assert text.count("on the guest's own machine  on the hardware") == 3
    assert text.count("with these operands it breaks nothing") == 2
    plan = text.partition("to be replaced by calls into the VMM")[2].splitlines()[2:]
    assert [line.split()[0] for line in plan] == ["0x0", "0x2", "0x4", "0x6", "0x9"]
    few = scan(folder, "--rewrite-plan", "--places", "1").partition("to be replaced")[2].splitlines()[2:]
    assert [line.split()[0] for line in few] == ["0x0", "0x6"]


def test_operands_are_fixed_beside_what_was_valid() -> None:
    kind = OperandKind("k", {"low": 3, "high": 3}, valid=lambda parts: parts["low"] == parts["high"])
    form = Instruction("X k", "X", (Operand("k", kind),), "", lambda cpu, k: None)
    fixed = form.fixed({"operand k.low": 5, "operand another": 1})
    for low in range(8):
        for high in range(8):
            parts = form.words({"operand k.low": low, "operand k.high": high})
            assert int(fixed.valid(parts)) == (low == high == 5)
    assert fixed.smallest == {"operand k.low": 5, "operand k.high": 0}
    assert form.smallest == {"operand k.low": 0, "operand k.high": 0}
