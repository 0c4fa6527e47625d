"""What whole commands take: more output, a second run, more processes and parts, each beside the plain command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from .references import cpu

RUN: Final = "import sys; from popek.cli import main; sys.argv = ['popek', *sys.argv[1:]]; main()"
ALONE: Final = ("--jobs", "1")
SHARDS: Final = (2, 8)

Measured = tuple[str, str, float, str]
"""A name, what was done, the seconds of one time, and the name of what it is beside."""


def commands(machine: str, forms: Sequence[str]) -> Iterator[Measured]:
    """Commands about a machine, by processor time; with two processes by the clock, which needs idle processors.

    Args:
        forms: of what is classified, only these; all where there are none.
    """
    classify = ("classify", machine, *forms)
    with tempfile.TemporaryDirectory(prefix="popek-") as folder:
        off = {"POPEK_CACHE": "off"}
        yield "classify text", "classify", _taken(cpu, folder, off, *classify, *ALONE), ""
        with_json = _taken(cpu, folder, off, *classify, *ALONE, "--json")
        yield "classify json", "classify --json", with_json, "classify text"
        kept = {"POPEK_CACHE": folder}
        yield (
            "classify first",
            "classify, kept",
            _taken(cpu, folder, kept, *classify, *ALONE),
            "classify text",
        )
        again = _taken(cpu, folder, kept, *classify, *ALONE)
        yield "classify again", "classify a second time", again, "classify first"
        for count in SHARDS:
            taken = _parts(folder, count, classify)
            yield f"classify {count} parts", f"classify in {count} parts, and merge", taken, "classify text"
        clock = time.perf_counter
        for name, words in (("classify", classify), ("safety", ("safety", machine))):
            alone = _taken(clock, folder, off, *words, *ALONE)
            yield f"{name} one job", f"{name} by the clock", alone, ""
            both = _taken(clock, folder, off, *words, "--jobs", "2")
            yield f"{name} two jobs", f"{name} --jobs 2 by the clock", both, f"{name} one job"


def _parts(folder: str, count: int, words: Sequence[str]) -> float:
    names = [f"{number}.json" for number in range(1, count + 1)]
    taken = 0.0
    for number, name in enumerate(names, 1):
        shard = ("--shard", f"{number}/{count}", *ALONE)
        taken += _taken(cpu, folder, {"POPEK_CACHE": "off"}, *words, *shard, out=name)
    return taken + _taken(cpu, folder, {"POPEK_CACHE": "off"}, "merge", *names)


def _taken(
    clock: Callable[[], float], folder: str, changes: Mapping[str, str], *words: str, out: str = os.devnull
) -> float:
    """The seconds that a command takes in a folder."""
    environment = {**os.environ, **changes}
    with (Path(folder) / out).open("wb") as file:
        begin = clock()
        subprocess.run(
            [sys.executable, "-c", RUN, *words],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return clock() - begin


__all__ = ["commands"]
