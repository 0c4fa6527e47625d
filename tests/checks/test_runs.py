"""An explored instruction: what it keeps."""

import gc
import weakref

import attrs

from popek.architectures import machine
from popek.checks.runs import explore_instruction


def test_a_run_without_its_assignments_keeps_no_solver_alive() -> None:
    """Solvers take megabytes, and runs are kept by the hundred."""
    known = machine("pg74")
    run = explore_instruction(known, known.instructions["LRA a, b"])
    assert run.known
    solver = weakref.ref(run.translated)
    run = attrs.evolve(run, known={}, translated=None)
    gc.collect()
    assert run.paths
    assert solver() is None
