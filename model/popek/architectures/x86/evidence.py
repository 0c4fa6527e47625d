"""Checks of a guest's entry that fail, and evidence of an emulator's deviations as changes of a baseline."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


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


@attrs.frozen
class ListedDeviation:
    """One way in which an emulator departs from the manual, and what shows it.

    Attributes:
        id: short name.
        rows: ids of the checks that it touches.
        effect: what becomes of these checks.
        models: where it applies.
        what: one or two sentences.
        mode: guest mode of the baseline that the evidence changes.
        fields: what the evidence changes: a value, or ``+`` or ``-`` and bits to set or clear.
    """

    id: str
    rows: tuple[str, ...]
    effect: str
    models: str
    what: str
    mode: str
    fields: Mapping[str, str]

    def changed(self, baseline: Mapping[str, int]) -> dict[str, int]:
        """The fields of the evidence, on top of a baseline."""
        return changed(self.fields, baseline)


@attrs.frozen
class FailedCheck:
    """A check that fails.

    Attributes:
        id: of the check.
        fields: the values that make it fail, by name.
        message: what is wrong.
        section: where the manual has the check.
    """

    id: str
    fields: Mapping[str, int]
    message: str
    section: str
