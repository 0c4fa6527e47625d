"""`popek difftest svm`: instructions of a guest on Bochs' SVM, compared with guest mode of the model."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .errors import UserError
from .options import AsJson, Cases, Seed, assert_cases, assert_one_of
from .output import console, print_json, progress


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
    from popek.emulators.bochs.simulator import BochsError
    from popek.emulators.guest_mode.compare import difftest
    from popek.kernel.machine import UnknownNameError

    assert_cases(cases)
    assert_one_of("--against", against, ("bochs",))
    try:
        with progress("comparing") as show:
            found = difftest(
                cases,
                seed,
                [*forms, *instruction] or None,
                None if show is None else lambda done: show(done, cases),
            )
    except (BochsError, UnknownNameError) as error:
        raise UserError(str(error)) from None
    if json:
        print_json({"schema": "popek/svm-guest-difftest/1", **found.to_json()})
    else:
        from popek.report import difftest as report

        console().print(report.non_root(found))
    return 1 if found.unexplained else 0
