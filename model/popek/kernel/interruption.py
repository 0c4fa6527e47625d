"""How the bare machine takes an interrupt between two instructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs

from .state import State
from .words import TRUE, Word

S = TypeVar("S", bound=State)

Given = Mapping[str, Word]


@attrs.frozen(eq=False)
class Interruption(Generic[S]):
    """One kind of interrupt: a device asks, or something in the state does, and the processor takes it or holds it off.

    Attributes:
        name: the manual's.
        takes: `takes(state, given)` says that the processor takes it before the next instruction (width 1): it asks,
            and nothing holds it off.
        enter: `enter(state, given)` is the state after it was taken.  It may raise what semantics raise.
        given: what the device supplies, a width per name.
        may: `may(given)` says what a device can supply (width 1).
        source: document and section.
    """

    name: str
    takes: Callable[[S, Given], Word]
    enter: Callable[[S, Given], S]
    given: Mapping[str, int] = attrs.field(factory=dict)
    may: Callable[[Given], Word] = lambda given: TRUE
    source: str = ""
