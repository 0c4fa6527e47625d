"""Guest mode of the model against Bochs' SVM, and the list of known deviations."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from popek.architectures.svm.operation import guest_mode
from popek.architectures.svm.operation.guest_mode import GuestMode
from popek.architectures.svm.operation.state import SvmIa32
from popek.cli.difftest import guests_command
from popek.cli.errors import UserError
from popek.emulators import declared_guests
from popek.emulators.guest_mode import deviations, long_deviations
from popek.emulators.guest_mode.compare import GUESTS
from popek.emulators.guest_mode.expectation import LACKING
from popek.emulators.guest_mode.observation import _of_an_earlier_exit
from popek.emulators.guests import compare
from popek.emulators.guests.compare import difftest
from popek.kernel.words import Word

difftest_svm = guests_command("svm", declared_guests()["svm"])


def test_the_list_and_what_recognises_it_are_the_same() -> None:
    listed = deviations.deviations()
    assert set(listed) == deviations.recognised() | long_deviations.recognised()
    assert all("APM" in entry.evidence for entry in listed.values())


def test_what_the_emulated_processor_lacks_is_named() -> None:
    assert {"INVPCID", "RDPID"} <= set(LACKING)


@pytest.mark.emulator
def test_random_steps_of_a_guest_leave_nothing_to_explain() -> None:
    found = difftest(GUESTS, 250, seed=1)
    assert found.cases >= 240
    assert [d.to_json() for d in found.differences] == []
    assert sum(outcome.startswith("exit") for outcome in found.outcomes) > 15


@pytest.mark.emulator
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert difftest_svm("RDTSC", cases=10, json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["unexplained"]) == ("popek/svm-guest-difftest/1", 0)
    with pytest.raises(UserError, match="RDTSC"):
        difftest_svm("RDTSK", cases=10)


def _no_exit(self: GuestMode, cpu: SvmIa32, *arguments: Any, **more: Any) -> None:
    return None


def _wrong_bit(cpu: SvmIa32, access: Any) -> Word:
    found: Word = _IO_ACCESS(cpu, access) ^ 1
    return found


_IO_ACCESS: Final = guest_mode._io_access


@pytest.mark.emulator
@pytest.mark.parametrize(
    ("where", "name", "change", "form"),
    [
        (GuestMode, "msr", _no_exit, "RDMSR"),
        (GuestMode, "port", _no_exit, "OUT DX, AX"),
        (guest_mode, "_io_access", _wrong_bit, "IN AL, DX"),
        (guest_mode, "SELECTIVE", 0xFFFFFFFF, "MOV CR0, r32"),
        (guest_mode, "MSR_RANGES", (0, 0xC0000000), "RDMSR"),
    ],
    ids=[
        "MSR intercepts lost",
        "port intercepts lost",
        "EXITINFO1 bit lost",
        "selective is not",
        "a range lost",
    ],
)
def test_a_change_of_the_model_is_noticed(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, change: Any, form: str
) -> None:
    monkeypatch.setattr(where, name, change)
    assert difftest(GUESTS, 200, seed=3, forms=[form]).unexplained > 0


@pytest.mark.emulator
@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(812, 812, "access-wraps-at-4-gib"), (871, 874, "inner-stack-needs-eight-bytes")],
)
def test_events_of_software_on_stacks_that_wrap_or_end_early(first: int, last: int, expected: str) -> None:
    """Cases that were once unexplained: INT1 that leads to itself for good, an EXITINTINFO of the case before."""
    jobs = list(compare.schedule(GUESTS, GUESTS.steps.machine(), 900, 1, ["INT imm8", "INT1"]))
    model = GUESTS.processor
    ready = compare._draw(
        GUESTS, GUESTS.steps.machine(), jobs[first : last + 1], 1, model, Counter(), Counter()
    )
    results = GUESTS.run([item.run for item in ready], model)
    found = GUESTS.steps.difference(ready[-1], results[-1])
    assert found is not None
    assert found.deviation == expected


def test_an_exception_that_is_intercepted_was_not_being_delivered() -> None:
    def told(form: str, intercepts: int) -> bool:
        case = SimpleNamespace(form=form, controls={"EXCEPTION_INTERCEPTS": intercepts})
        result = SimpleNamespace(fields={"EXITINTINFO": 0x80000B0D})
        return _of_an_earlier_exit(cast("Any", SimpleNamespace(case=case)), cast("Any", result))

    assert told("INT1", 1 << 13)
    assert not told("INT1", 1 << 12)
    assert not told("HLT", 1 << 13)
