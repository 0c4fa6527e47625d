"""The classes of a form: data, with witnesses that are found when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.state import State

from .counterexample import (
    Counterexample,
)
from .verdict import Evidence, Truth, any_asked, both, negate

S = TypeVar("S", bound=State)


@attrs.frozen(eq=False, slots=False)
class Finding(Generic[S]):
    """The answer to one question.

    Attributes:
        truth: yes where the question is satisfiable.
        evidence: what was asked and answered; None where nothing was.
        components: the leaves that leak or change, where it is yes.
        undecided: leaves of which a short search could not tell.
        why: why it was not asked.
    """

    truth: Truth
    evidence: Evidence | None
    components: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    why: str = ""
    _make_witness: Callable[[], Counterexample[S] | None] | None = None

    @cached_property
    def witness(self) -> Counterexample[S] | None:
        """The counterexample, where the answer is yes: found, made minimal and replayed when asked for.

        None too where a time limit was in the way.

        Raises:
            ReplayError: a defect of popek.
        """
        return None if self._make_witness is None else self._make_witness()


@attrs.frozen(eq=False)
class Classification(Generic[S]):
    """The classes of one instruction form.

    Attributes:
        instruction: the form.
        findings: an answer per class name.
        privileged: never completes in user mode, and can in supervisor mode.
        completes: where it is privileged, that it cannot complete in user mode.
    """

    instruction: Instruction
    findings: Mapping[str, Finding[S]]
    privileged: Truth
    completes: Evidence | None = None

    def truth(self, name: str) -> Truth:
        """The answer for one class."""
        return self.findings[name].truth

    @property
    def sensitive(self) -> Truth:
        """Control, location, mode or resource sensitive."""
        return any_asked(self.truth(name) for name in SENSITIVE)

    @property
    def user_sensitive(self) -> Truth:
        """Sensitive with every run in user mode (Theorem 3)."""
        return any_asked(self.truth(name) for name in USER_SENSITIVE)

    @property
    def innocuous(self) -> Truth:
        """None of the sensitive classes."""
        return negate(self.sensitive)

    @property
    def critical(self) -> Truth:
        """Sensitive and not privileged: refutes the premise of Theorem 1."""
        return both(self.sensitive, negate(self.privileged))

    @property
    def user_critical(self) -> Truth:
        """User-sensitive and not privileged: refutes the premise of Theorem 3."""
        return both(self.user_sensitive, negate(self.privileged))

    @property
    def components(self) -> tuple[str, ...]:
        """The leaves that were seen to leak or change, over all sensitive classes."""
        return tuple(dict.fromkeys(c for name in SENSITIVE for c in self.findings[name].components))

    @property
    def undecided(self) -> tuple[str, ...]:
        """The leaves that may leak too: a short search could not tell."""
        maybe = dict.fromkeys(c for name in SENSITIVE for c in self.findings[name].undecided)
        return tuple(c for c in maybe if c not in self.components)

    @property
    def witnessed(self) -> str:
        """The class with the most telling counterexample; empty if none has one."""
        return next((name for name in TELLING if self.truth(name) is Truth.YES), "")

    @property
    def witness(self) -> Counterexample[S] | None:
        """The most telling counterexample: a difference in user mode before a change of resources."""
        return self.findings[self.witnessed].witness if self.witnessed else None

    @property
    def asked(self) -> dict[str, Evidence]:
        """What was asked and answered, by class."""
        found = {name: finding.evidence for name, finding in self.findings.items()}
        found["privileged"] = self.completes
        return {name: evidence for name, evidence in found.items() if evidence is not None}


TELLING = (
    "mode_sensitive",
    "user_resource_sensitive",
    "resource_sensitive",
    "user_location_sensitive",
    "location_sensitive",
    "user_control_sensitive",
    "control_sensitive",
)
SENSITIVE = ("control_sensitive", "location_sensitive", "mode_sensitive", "resource_sensitive")
USER_SENSITIVE = ("user_control_sensitive", "user_location_sensitive", "user_resource_sensitive")
