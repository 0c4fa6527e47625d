"""The names of the theorems' premises, what each says, and which theorem needs which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Generic, TypeVar

import attrs

from popek.kernel.state import State

from .verdict import Evidence, Status, Truth

S = TypeVar("S", bound=State)

A0, A1, A1S, A2 = "A0_image", "A1_fidelity", "A1s_model_speaks", "A2_fetch"
A3_NEXT, A3_TRAP, A4 = "A3_closure_next", "A3_closure_trap", "A4_entry_tells_apart"
A5, A5_VECTOR = "A5_control", "A5_vector"
A6_TELLS, A6_CLOSURE, A7 = "A6_interrupt_tells", "A6_interrupt_closure", "A7_nesting"
A8, A9, A10 = "A8_efficiency", "A9_no_clock", "A10_hybrid"

TITLES: Final[Mapping[str, str]] = {
    A0: "the image of a guest is a deprivileged state of the hardware",
    A1: "what completes on f(S) completes on S, and ends in the image of that",
    A1S: "where it completes, the model says what it does",
    A2: "what is fetched from f(S) is what is fetched from S",
    A3_NEXT: "a guest that completes an instruction is a guest still",
    A3_TRAP: "a guest that takes a trap is a guest still",
    A4: "where the hardware stops it can be told which guest it was",
    A5: "what the control program owns follows from what it keeps and notes, and nothing changes it",
    A5_VECTOR: "where an entry is, is the control program's alone to say",
    A6_TELLS: "an interrupt finds the guest, whenever the control program wants it",
    A6_CLOSURE: "a guest that is given an interrupt is a guest still, and none is let through unnoticed",
    A7: "the image of a guest is a guest",
    A8: "what completes on S completes on f(S)",
    A9: "no clock is read",
    A10: "as A1, where S is in user mode",
}
THEOREM1: Final = (A0, A1, A1S, A4, A5, A5_VECTOR)
THEOREM2: Final = (*THEOREM1, A7, A9)
THEOREM3: Final = (A0, A10, A1S, A4, A5, A5_VECTOR)
INTERRUPTS: Final = (A6_TELLS, A6_CLOSURE)
CLOSURE: Final = (A3_NEXT, A3_TRAP)
TAKEN_FOR_GRANTED: Final = (A2,)


@attrs.frozen(eq=False, slots=False)
class Premise(Generic[S]):
    """One premise, of one form or (`form` empty) of the machine.

    Attributes:
        truth: whether it holds.
        how: in what way it fails, or why it was not asked.
        evidence: what was asked and answered; None where nothing was.
    """

    name: str
    form: str
    truth: Truth
    how: str = ""
    evidence: Evidence | None = None
    _make_witness: Callable[[], dict[str, Any] | None] | None = None

    @cached_property
    def witness(self) -> dict[str, Any] | None:
        """What refutes it, minimal and replayed; None too where a time limit was in the way.

        Raises:
            ReplayError: a defect of popek.
        """
        return None if self._make_witness is None else self._make_witness()

    def to_json(self, *, witness: bool = True) -> dict[str, object]:
        """By name and form."""
        return {
            "id": self.name,
            "form": self.form or None,
            "verdict": Status.of(self.truth).value,
            "how": self.how or None,
            "evidence": None if self.evidence is None else self.evidence.to_json(),
            "witness": self.witness if witness and self.truth is Truth.NO else None,
        }


def holds_all(premises: Sequence[Premise[Any]], names: Sequence[str]) -> Truth:
    """Whether the premises of these names hold, of those that were asked."""
    answers = [p.truth for p in premises if p.name in names and p.truth is not Truth.NOT_ASKED]
    if Truth.NO in answers:
        return Truth.NO
    return Truth.UNKNOWN if Truth.UNKNOWN in answers else Truth.YES
