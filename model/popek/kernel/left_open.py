"""What an architecture leaves to the processor or to what surrounds it, and what a verdict makes of it.

A manual leaves flags undefined, results unpredictable, fields to the implementation.  No emulator's habit decides
such a place: a machine declares it, and a verdict is given for any value, or for the settings that fix it; or the
model takes one of the behaviours that the manual admits, and says which.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import attrs


@attrs.frozen
class LeftOpen:
    """Something that is left open.

    Exactly one of `values`, `settings` and `taken` is given.

    Attributes:
        what: in the manual's words.
        source: the manual's place.
        values: what stands for it and may have any value: names of `State.undefined` (`*` for any text), leaves or
            components.
        settings: names of the settings that fix it; one that is left open with `?` may have any value.
        taken: the one behaviour that the model takes.
        unsure: why the place may be another, or say something else; empty where it was read.
    """

    what: str
    source: str
    values: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    taken: str = ""
    unsure: str = ""

    def __attrs_post_init__(self) -> None:
        if [bool(self.values), bool(self.settings), bool(self.taken)].count(True) != 1:
            raise ValueError(f"{self.what}: expected values, settings or what is taken, one of the three")

    @property
    def how(self) -> str:
        """What a verdict makes of it."""
        if self.settings:
            return f"as set by {', '.join(self.settings)}"
        return f"taken: {self.taken}" if self.taken else "any value"

    @property
    def place(self) -> str:
        """The manual's place, and whether it was read."""
        return f"{self.source} (unsure: {self.unsure})" if self.unsure else self.source

    def to_json(self) -> dict[str, object]:
        """As `popek machines` and the scope of a verdict tell it."""
        return {
            "what": self.what,
            "source": self.source,
            "unsure": self.unsure or None,
            "how": "settings" if self.settings else "taken" if self.taken else "any",
            "settings": list(self.settings),
            "taken": self.taken or None,
        }


def assert_declared(what: str, declared: Iterable[LeftOpen]) -> None:
    """Refuse a place that semantics leave open and the machine does not declare.

    Raises:
        DeclarationError: it does not.
    """
    if not any(fnmatchcase(what, name) for one in declared for name in one.values):
        from .outcome import DeclarationError  # which knows states

        raise DeclarationError(
            f"undefined({what!r}): expected one of the machine's left_open with this among its values"
        )
