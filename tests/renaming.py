"""A machine under other names: every component and leaf gets one that says nothing.

Storage and the program counter keep theirs, and all keep their roles, widths and order.  The semantics go on to use
the old names, which reach the same places; whoever asks about the machine sees the new ones alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.state import Leaf, Role, Slot, State
from popek.kernel.technique import Technique
from popek.kernel.words import Word

KEPT = (Role.MEMORY, Role.PC)


def new_names(state: type[State]) -> dict[str, str]:
    """A new name for every component and leaf."""
    names: dict[str, str] = {}
    for number, slot in enumerate(state.layout):
        component = slot.name if slot.role in KEPT else f"part{number}"
        names[slot.name] = component
        for place, leaf in enumerate(state.leaves_of[slot.name]):
            if leaf.name != slot.name:
                names[leaf.name] = f"{component}.piece{place}"
    return names


def renamed(machine: Machine[Any]) -> tuple[Machine[Any], dict[str, str]]:
    """The machine under other names, and those names by the old ones."""
    names = new_names(machine.state)

    def names_of(old: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names[name] for name in old)

    def technique(old: Technique[Any]) -> Technique[Any]:
        without = old.without
        return attrs.evolve(
            old,
            owned=names_of(old.owned),
            replaced=names_of(old.replaced),
            shadowed=names_of(old.shadowed),
            shadowed_when=dict(
                zip(names_of(tuple(old.shadowed_when)), old.shadowed_when.values(), strict=True)
            ),
            guests_own=names_of(old.guests_own),
            delivered=names_of(old.delivered),
            uncompared=None if old.uncompared is None else names_of(old.uncompared),
            without=None if without is None else lambda dropped: technique(without(dropped)),
        )

    reloading = machine.practice.reloading
    if reloading is not None:
        reloading = attrs.evolve(reloading, shown=names[reloading.shown])
    return attrs.evolve(
        machine,
        state=_state(machine.state, names),
        settings=tuple(
            attrs.evolve(
                setting,
                leaf=None if setting.leaf is None else names[setting.leaf],
                concerns=names_of(setting.concerns),
            )
            for setting in machine.settings
        ),
        interrupt_masks=names_of(machine.interrupt_masks),
        techniques={name: technique(old) for name, old in machine.techniques.items()},
        practice=attrs.evolve(machine.practice, reloading=reloading),
        instructions=dict(machine.instructions),
    ), names


def _state(old: type[State], names: Mapping[str, str]) -> type[State]:
    def _new(cls: type[State], words: dict[str, Word], memories: dict[str, Memory]) -> Any:
        return old._new.__func__(cls, _Places(words, names), _Memories(memories, names))  # type: ignore[attr-defined]

    made = type(old.__name__, (old,), {"_new": classmethod(_new)})

    def leaf(known: Leaf) -> Leaf:
        return attrs.evolve(known, name=names[known.name], component=names[known.component])

    def slot(known: Slot) -> Slot:
        own = len(known.name) + 1
        called = {f.name[own:]: names[f.name].partition(".")[2] for f in old.leaves_of[known.name]}
        fields = tuple((called[name], *rest) for name, *rest in known.fields)
        return attrs.evolve(known, name=names[known.name], fields=fields)

    leaves_of = {names[c]: tuple(map(leaf, leaves)) for c, leaves in old.leaves_of.items()}
    made._arrange(map(slot, old.layout), leaves_of)
    aliases = {known.name: made._leaf_named[names[known.name]] for known in old.leaves}
    made._leaf_named = {**made._leaf_named, **aliases}
    return made


class _Places(dict[str, Any]):
    """What is stored, under new names; the old ones lead there."""

    def __init__(self, contents: Mapping[str, Any], names: Mapping[str, str]) -> None:
        super().__init__({names.get(name, name): value for name, value in contents.items()})
        self._names = names

    def __missing__(self, name: str) -> Any:
        new = self._names[name]
        if new == name:
            raise KeyError(name)
        return self[new]

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(self._names.get(name, name), value)

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(self._names.get(name, name), default)


class _Memories(_Places):
    """Likewise; a technique may ask whether an old name is a memory."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(self._names.get(str(name), name))
