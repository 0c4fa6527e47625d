"""`popek safety`: nobody escapes while the VMM's hypotheses hold, and without each there is a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from . import witnesses
from .errors import UserError
from .options import AsJson, Settings, Technique, Timeout, assert_set_once
from .output import console, print_json, progress

UNEXPECTED, UNKNOWN = 1, 3


def safety(
    machine: str = "ia32",
    /,
    *instructions: str,
    technique: Technique = None,
    set: Settings = (),
    without: Annotated[
        tuple[str, ...],
        Parameter(
            help="Drop this hypothesis of the technique; several times, to drop them together.", negative=""
        ),
    ] = (),
    shows: Annotated[
        bool, Parameter(help="Find the instructions whose result shows something of the VMM's, too.")
    ] = True,
    timeout: Timeout = 0.0,
    asm: witnesses.Asm = False,
    confirm: witnesses.Confirm = False,
    json: AsJson = False,
) -> int:
    """Say whether a guest can get out: with all that the VMM sees to, and without each of it, with witnesses.

    Args:
        machine: a name that `popek machines` lists, or a Python file that declares one.
        instructions: only these mnemonics or forms; every one by default.
    """
    from popek.kernel.configuration import SettingError, configure
    from popek.kernel.machine import UnknownNameError
    from popek.machines import MachineFileError
    from popek.machines import machine as find_machine
    from popek.report import safety as report
    from popek.solving.solver import Effort
    from popek_proofs.safety import safety as asked

    assert_set_once(set)
    try:
        known = find_machine(machine)
        way = known.technique(technique)
        configuration = configure(known, set)
        forms = [form for name in instructions for form in known.find(name)]
        witnesses.assert_possible(machine, asm, confirm)
        with progress("asking") as show:
            found = asked(
                known,
                way,
                configuration,
                without=without,
                forms=forms or None,
                effort=Effort(timeout=timeout),
                shows=shows,
                progress=show,
            )
    except (UnknownNameError, SettingError, MachineFileError) as error:
        raise UserError(str(error)) from None
    emulated = witnesses.asked(known, f"{known.name} under {way.name}", report.named(found), asm, confirm)
    if json:
        answer = found.to_json()
        if emulated:
            answer["emulated"] = [one.to_json() for one in emulated]
        print_json(answer)
    elif not (asm and not isinstance(asm, Path)):
        console().print(report.safety(found))
        witnesses.print_confirmations(emulated)
    if any(one.differs for one in emulated):
        return UNEXPECTED
    return UNKNOWN if found.unknown else 0
