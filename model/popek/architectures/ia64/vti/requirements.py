"""The weakest condition on the control bits, instruction by instruction: the questions of `fidelity`, asked."""

from __future__ import annotations

from popek.architectures.requirements import Ask, Assume, Requirement, disjunction, weakest

from .fidelity import KNOBS, Obligation


def requirement(duty: Obligation, assume: Assume) -> Requirement:
    """Both questions for every setting of the knobs."""
    knobs = {name: duty.knobs[name] for name in KNOBS if name in duty.knobs}
    questions = {
        "unfaithful": duty.unfaithful,
        "unsafe": duty.unsafe,
        "intercepted": duty.intercepted,
        "completes": duty.completes & (duty.hardware.before.psr.cpl == 0),
    }
    return weakest(duty.instruction, knobs, questions, assume(duty.assumed))


__all__ = ["Ask", "Assume", "Requirement", "disjunction", "requirement"]
