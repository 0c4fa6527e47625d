"""The harness that drives SIMH."""

from __future__ import annotations

import pytest

from popek.emulators.simh.simulator import Contents, SimhError, run_cases, settled


def test_a_missing_simulator_is_named() -> None:
    with pytest.raises(SimhError, match=r"^pdp-none was not found on PATH$"):
        run_cases("pdp-none", [["step"]])


@pytest.mark.emulator("pdp11")
def test_each_case_gets_its_own_answer() -> None:
    first, second = run_cases("pdp11", [["d r0 7", "ex r0"], ["ex r0", "d 1000 123", "ex 1000"]])
    assert first.values["R0"] == second.values["R0"] == 7
    assert second.cell(0o1000) == 0o123
    assert first.stops == ()


@pytest.mark.emulator("pdp11")
def test_a_step_tells_why_it_stopped() -> None:
    (answer,) = run_cases("pdp11", [["d psw 0", "d 1000 0", "d pc 1000", "step"]])
    assert answer.stops == ("HALT instruction",)


@pytest.mark.emulator("pdp11")
@pytest.mark.parametrize("command", ["d nowhere 1", "frobnicate", "d pc 99", "set cpu 12/34"])
def test_a_refused_command_is_an_error(command: str) -> None:
    with pytest.raises(SimhError, match="refused"):
        run_cases("pdp11", [[command]])


@pytest.mark.emulator("pdp11")
def test_a_simulator_that_does_not_end_is_stopped() -> None:
    with pytest.raises(SimhError, match="still running"):
        run_cases("pdp11", [["d 1000 777", "d pc 1000", "go"]], timeout=0.5)


def test_the_cells_of_a_run_are_found_even_when_stores_move_its_reads() -> None:
    """A run that follows a chain of pointers: each is seen only once the one before is known."""

    def run(contents: Contents) -> dict[int, int]:
        place = 0
        for _ in range(3):
            place = contents.get(place)
        return {**contents, 99: 1}

    assert settled(run, lambda place: place + 5) == {0: 5, 5: 10, 10: 15, 99: 104}
