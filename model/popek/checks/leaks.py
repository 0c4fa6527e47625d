"""What leaks through an instruction into what: plain data, for figures."""

from __future__ import annotations

from typing import Any

import attrs

from .classification import Classification
from .verdict import Truth


@attrs.frozen
class Leaks:
    """What one form shows and changes.

    Attributes:
        critical, privileged: its classes.
        leaking: per class that it is in, the leaves that were found to leak, varied alone.
        shown: per class, what differs in the witness, or the mode and resource leaves that a run can change.
    """

    form: str
    summary: str
    critical: Truth
    privileged: Truth
    leaking: tuple[tuple[str, ...], ...]
    shown: tuple[tuple[str, ...], ...]


def leaks_of(classified: Classification[Any]) -> Leaks:
    """What leaks through a form; witnesses are found where nobody has asked for them yet."""
    leaking: list[tuple[str, ...]] = []
    shown: list[tuple[str, ...]] = []
    for name, finding in classified.findings.items():
        if name.startswith("user_") or finding.truth is not Truth.YES:
            continue
        if name == "control_sensitive":
            leaking.append(())
            shown.append(finding.components)
            continue
        witness = finding.witness
        leaking.append(finding.components)
        shown.append(() if witness is None else tuple(d.name for d in witness.differ))
    instruction = classified.instruction
    return Leaks(
        instruction.form,
        instruction.summary,
        classified.critical,
        classified.privileged,
        tuple(leaking),
        tuple(shown),
    )
