"""Which solver answers: Bitwuzla where it is installed, or else Z3; or the one that POPEK_SOLVER names."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Final

VARIABLE: Final = "POPEK_SOLVER"
SOLVERS: Final = ("bitwuzla", "z3")


def chosen_solver() -> str:
    """The name of the solver that answers.

    Raises:
        ValueError: the environment asks for one that popek does not know or that is not installed.
    """
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        return "bitwuzla" if find_spec("bitwuzla") else "z3"
    if wanted not in SOLVERS:
        raise ValueError(f"{VARIABLE}={wanted}: expected {' or '.join(SOLVERS)}")
    if not find_spec(wanted):
        raise ValueError(f"{VARIABLE}={wanted}: the package {wanted} is not installed")
    return wanted


__all__ = ["SOLVERS", "VARIABLE", "chosen_solver"]
