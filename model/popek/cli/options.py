"""Options that several commands take, with what is checked of their values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from .errors import UserError

MOST_SECONDS = 4_000_000  # 46 days; Z3 counts milliseconds in 32 bits
MOST_PROCESSES = 256


def _seconds(_: Any, value: float) -> None:
    if not 0 <= value <= MOST_SECONDS:  # also refuses what is no number
        raise UserError(
            f"--timeout {value:g}: expected a number of seconds from 0 (no bound) to {MOST_SECONDS}"
        )


def _processes(_: Any, value: int) -> None:
    if not 0 <= value <= MOST_PROCESSES:
        raise UserError(
            f"--jobs {value}: expected a number of processes from 0 (one per processor) to {MOST_PROCESSES}"
        )


Technique = Annotated[
    str | None,
    Parameter(name="--technique", help="A way to virtualize it; the machine's first by default."),
]
Settings = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="NAME=VALUE, several times; NAME=? leaves it open."),
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")]
Timeout = Annotated[
    float, Parameter(help="Seconds a single question may take; 0 for no bound.", validator=_seconds)
]
Jobs = Annotated[int, Parameter(help="Processes; 0 for one per processor.", validator=_processes)]
NoCache = Annotated[
    bool,
    Parameter(
        name="--no-cache", negative="", help="Ask everything anew, and keep nothing for the next time."
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class Work:
    """Who does the work."""

    jobs: Jobs = 0
    engine: Annotated[
        Literal["processes", "dask"],
        Parameter(help="Processes of this machine, or a cluster of Dask's (extra distributed)."),
    ] = "processes"
    scheduler: Annotated[
        str, Parameter(help="The address of Dask's scheduler; without one, a cluster on this machine.")
    ] = ""
    shard: Annotated[
        str, Parameter(help="I/N: only the I-th of N parts; what it prints, popek merge puts together.")
    ] = ""

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Have it done so."""
        if self.scheduler and self.engine != "dask":
            raise UserError(f"--scheduler {self.scheduler}: expected with --engine dask")
        if self.shard and self.engine == "dask":
            raise UserError(f"--shard {self.shard}: expected without --engine dask")
        if self.shard:
            from popek.work import engaged
            from popek.work.shards import WorkPart

            with engaged(WorkPart.read(self.shard, self.jobs)):
                yield
        elif self.engine == "dask":
            from popek.work import engaged
            from popek.work.cluster import Cluster

            with engaged(Cluster(self.scheduler, self.jobs)):
                yield
        else:
            yield


HERE: Final = Work()
ALONE: Final = Work(jobs=1)
TimeIsState = Annotated[bool, Parameter(negative="", help="Count clocks as resources.")]
Cases = Annotated[int, Parameter(help="How many random cases.")]
Seed = Annotated[int, Parameter(help="Another seed gives other cases.")]


def assert_set_once(settings: Sequence[str]) -> None:
    """Refuse a setting that is given two values."""
    names = [text.partition("=")[0].upper() for text in settings]
    for text, name in zip(settings, names, strict=True):
        if names.count(name) > 1:
            raise UserError(f"--set {text}: {name} is set {names.count(name)} times")


def assert_cases(cases: int) -> None:
    """Refuse a number of cases that is none."""
    if cases < 1:
        raise UserError(f"--cases {cases}: expected a number above 0")


def assert_one_of(option: str, value: str, known: Collection[str]) -> None:
    """Refuse a name that is not among those known."""
    if value not in known:
        names = sorted(known)
        expected = " or ".join(names) if len(names) < 3 else f"one of {', '.join(names)}"
        raise UserError(f"{option} {value}: expected {expected}")


def shown_default(value: object) -> str | None:
    """The default in a help text, where there is something to say."""
    nothing = value is None or value is False or value == "" or value == ()
    return None if nothing else f"{value:g}" if isinstance(value, float) else str(value)


__all__ = [
    "ALONE",
    "HERE",
    "AsJson",
    "Cases",
    "Jobs",
    "NoCache",
    "Seed",
    "Settings",
    "Technique",
    "TimeIsState",
    "Timeout",
    "Work",
    "assert_cases",
    "assert_one_of",
    "assert_set_once",
    "shown_default",
]
