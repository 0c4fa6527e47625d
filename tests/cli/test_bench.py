"""The benchmark measures what it says: parts of a whole, in one run."""

from __future__ import annotations

from popek.checks.benchmark import benchmark


def test_solver_time_is_a_part_of_the_total() -> None:
    found = benchmark("pg74", ["MOVE", "GMODE"])
    assert found.forms == 2
    assert 0 < found.solver_seconds < found.seconds
    assert found.ratio > 1


def test_growth_ends_at_the_total_and_never_falls() -> None:
    found = benchmark("pg74", ["ADD", "SVC", "LRA"])
    assert len(found.growth) == 3
    assert sorted(found.growth) == list(found.growth)
    assert abs(found.growth[-1] - found.seconds) < 1e-9
    assert {form for form, _ in found.slowest} == {"ADD a, b", "SVC", "LRA a, b"}


def test_a_benchmark_counts_concrete_steps() -> None:
    assert benchmark("pg74", ["JUMP"]).steps_per_second > 0
