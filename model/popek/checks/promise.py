"""The answer to whether promises are kept: data, with witnesses that are found when asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.state import State

from .counterexample import (
    Counterexample,
)
from .verdict import Evidence, Status, Truth

S = TypeVar("S", bound=State)


@attrs.frozen(eq=False, slots=False)
class Promise(Generic[S]):
    """Whether one promise is kept.

    Attributes:
        status: holds, refuted or unknown.
        evidence: what was asked and answered.
        how: where it is refuted, the way in which it is broken.
    """

    status: Status
    evidence: Evidence
    how: str = ""
    _make_witness: Callable[[], Counterexample[S] | None] | None = None

    @cached_property
    def witness(self) -> Counterexample[S] | None:
        """The counterexample, where it is refuted: found, made minimal and replayed when asked for.

        None too where a time limit was in the way.

        Raises:
            ReplayError: a defect of popek.
        """
        return None if self._make_witness is None else self._make_witness()

    @property
    def kept(self) -> Truth:
        """As an answer to "is it kept?"."""
        return {Status.HOLDS: Truth.YES, Status.REFUTED: Truth.NO, Status.UNKNOWN: Truth.UNKNOWN}[self.status]


@attrs.frozen(eq=False)
class Promises(Generic[S]):
    """The promises about one instruction form.

    Attributes:
        instruction: the form.
        fidelity, safety: kept or not.
        needless_trap: it can complete natively and trap on the hardware.
        needless: what was asked and answered about that.
    """

    instruction: Instruction
    fidelity: Promise[S]
    safety: Promise[S]
    needless_trap: Truth
    needless: Evidence

    @property
    def asked(self) -> dict[str, Evidence]:
        """What was asked and answered, by promise."""
        found = {"fidelity": self.fidelity.evidence, "safety": self.safety.evidence}
        return {**found, "needless_trap": self.needless}
