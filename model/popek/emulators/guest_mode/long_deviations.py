"""Where Bochs deviates from the manual in SVM's guest mode of a 64-bit guest.

The list with its evidence is ``popek_specs/svm/bochs-guest-deviations.toml``; here is, for each entry, how to
recognise a difference that it explains, as narrowly as the case shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from popek.architectures.svm.operation.state import SvmX64
from popek.emulators.guests.long_expectation import LongPrediction

from .harness import SvmGuestResult
from .long_cases import SvmLongCase


@attrs.frozen
class SvmLongFound:
    """A difference, as the recognisers see it.

    Attributes:
        case, state: what was run, and from what state.
        predicted: what the model says.
        result: what Bochs did.
        seen, vector: how the step ended there.
        differing: the names of what differs, or ``outcome``.
    """

    case: SvmLongCase
    state: SvmX64
    predicted: LongPrediction
    result: SvmGuestResult
    seen: str
    vector: int | None
    differing: frozenset[str]


_RECOGNISED: Final[Mapping[str, Callable[[SvmLongFound], bool]]] = {}


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


def explain(found: SvmLongFound) -> str | None:
    """The name of the entry that explains a difference, if one does."""
    return next((name for name, applies in _RECOGNISED.items() if applies(found)), None)
