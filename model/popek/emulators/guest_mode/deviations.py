"""Where Bochs deviates from the manual in SVM's guest mode.

The list with its evidence is ``popek_specs/svm/bochs-guest-deviations.toml``; here is, for each entry, how to
recognise a difference that it explains, as narrowly as the case shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from popek.architectures.svm.operation.state import SvmIa32
from popek.emulators.x86.deviations import Deviation, listed
from popek.emulators.x86.expectation import Expectation

from .cases import Case
from .harness import GuestResult


@attrs.frozen
class Found:
    """A difference, as the recognisers see it.

    Attributes:
        case, state: what was run, and from what state.
        kind: what the model says: ``exit``, ``next`` or ``trap``.
        information: the exit information that the model expects, by its names.
        expected: the rest of what it expects.
        result: what Bochs did.
        seen, vector: how the step ended there, as `kind`, and the exception that the guest took.
        differing: the names of what differs, or ``outcome``.
    """

    case: Case
    state: SvmIa32
    kind: str
    information: Mapping[str, int]
    expected: Expectation
    result: GuestResult
    seen: str
    vector: int | None
    differing: frozenset[str]

    @property
    def code(self) -> int | None:
        """The exit code that the model expects."""
        return self.information.get("exit_code")


_RECOGNISED: Final[Mapping[str, Callable[[Found], bool]]] = {}


def deviations() -> Mapping[str, Deviation]:
    """The list, by name."""
    return listed("popek_specs.svm", "bochs-guest-deviations.toml")


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


def explain(found: Found) -> str | None:
    """The name of the entry that explains a difference, if one does."""
    return next((name for name, applies in _RECOGNISED.items() if applies(found)), None)
