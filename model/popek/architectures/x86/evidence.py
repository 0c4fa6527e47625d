"""Evidence of an emulator's deviations, as changes of the fields of a baseline."""

from __future__ import annotations

from collections.abc import Mapping


def changed(fields: Mapping[str, str], baseline: Mapping[str, int]) -> dict[str, int]:
    """The fields that evidence changes, as they are then.

    Args:
        fields: by name: a value in hexadecimal, or ``+`` or ``-`` and bits to set or clear.
        baseline: what they were.
    """
    found: dict[str, int] = {}
    for name, text in fields.items():
        number = int(text.lstrip("+-"), 16)
        if text.startswith("+"):
            number |= baseline[name]
        elif text.startswith("-"):
            number = baseline[name] & ~number
        found[name] = number
    return found
