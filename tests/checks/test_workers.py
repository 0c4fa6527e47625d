"""Lists worked through by processes that keep what they found."""

import os

import pytest

from popek.checks.workers import Workers

SEEN: list[int] = []


def noted(number: int) -> tuple[int, int, list[int]]:
    SEEN.append(number)
    return os.getpid(), number, list(SEEN)


def refused(number: int) -> int:
    raise ValueError(number)


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_the_same_place_of_every_list_goes_to_the_same_process_in_order(jobs: int) -> None:
    SEEN.clear()
    with Workers(jobs) as workers:
        first, second = list(workers.map(noted, range(5))), list(workers.map(noted, range(10, 15)))
    assert [number for _, number, _ in first + second] == [*range(5), *range(10, 15)]
    assert [process for process, _, _ in first] == [process for process, _, _ in second]
    assert len({process for process, _, _ in first}) == jobs
    assert all(number in seen for (_, number, _), (_, _, seen) in zip(first, second, strict=True))
    assert (os.getpid() in {process for process, _, _ in first}) == (jobs == 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_a_process_is_raised_here(jobs: int) -> None:
    with Workers(jobs) as workers, pytest.raises(ValueError, match="7"):
        list(workers.map(refused, [7]))
