"""Forms of which the classes of 1974 say one thing and the theorem's premise another."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import attrs


@attrs.frozen(eq=False, slots=False)
class Disagreement:
    """A form on which the classes of 1974 and A1 part.

    Attributes:
        how: in what way.
    """

    form: str
    how: str
    _make_witness: Callable[[], dict[str, Any] | None]

    @cached_property
    def witness(self) -> dict[str, Any] | None:
        """Of the class, or against A1, minimal and replayed; None where a time limit was in the way.

        Raises:
            ReplayError: a defect of popek.
        """
        return self._make_witness()

    def to_json(self) -> dict[str, object]:
        """The form, how, and the witness."""
        return {"form": self.form, "how": self.how, "witness": self.witness}
