"""`popek machines`: what there is, what is in one of them, and whether one can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .errors import UserError
from .options import AsJson
from .output import console, print_json, working

if TYPE_CHECKING:
    from popek.kernel.machine import Machine

LAW_BROKEN, BAD_MODEL = 1, 2


def machines(
    *names: str,
    check: Annotated[
        bool,
        Parameter(negative="", help="Try each: its declaration, the law on every form, what looks odd."),
    ] = False,
    json: AsJson = False,
) -> int:
    """List the machines, or show some: state, instructions, techniques, settings, what is left out.

    Parameters
    ----------
    names
        Machines, or Python files that declare one.
    """
    from popek.kernel.machine import UnknownNameError
    from popek.machines import MachineFileError, machine, makers

    try:
        known = [machine(name, checked=not check) for name in names or makers()]
    except (UnknownNameError, MachineFileError) as error:
        raise UserError(str(error)) from None
    if check:
        if not names:
            raise UserError("--check: expected the machines to try, by name or file")
        return _tried(known, json)
    if json:
        print_json({"schema": "popek/machines/1", "machines": [machine_json(m) for m in known]})
        return 0
    from popek.report import machines as report

    if names:
        for one in known:
            console().print(report.machine(one))
    else:
        console().print(report.machines(known))
    return 0


def _tried(known: list[Machine[Any]], json: bool) -> int:
    """Everything that is wrong or odd with each machine; 2 for a mistake, 1 where the law is broken."""
    from popek.checks.subject import Subject
    from popek.checks.trial import STATES, tried
    from popek.checks.trial_finding import TrialKind
    from popek.kernel.declaration import mistakes
    from popek.report import machines as report

    found = {}
    with working("trying"):
        for one in known:
            told = (
                []
                if one.techniques
                else [f"{one.name}: no technique is declared, so nothing can be virtualized"]
            )
            wrong = [*told, *mistakes(one)]
            found[one.name] = wrong, [] if wrong else list(tried(Subject.of(one)))
    if json:
        print_json(
            {
                "schema": "popek/trial/1",
                "machines": {
                    name: {
                        "states_per_form": STATES,
                        "findings": [
                            *({"kind": TrialKind.MISTAKE.value, "form": "", "text": text} for text in wrong),
                            *(finding.to_json() for finding in findings),
                        ],
                    }
                    for name, (wrong, findings) in found.items()
                },
            }
        )
    else:
        for one in known:
            console().print(report.trial(one, *found[one.name]))
    kinds = {finding.kind for _, findings in found.values() for finding in findings}
    if TrialKind.MISTAKE in kinds or any(wrong for wrong, _ in found.values()):
        return BAD_MODEL
    return LAW_BROKEN if TrialKind.LAW in kinds else 0


def machine_json(machine: Machine[Any]) -> dict[str, object]:
    """An entry of `popek/machines/1`."""
    return {
        "name": machine.name,
        "title": machine.title,
        "source": machine.source,
        "instructions": len({i.mnemonic for i in machine.instructions.values()}),
        "forms": list(machine.instructions),
        "techniques": {t.name: t.title for t in machine.techniques.values()},
        "settings": {
            setting.name: {
                "summary": setting.summary,
                "values": list(setting.values),
                "default": setting.default,
            }
            for setting in machine.settings
        },
        "left_open": [one.to_json() for one in machine.left_open],
        "not_modelled": list(machine.notes),
    }
