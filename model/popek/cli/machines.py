"""`popek machines`: what there is to ask about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .options import AsJson
from .output import console, print_json
from .resolving import known_names

if TYPE_CHECKING:
    from popek.kernel.machine import Machine


def machines(*names: str, json: AsJson = False) -> int:
    """List the machines, their techniques and their settings; or tell all about some.

    Args:
        names: machines to tell about: instructions, settings, what the architecture leaves open, what is left out.
    """
    from popek.machines import machine as find_machine
    from popek.machines import makers

    with known_names():
        known = [find_machine(name) for name in names] or [make() for make in makers().values()]
    if json:
        print_json({"schema": "popek/machines/1", "machines": [_machine_json(m) for m in known]})
        return 0
    from popek.report import classification as report

    for one in known if names else ():
        console().print(report.machine(one))
    if not names:
        console().print(report.machines(known))
    return 0


def _machine_json(machine: Machine[Any]) -> dict[str, object]:
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
