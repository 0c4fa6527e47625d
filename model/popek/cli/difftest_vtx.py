"""`popek difftest vtx`: instructions of a guest on Bochs' VMX, each compared with non-root operation of the model."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import Annotated

from cyclopts import Parameter

from .errors import UserError


def difftest_vtx(
    *forms: str,
    against: Annotated[str, Parameter(help="bochs, the only emulator with VMX.")] = "bochs",
    cases: Annotated[int, Parameter(help="How many random cases.")] = 2000,
    seed: Annotated[int, Parameter(help="Another seed gives other cases.")] = 0,
    instruction: Annotated[tuple[str, ...], Parameter(help="The same as a form.")] = (),
    json: Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")] = False,
) -> int:
    """Run one instruction of a guest under random controls: exit reason, qualification and information, or the state.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no Bochs.

    Args:
        forms: instruction forms or mnemonics; all by default.
    """
    from popek.emulators.bochs import BochsError
    from popek.emulators.vmx_guest_compare import difftest
    from popek.kernel.machine import UnknownNameError

    from . import progress

    if cases < 1:
        raise UserError(f"--cases {cases}: expected a number above 0")
    if against != "bochs":
        raise UserError(f"--against {against}: expected bochs")
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
        document = {"schema": "popek/vtx-difftest/1", **found.to_json()}
        sys.stdout.write(jsonlib.dumps(document, indent=2, sort_keys=True) + "\n")
    else:
        from popek.report import difftest as report

        from . import console

        console().print(report.vtx(found))
    return 1 if found.unexplained else 0
