"""Over what a verdict is given, in words and in JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from popek.kernel.scope import Scope

MANY_NAMES = 12


def scope_json(scope: Scope) -> dict[str, object]:
    """Over what a verdict is given."""
    return {
        "forms": scope.forms,
        "architecture": scope.architecture or None,
        "left_out": list(scope.left_out),
        "partly": list(scope.partly),
        "source": scope.source or None,
        "left_open": [one.to_json() for one in scope.left_open],
    }


def scope_line(scope: Scope) -> str:
    """Over what a verdict is given."""
    if not scope.listed:
        return f"over {_counted(scope.forms)}{_left_open(scope)}"
    told = f"over {_counted(scope.forms)} of {scope.architecture}"
    left, partly = _first_of(scope.left_out), len(scope.partly)
    return (
        told
        + (f"; left out: {left}" if left else "; none left out")
        + (f"; {partly} in part" if partly else "")
        + _left_open(scope)
    )


def _left_open(scope: Scope) -> str:
    """How much of what the architecture leaves open is any value, set, or taken one way."""
    counted = Counter(one.how.partition(" ")[0] for one in scope.left_open)
    parts = [
        f"{counted[how]} {told}"
        for how, told in (("any", "for any value"), ("as", "as set"), ("taken:", "taken one way"))
        if counted[how]
    ]
    return f"; left open by the architecture: {', '.join(parts)}" if parts else ""


def _first_of(names: Sequence[str]) -> str:
    more = len(names) - MANY_NAMES
    return ", ".join(names[:MANY_NAMES]) + (f" and {more} more" if more > 0 else "")


def _counted(forms: int) -> str:
    return f"{forms} modelled form{'' if forms == 1 else 's'}"
