"""The x86-64 model and Unicorn agree where Unicorn is faithful."""

from __future__ import annotations

import json

import pytest

from popek.architectures.x86_64.state import X64
from popek.cli.difftest import machine_command
from popek.cli.errors import UserError
from popek.emulators import declared_difftests
from popek.emulators.x86_64.compare import difftest
from popek.emulators.x86_64.unicorn import FORMS, LEFT_OUT, UNICORN
from popek.kernel.words import Word
from popek.machines import machine

pytestmark = pytest.mark.emulator

CASES = 800
x86_64 = machine_command("x86-64", declared_difftests()["x86-64"])


def test_the_model_and_unicorn_agree() -> None:
    found = difftest(CASES, seed=7, against=UNICORN)
    story = "\n".join(
        f"{d.assembly}: {d.expected}; Unicorn: {d.observed}; {d.details}" for d in found.differences
    )
    assert found.cases >= CASES * 9 // 10
    assert found.unexplained == 0, story
    assert set(found.by_level) == {0, 3}
    assert set(found.by_mode) == {"64-bit"}


def test_every_mnemonic_is_asked_or_left_out_for_a_reason() -> None:
    known = {i.mnemonic for i in machine("x86-64").instructions.values()}
    assert known >= FORMS
    assert all(len(reason.split()) > 3 for reason in LEFT_OUT.values())


def test_a_wrong_model_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def keeps_upper_half(cpu: X64, number: Word | int, value: Word) -> None:
        cpu.gpr[number] = cpu.gpr[number].replace(value.width - 1, 0, value)

    monkeypatch.setattr(X64, "write_register", keeps_upper_half)
    assert difftest(40, seed=1, forms=["MOVZX r32, r8", "BSWAP r32"], against=UNICORN).unexplained > 0


def test_the_command_prints_json_and_refuses_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert x86_64("CMC", "PUSH r64", against="unicorn", cases=10, json=True) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["schema"], data["machine"], data["cases"]) == ("popek/difftest/1", "x86-64", 10)
    assert set(data["by_form"]) == {"CMC", "PUSH r64"}
    with pytest.raises(UserError, match=r"expected .*bochs.* unicorn"):
        x86_64(against="qemu")
    with pytest.raises(UserError, match="expected a number above 0"):
        x86_64(cases=0)
