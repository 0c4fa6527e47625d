"""Long lists of names as short text."""

from __future__ import annotations

from collections.abc import Iterable


def shortened(names: Iterable[str]) -> str:
    """Leaf names, those of one component together: `cr0.pe .em, gdtr.base`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        component, dot, leaf = name.partition(".")
        groups.setdefault(component, []).append(dot + leaf)
    return ", ".join(component + " ".join(leaves) for component, leaves in groups.items())


__all__ = ["shortened"]
