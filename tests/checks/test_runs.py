"""An explored instruction: what it keeps."""

import gc
import weakref

from popek.checks.runs import explore_instruction
from popek.machines import machine


def test_a_run_without_its_assignments_keeps_none_of_them_alive() -> None:
    """Each has a solver behind it, of megabytes, and runs are kept by the hundred."""
    known = machine("pg74")
    run = explore_instruction(known, known.instructions["LRA a, b"])
    assert run.known
    assignment = weakref.ref(next(iter(run.known.values())))
    run = run.without_assignments()
    gc.collect()
    assert run.paths
    assert assignment() is None
