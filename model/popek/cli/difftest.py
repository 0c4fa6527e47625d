"""`popek difftest`: compare the models with emulators that were written by others."""

from __future__ import annotations

import json as jsons
from typing import Annotated

from cyclopts import App, Parameter

from .difftest_svm import difftest_svm
from .difftest_vmx import difftest_vmx
from .difftest_vtx import difftest_vtx
from .errors import UserError

app = App(name="difftest", help="Compare the models with emulators that were written by others.")

app.command(difftest_vmx, name="vmx")
app.command(difftest_vtx, name="vtx")
app.command(difftest_svm, name="svm")

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")]
UNEXPECTED = 1


@app.command
def ia32(
    *forms: str,
    against: Annotated[str, Parameter(help="bochs or unicorn.")] = "bochs",
    cases: Annotated[int, Parameter(help="How many random cases.")] = 2000,
    seed: int = 0,
    json: AsJson = False,
) -> int:
    """Run one instruction from random states, on the model and on an emulator.

    Args:
        forms: instruction forms or mnemonics; all by default.
    """
    from popek.emulators.bochs import BochsError
    from popek.emulators.ia32_compare import BOCHS, difftest
    from popek.kernel.machine import UnknownNameError

    from . import progress

    if cases < 1:
        raise UserError(f"--cases {cases}: expected a number above 0")
    emulators = {"bochs": BOCHS}
    if against == "unicorn":
        from popek.emulators.ia32_unicorn import FORMS, UNICORN

        emulators["unicorn"] = UNICORN
        forms = forms or tuple(FORMS)  # the others it does not run faithfully
    if against not in emulators:
        raise UserError(f"--against {against}: expected bochs or unicorn")
    try:
        with progress("comparing") as show:
            found = difftest(
                cases,
                seed,
                list(forms) or None,
                None if show is None else lambda done: show(done, cases),
                against=emulators[against],
            )
    except (BochsError, UnknownNameError) as error:
        raise UserError(str(error)) from None
    if json:
        print(jsons.dumps({"schema": "popek/difftest/1", **found.to_json()}, indent=2, sort_keys=True))
    else:
        from popek.report import difftest as report

        from . import console

        console().print(report.instructions(found))
    return UNEXPECTED if found.unexplained else 0


@app.command(name="x86-64")
def x86_64(
    *forms: str,
    against: Annotated[str, Parameter(help="bochs or unicorn.")] = "bochs",
    cases: Annotated[int, Parameter(help="How many random cases.")] = 2000,
    seed: int = 0,
    json: AsJson = False,
) -> int:
    """Run one instruction in 64-bit or compatibility mode from random states, on the model and on an emulator.

    Args:
        forms: instruction forms or mnemonics; all by default.
    """
    from popek.emulators.bochs import BochsError
    from popek.emulators.ia32_unicorn import UnicornError
    from popek.emulators.x64_compare import BOCHS, difftest
    from popek.kernel.machine import UnknownNameError

    from . import progress

    if cases < 1:
        raise UserError(f"--cases {cases}: expected a number above 0")
    emulators = {"bochs": BOCHS}
    if against == "unicorn":
        from popek.emulators.x64_unicorn import UNICORN

        emulators["unicorn"] = UNICORN
    if against not in emulators:
        raise UserError(f"--against {against}: expected bochs or unicorn")
    try:
        with progress("comparing") as show:
            found = difftest(
                cases,
                seed,
                list(forms) or None,
                None if show is None else lambda done: show(done, cases),
                against=emulators[against],
            )
    except (BochsError, UnicornError, UnknownNameError) as error:
        raise UserError(str(error)) from None
    if json:
        print(jsons.dumps({"schema": "popek/difftest/1", **found.to_json()}, indent=2, sort_keys=True))
    else:
        from popek.report import difftest as report

        from . import console

        console().print(report.instructions(found))
    return UNEXPECTED if found.unexplained else 0
