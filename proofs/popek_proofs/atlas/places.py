"""What the atlas has a row for: machine × technique × configuration.

Machines and techniques come from the registry, so that a new one appears by itself; the configurations that are
worth a row besides a machine's defaults are facts, in `popek_specs/atlas.toml`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import attrs
import cattrs

from popek.kernel.configuration import Configuration, configure
from popek.kernel.machine import Machine
from popek.machines import MachineFileError, makers
from popek.machines import machine as find_machine

AS_IT_COMES = "default settings"


@attrs.frozen
class AtlasPlace:
    """A row of the atlas.

    Attributes:
        machine: how `popek.machines.machine` finds it: a name or the path of a Python file.
        name, title: of the machine.
        technique, technique_title: of the technique.
        settings: those that differ from the machine's defaults.
        configuration: every setting that is fixed.
        label: the configuration in a few words.
        note: why it is worth a row.
        source: who says so.
    """

    machine: str
    name: str
    title: str
    technique: str
    technique_title: str
    settings: Mapping[str, int]
    configuration: Mapping[str, int]
    label: str = AS_IT_COMES
    note: str = ""
    source: str = ""

    @property
    def id(self) -> str:
        """Stable, and fit for the address of a page."""
        settings = "-".join(f"{name}-{value}" for name, value in self.settings.items())
        return ".".join(slug(part) for part in (self.name, self.technique, settings or "default"))

    def as_configuration(self) -> Configuration:
        """The settings of the questions."""
        return Configuration(dict(self.configuration))


def slug(text: str) -> str:
    """Lower-case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@attrs.frozen
class Variant:
    """An entry of `atlas.toml`.

    Attributes:
        machine: by name; entries of machines that are not there are left aside.
        title: the configuration in a few words.
        settings: a number per setting that differs from the default.
        source: document and section that make it worth a row.
        techniques: those it is worth a row under; all by default.
        note: for people.
    """

    machine: str
    title: str
    settings: Mapping[str, int]
    source: str
    techniques: tuple[str, ...] = ()
    note: str = ""


_CONVERTER = cattrs.Converter(forbid_extra_keys=True)


def variants() -> tuple[Variant, ...]:
    """The configurations of `popek_specs/atlas.toml`."""
    text = resources.files("popek_specs").joinpath("atlas.toml").read_text(encoding="utf-8")
    return tuple(_CONVERTER.structure(row, Variant) for row in tomllib.loads(text)["configurations"])


def places(machines: Sequence[str] = (), techniques: Sequence[str] = ()) -> list[AtlasPlace]:
    """The rows of these machines under these techniques; of all by default.

    Args:
        machines: names, or paths of Python files.
        techniques: names; machines that have none of them are left out.

    Raises:
        UnknownNameError: no such machine, or none of the machines has such a technique; with near matches.
        MachineFileError: a Python file does not declare a machine, or one with a name that is taken.
        SettingError: a configuration of the atlas does not fit its machine: a defect of popek.
    """
    known = {name: find_machine(name) for name in (dict.fromkeys(machines) or makers())}
    if techniques:
        _assert_known(techniques, known.values())
    named: dict[str, str] = {}
    for how, machine in known.items():
        if named.setdefault(machine.name, how) != how:
            raise MachineFileError(
                f"{how}: {machine.name} is the name of a machine of {named[machine.name]}, too"
            )
    configurations = variants()
    found = []
    for how, machine in known.items():
        for name in machine.techniques:
            if not techniques or name in techniques:
                own = [
                    v
                    for v in configurations
                    if v.machine == machine.name and name in (v.techniques or [name])
                ]
                found += [_place(how, machine, name), *(_place(how, machine, name, v) for v in own)]
    return found


def _assert_known(techniques: Iterable[str], machines: Iterable[Machine[Any]]) -> None:
    from popek.kernel.machine import UnknownNameError

    known = dict.fromkeys(name for machine in machines for name in machine.techniques)
    for name in techniques:
        if name not in known:
            raise UnknownNameError("technique", name, known)


def _place(how: str, machine: Machine[Any], technique: str, variant: Variant | None = None) -> AtlasPlace:
    settings = {} if variant is None else variant.settings
    configuration = configure(machine, [f"{name}={value}" for name, value in settings.items()])
    plain = AtlasPlace(
        how,
        machine.name,
        machine.title,
        technique,
        machine.techniques[technique].title,
        dict(settings),
        dict(configuration.settings),
    )
    if variant is None:
        return plain
    return attrs.evolve(plain, label=variant.title, note=variant.note, source=variant.source)
