"""`popek difftest non-root`: instructions of a guest on Bochs' VMX, compared with non-root operation of the model."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .errors import UserError
from .options import AsJson, Cases, Seed, assert_cases, assert_one_of
from .output import console, print_json, progress


def difftest_non_root(
    *forms: str,
    against: Annotated[str, Parameter(help="bochs, the only emulator with VMX.")] = "bochs",
    cases: Cases = 2000,
    seed: Seed = 0,
    instruction: Annotated[tuple[str, ...], Parameter(help="The same as a form.")] = (),
    guest: str = "ia32",
    json: AsJson = False,
) -> int:
    """Run one instruction of a guest under random controls: exit reason, qualification and information, or the state.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no Bochs.

    Args:
        forms: instruction forms or mnemonics; all by default.
        guest: ia32, or x86-64 for 64-bit mode and compatibility mode.
    """
    from popek.emulators.bochs.simulator import BochsError
    from popek.emulators.non_root.compare import GUESTS, difftest
    from popek.emulators.non_root.long_compare import LONG_GUESTS
    from popek.kernel.machine import UnknownNameError

    assert_cases(cases)
    assert_one_of("--against", against, ("bochs",))
    assert_one_of("--guest", guest, ("ia32", "x86-64"))
    try:
        with progress("comparing") as show:
            found = difftest(
                cases,
                seed,
                [*forms, *instruction] or None,
                None if show is None else lambda done: show(done, cases),
                guests=LONG_GUESTS if guest == "x86-64" else GUESTS,
            )
    except (BochsError, UnknownNameError) as error:
        raise UserError(str(error)) from None
    if json:
        print_json({"schema": "popek/vtx-difftest/1", **found.to_json()})
    else:
        from popek.report import difftest as report

        console().print(report.non_root(found))
    return 1 if found.unexplained else 0
