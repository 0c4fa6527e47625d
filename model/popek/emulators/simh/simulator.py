"""Run scripts on the SIMH simulators: deposit a state, step one instruction, examine what it left.

A simulator reads its commands from a file, so that any number of cases take one process.  Each case is
announced with ECHO, and what the simulator prints until the next one is that case's answer: the reason
why it stopped, and `NAME: value` for each thing examined, in octal.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from popek.emulators import programs

_MARK: Final = "popek case"
_VALUE: Final = re.compile(r"^([A-Z0-9\[\]]+):\s+([0-7]+)\s*$")
_STOP: Final = re.compile(r"^(.*), PC: ([0-7]+)")
_COMPLAINTS: Final = ("Unknown command", "Invalid", "No such", "Non-existent", "Too few", "Too many")


class SimhError(Exception):
    """The simulator is missing, did not end in time, or refused a command."""


@attrs.frozen
class SimhAnswer:
    """What the simulator printed for one case.

    Attributes:
        stops: why it stopped, once per step ("Step expired", "HALT instruction").
        values: the last value examined under each name; storage cells by their octal address.
    """

    stops: tuple[str, ...]
    values: Mapping[str, int]

    def cell(self, address: int) -> int:
        """A storage cell that was examined."""
        return self.values[f"{address:o}"]


def run_cases(
    simulator: str, cases: Iterable[Sequence[str]], *, setup: Sequence[str] = (), timeout: float = 120
) -> list[SimhAnswer]:
    """Run the commands of every case, one after the other, in one process.

    Args:
        simulator: the executable (`pdp10`, `pdp11`).
        cases: the commands of each case.
        setup: commands before the first case.
        timeout: in seconds.

    Raises:
        SimhError: the simulator is missing, did not end in time, or refused a command.
    """
    path = programs.find(simulator)
    if path is None:
        raise SimhError(programs.not_found(simulator))
    lines = list(setup)
    number = 0
    for number, commands in enumerate(cases, 1):
        lines += (f"echo {_MARK} {number}", *commands)
    lines += (f"echo {_MARK} {number + 1}", "quit")
    with tempfile.TemporaryDirectory(prefix="popek-simh-") as name:
        folder = Path(name)
        script, printed = folder / "cases.ini", folder / "output"
        script.write_text("\n".join(lines) + "\n", encoding="ascii")
        with (
            printed.open("wb") as output,
            programs.started([path, "-q", script], folder, output) as process,
        ):
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise SimhError(f"{simulator} was still running after {timeout:g} s") from None
        said = printed.read_text(encoding="utf-8", errors="replace")
    parts = re.split(rf"^{_MARK} \d+\s*$", said, flags=re.MULTILINE)
    if len(parts) != number + 2:
        raise SimhError(f"{simulator} answered {len(parts) - 2} of {number} cases: {said[-200:]!r}")
    _answer(simulator, parts[0])  # the setup: nothing to report but a refusal
    return [_answer(simulator, part) for part in parts[1:-1]]


def _answer(simulator: str, text: str) -> SimhAnswer:
    stops, values = [], {}
    for line in text.splitlines():
        value = _VALUE.match(line)
        stop = None if value else _STOP.match(line)
        if value:
            values[value[1]] = int(value[2], 8)
        elif stop:
            stops.append(stop[1])
        elif line.startswith(_COMPLAINTS):
            raise SimhError(f"{simulator} refused a command: {line}")
    return SimhAnswer(tuple(stops), values)


class Contents(dict[int, int]):
    """Storage whose cells have made-up contents until they are given others, and that knows who was read.

    `Memory` copies its cells when it stores, so the cells a run reads are found by running it until no
    new one turns up (`settled`).
    """

    def __init__(self, fill: Callable[[int], int]) -> None:
        """Cells are `fill(address)` when they are first read."""
        super().__init__()
        self._fill = fill

    def get(self, address: int, default: object = None) -> int:
        """A cell; made up and remembered when it was not there."""
        if address not in self:
            self[address] = self._fill(address)
        return self[address]


def settled(run: Callable[[Contents], Mapping[int, int]], fill: Callable[[int], int]) -> dict[int, int]:
    """All cells that a run reads or writes, with what they held before.

    Args:
        run: runs from the given contents and returns the cells afterwards.
        fill: the contents of a cell that nothing is known about.
    """
    contents = Contents(fill)
    while True:
        known = len(contents)
        for address in run(contents):
            contents.get(address)
        if len(contents) == known:
            return dict(contents)
