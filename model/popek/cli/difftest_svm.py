"""`popek difftest svm`: instructions of a guest on Bochs' SVM, compared with guest mode of the model."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .difftest_running import compare_guests
from .options import AsJson, Cases, Seed


def difftest_svm(
    *forms: str,
    against: Annotated[str, Parameter(help="bochs.")] = "bochs",
    cases: Cases = 2000,
    seed: Seed = 0,
    instruction: Annotated[tuple[str, ...], Parameter(help="The same as a form.")] = (),
    json: AsJson = False,
) -> int:
    """Run one instruction of a guest under random intercepts: exit code, information and next rIP, or the state.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no Bochs.

    Args:
        forms: instruction forms or mnemonics; all by default.
    """
    from popek.emulators.guest_mode.compare import GUESTS

    names = (*forms, *instruction)
    return compare_guests(GUESTS, names, against, cases, seed, "popek/svm-guest-difftest/1", json)
