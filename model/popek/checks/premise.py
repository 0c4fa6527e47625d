"""The names of the theorems' premises, what each says, and which theorem needs which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Generic, TypeVar

import attrs

from popek.kernel.state import State

from .certification import Certifier
from .ladder import NOT_FOUND, REPLAYED, LadderStep
from .verdict import Evidence, Status, Truth

S = TypeVar("S", bound=State)

A0, A1, A1S, A2 = "A0_image", "A1_fidelity", "A1s_model_speaks", "A2_fetch"
A3_NEXT, A3_TRAP, A4 = "A3_closure_next", "A3_closure_trap", "A4_entry_tells_apart"
A5, A5_VECTOR = "A5_control", "A5_vector"
A6_TELLS, A6_NOTICED = "A6_interrupt_tells_apart", "A6_interrupt_noticed"
A6_CLOSURE, A7 = "A6_interrupt_closure", "A7_nesting"
A8, A9, A10 = "A8_efficiency", "A9_no_clock", "A10_hybrid"
A9_TRAP, A9_GUESTS, A9_MAP = "A9_no_clock_trap", "A9_guests", "A9_map"
A4_IMAGE = "A4_image_tells"  # the half of A4 that is asked once
A9_FETCH = "A9_fetch"

TITLES: Final[Mapping[str, str]] = {
    A0: "the image of a guest is a deprivileged state of the hardware",
    A1: "what completes on f(S) completes on S, and ends in the image of that",
    A1S: "where it completes, the model says what it does",
    A2: "what is fetched from f(S) is what is fetched from S",
    A9_FETCH: "what is fetched does not depend on a clock",
    A3_NEXT: "a guest that completes an instruction is a guest still",
    A3_TRAP: "a guest that takes a trap is a guest still",
    A4: "where the hardware stops it can be told how the guest goes on",
    A5: "what the control program owns follows from what it keeps and notes, and nothing changes it",
    A5_VECTOR: "where an entry is, is the control program's alone to say",
    A6_TELLS: "an interrupt finds the guest, whenever the control program wants it",
    A6_NOTICED: "a guest that held an interrupt off does not begin to take it unnoticed",
    A6_CLOSURE: "a guest that is given an interrupt is a guest still",
    A7: "the image of a guest is a guest",
    A8: "what completes on S completes on f(S)",
    A9: "no clock is read",
    A9_TRAP: "nor by what a trap makes of a guest",
    A9_GUESTS: "what is a guest does not depend on a clock",
    A9_MAP: "nor do its image and what is noted of it",
    A10: "as A1, where S is in user mode",
}
THEOREM1: Final = (A0, A1, A1S, A4, A5, A5_VECTOR)
THEOREM2: Final = (A1, A1S, A3_NEXT, A3_TRAP, A4, A7, A9, A9_TRAP, A9_GUESTS, A9_MAP)
THEOREM3: Final = (A0, A10, A1S, A4, A5, A5_VECTOR)
INTERRUPTS: Final = (A6_TELLS, A6_NOTICED)  # what a theorem needs besides, where interrupts come
CLOSURE: Final = (A3_NEXT, A3_TRAP)
TAKEN_FOR_GRANTED: Final = (A2, A9_FETCH)
OF_THE_WHOLE: Final = (
    A0,
    A2,
    A4,
    A5,
    A5_VECTOR,
    *INTERRUPTS,
    A6_CLOSURE,
    A7,
    A9_GUESTS,
    A9_MAP,
    A9_FETCH,
)  # asked once
# The hypothesis of a theorem for which a premise is asked, where that has another name.
PART_OF: Final[Mapping[str, Mapping[str, str]]] = {
    "theorem2": {A3_NEXT: "A3_closure", A3_TRAP: "A3_closure", A4: A4_IMAGE}
}


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

    def certified(self, certifier: Certifier) -> Premise[S]:
        """The same, with a certificate.

        Raises:
            SolversDisagreeError: a solver finds an assignment, or a proof is not accepted.
        """
        if self.evidence is None:
            return self
        return attrs.evolve(self, evidence=self.evidence.certified(certifier))

    def steps(self, *, confirm: bool = False) -> tuple[LadderStep, ...]:
        """How far its evidence goes; none where nothing was asked.

        Args:
            confirm: ask a second solver, where that was not done.
        """
        if self.evidence is None:
            return ()
        return self.evidence.steps(confirm=confirm)

    def to_json(self, *, witness: bool = True) -> dict[str, object]:
        """By name and form."""
        return {
            "id": self.name,
            "form": self.form or None,
            "verdict": Status.of(self.truth).value,
            "how": self.how or None,
            "evidence": self._evidence_json(witness=witness),
            "witness": self.witness if witness and self.truth is Truth.NO else None,
        }

    def _evidence_json(self, *, witness: bool) -> dict[str, object] | None:
        if self.evidence is None:
            return None
        told = self.evidence.to_json()
        if witness and self.evidence.found:
            replayed = REPLAYED if self.witness is not None else NOT_FOUND
            told["ladder"] = [step.to_json() for step in (replayed, *self.steps())]
        return told


def holds_all(premises: Sequence[Premise[Any]], names: Sequence[str]) -> Truth:
    """Whether the premises of these names hold, of those that were asked."""
    answers = [p.truth for p in premises if p.name in names and p.truth is not Truth.NOT_ASKED]
    if Truth.NO in answers:
        return Truth.NO
    return Truth.UNKNOWN if Truth.UNKNOWN in answers else Truth.YES
