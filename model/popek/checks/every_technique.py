"""Surveys of one machine under each of its techniques, what several ask alike asked once.

The classes look at a technique through four things alone (`asked_of`).  Two techniques that agree in these ask the same
questions of the classes, however differently they map a guest.  Promises look at all of a technique.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from popek.kernel.technique import Technique

from .presence import present
from .survey import Request, Survey, survey

READ = ("deprivileged", "entries", "guests_own", "replaced")
"""What the classes look at, by attribute of `Technique`."""


def asked_of(technique: Technique[Any]) -> tuple[object, ...]:
    """What the classes look at: techniques of one machine with the same ask the same."""
    return tuple(getattr(technique, name) for name in READ)


def surveys(
    requests: Sequence[Request],
    *,
    forms: Iterable[str] | None = None,
    jobs: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Survey]:
    """A survey for each request; of those that ask alike the first is made, and serves the others.

    Args:
        requests: of one machine and configuration, under several techniques.
        forms: only these.
        jobs: processes; 0 for one per processor.
        progress: called with the number of forms that are done and of all, over all that is asked.

    Raises:
        NothingToAskError: the questions would be about nothing.
        ReplayError: a defect of popek.
    """
    wanted = None if forms is None else list(forms)
    firsts = [_first_alike(requests, request) for request in requests]
    distinct = list(dict.fromkeys(firsts))
    made: dict[int, Survey] = {}
    for number, first in enumerate(distinct):

        def told(done: int, of: int, before: int = number) -> None:
            if progress is not None:
                progress(before * of + done, len(distinct) * of)

        made[first] = survey(requests[first], forms=wanted, jobs=jobs, progress=told)
    found = []
    for request, first in zip(requests, firsts, strict=True):
        answer = made[first]
        if requests[first] is not request:
            subject = request.subject
            answer = attrs.evolve(
                answer, technique=subject.technique.name, there=present(subject), seconds=0.0
            )
        found.append(answer)
    return found


def _first_alike(requests: Sequence[Request], request: Request) -> int:
    """The place of the first request that asks what this one does."""
    alone = request.promises is not False or request.certify is not None
    for place, other in enumerate(requests):
        if other is request or (not alone and _alike(other, request)):
            return place
    raise AssertionError("it is one of them")


def _alike(first: Request, second: Request) -> bool:
    one, other = first.subject, second.subject
    return (
        attrs.evolve(first, subject=other) == second
        and one.machine is other.machine
        and one.configuration == other.configuration
        and one.time_is_state == other.time_is_state
        and asked_of(one.technique) == asked_of(other.technique)
    )
