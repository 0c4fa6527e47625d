"""`popek problems`: the eight problems of ring deprivileging, asked of a machine under a technique."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from popek.machines import usual

from . import witnesses
from .errors import UNEXPECTED, UNKNOWN, UserError
from .options import HERE, AsJson, Settings, Technique, Timeout, Work
from .output import console, print_json, progress
from .resolving import known_names, subject_of


def problems(
    machine: str = usual(),
    /,
    *names: str,
    technique: Technique = None,
    set: Settings = (),
    all: Annotated[
        bool, Parameter(help="Find every form that has a problem, not only the first.", negative="")
    ] = False,
    work: Work = HERE,
    timeout: Timeout = 0.0,
    asm: witnesses.Asm = False,
    confirm: witnesses.Confirm = False,
    json: AsJson = False,
) -> int:
    """Ask which of the eight problems of ring deprivileging (Uhlig et al. 2005) a technique has, with witnesses.

    Args:
        machine: a name that `popek machines` lists, or a Python file that declares one.
        names: problems, such as `ring-aliasing`; all eight by default.
    """
    from popek.machines import assisted
    from popek.report import problems as report
    from popek_proofs.eight_problems import problems as eight_problems
    from popek_proofs.eight_problems.search import Asking

    if assisted(machine, technique) != machine:
        raise UserError(
            f"{technique} leaves the levels alone; what it makes of the problems: popek assist gain"
        )
    subject = subject_of(machine, technique, set, timeout=timeout)
    known = subject.machine
    asking = Asking(subject, tuple(known.instructions.values()))
    with known_names():
        chosen = eight_problems.find(names)
    witnesses.assert_possible(machine, asm, confirm)
    with work.begun(), progress("asking") as show:
        found = eight_problems.ask(chosen, asking, every=all, jobs=work.jobs, progress=show)
    emulated = witnesses.asked(
        known, f"{known.name} under {subject.technique.name}", report.named(found), asm, confirm
    )
    if json:
        answer = report.to_json(found, asking)
        if emulated:
            answer["emulated"] = [one.to_json() for one in emulated]
        print_json(answer)
    elif not (asm and not isinstance(asm, Path)):
        console().print(report.problems(found, asking))
        witnesses.print_confirmations(emulated)
    if any(one.differs for one in emulated):
        return UNEXPECTED
    return UNKNOWN if any(one.unknown for one in found) else 0
