"""The instruction lists of the architectures, from `popek_specs`, as the machines carry them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import attrs

from popek.kernel.scope import Architecture, Listed
from popek_specs.instructions import table


@attrs.frozen
class _Group:
    instructions: list[str]
    why: str


@attrs.frozen
class _Section:
    title: str
    modelled: list[str] = attrs.field(factory=list)
    partly: list[_Group] = attrs.field(factory=list)
    called: dict[str, list[str]] = attrs.field(factory=dict)
    left_out: list[_Group] = attrs.field(factory=list)


@attrs.frozen
class _File:
    architecture: str
    source: str
    section: list[_Section]


def listing(architecture: str, name: str = "instructions") -> Callable[[], Architecture]:
    """Reads `popek_specs/<architecture>/<name>.toml` when it is called, once."""
    return functools.partial(_read, architecture, name)


@functools.cache
def _read(architecture: str, name: str) -> Architecture:
    import cattrs  # not needed to make a machine

    file = cattrs.Converter(forbid_extra_keys=True).structure(table(architecture, name), _File)
    listed: list[Listed] = []
    for section in file.section:
        lacking = {name: group.why for group in section.partly for name in group.instructions}
        for name in (*section.modelled, *lacking):
            ours = tuple(section.called.get(name, (name,)))
            listed.append(Listed(name, section.title, ours, lacking.get(name, "")))
        for group in section.left_out:
            listed.extend(Listed(one, section.title, why=group.why) for one in group.instructions)
    return Architecture(file.architecture, file.source, tuple(listed))
