"""Guest mode of x86-64 against Bochs' SVM: exits with what they tell, and state."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from popek.architectures.svm.operation import guest_mode
from popek.architectures.svm.operation.guest_mode import GuestMode
from popek.architectures.svm.operation.state import SvmX64
from popek.architectures.x86_64.instructions import msrs
from popek.cli.difftest import guests_command
from popek.emulators import declared_guests
from popek.emulators.guest_mode import long_deviations
from popek.emulators.guest_mode.long_compare import LONG_GUESTS
from popek.emulators.guests.compare import difftest
from popek.kernel.words import Word

pytestmark = pytest.mark.emulator

difftest_svm = guests_command("svm", declared_guests()["svm"])


def test_nothing_is_left_to_explain() -> None:
    found = difftest(LONG_GUESTS, 450, seed=1)
    assert found.cases >= 440
    assert [d.to_json() for d in found.differences] == []
    assert sum(outcome.startswith("exit") for outcome in found.outcomes) >= 25
    assert found.outcomes["next"] > 100


def test_what_is_watched_alone_leaves_and_tells_the_same() -> None:
    forms = ["MOV CR8, r64", "MOV r64, CR8", "IN AL, DX", "WRMSR", "INVLPG m", "MOV CR4, r64", "SYSCALL"]
    found = difftest(LONG_GUESTS, 200, seed=2, forms=forms)
    assert [d.to_json() for d in found.differences] == []
    assert {"exit 0x8", "exit 0x18", "exit 0x7b", "exit 0x7c", "exit 0x79", "exit 0x14"} <= set(
        found.outcomes
    )


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert difftest_svm("RDTSC", guest="x86-64", cases=10, json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["unexplained"]) == ("popek/svm-guest-difftest/1", 0)


def test_the_deviations_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_deviations, "_RECOGNISED", {})
    assert difftest(LONG_GUESTS, 60, seed=4, forms=["MOV CR3, r64", "RSM"]).unexplained > 0


def _no_exit(self: GuestMode, cpu: SvmX64, *arguments: Any, **more: Any) -> None:
    return None


def _wrong_bit(cpu: SvmX64, access: Any) -> Word:
    found: Word = _IO_ACCESS(cpu, access) ^ 1
    return found


def _without_addresses(cpu: SvmX64, access: Any) -> Word:
    found: Word = _IO_ACCESS(cpu, access) & ~Word(32, 7 << 7)
    return found


def _intercept_first(cpu: Any) -> None:
    GuestMode().msr(cpu, write=False)
    _PRIVILEGED(cpu)


_IO_ACCESS: Final = guest_mode._io_access
_PRIVILEGED: Final = msrs.privileged


@pytest.mark.parametrize(
    ("where", "name", "change", "form"),
    [
        (GuestMode, "msr", _no_exit, "RDMSR"),
        (GuestMode, "port", _no_exit, "OUT DX, AX"),
        (guest_mode, "_io_access", _wrong_bit, "IN AL, DX"),
        (guest_mode, "_io_access", _without_addresses, "OUTSB seg"),
        (guest_mode, "SELECTIVE", 0xFFFFFFFF, "MOV CR0, r64"),
        (msrs, "privileged", _intercept_first, "RDMSR"),
        (GuestMode, "write_task_priority", _no_exit, "MOV CR8, r64"),
    ],
    ids=[
        *("msr-intercepts-lost", "port-intercepts-lost", "exitinfo1-bit-lost", "address-size-lost"),
        *("selective-is-not", "intercept-before-gp", "cr8-intercept-lost"),
    ],
)
def test_a_change_of_the_model_is_noticed(  # but for decode assists, which the emulated processor has not
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, change: Any, form: str
) -> None:
    monkeypatch.setattr(where, name, change)
    assert difftest(LONG_GUESTS, 100, seed=3, forms=[form]).unexplained > 0
