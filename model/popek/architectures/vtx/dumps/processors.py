"""Judging a dump whose processor is not, or not fully, known: what would fail on a plain one is a suspect.

`judge` calls a failure what fails on every processor that fits what is known. A check that only newer
processors relax stays undecided; the state is then judged again for a processor without relaxations.
"""

from __future__ import annotations

import functools
from collections.abc import Container
from functools import cached_property

import attrs

from popek.architectures.vtx.entry_checks import CHECKS

from ..capabilities import Capabilities
from ..capability_limits import plain
from ..evaluation import Evaluator, asks
from ..identity import by_identity
from ..inference import NOTHING, Evidence, evidence, with_evidence
from ..verdict import Failure, Suspect, Undecided, VmEntryVerdict, verdict_of
from ..vmcs import Vmcs

_KEPT = 256
"""How many processors, by what a VMCS shows, are kept at most."""

_OF_THE_PROCESSOR = ("MSR ", "CPUID ", "maxphyaddr", "linear_address_width")
"""How an input that only the processor can give is called."""


@attrs.frozen
class ProcessorJudgement:
    """A verdict with its suspects: undecided checks that fail on a plain processor.

    `suspects_explain` says whether the suspects would account for what the dump reports; `inferred`, in words,
    what the VMCS itself shows of the processor.
    """

    verdict: VmEntryVerdict
    suspects: tuple[Failure, ...] = ()
    suspects_explain: bool = False
    inferred: tuple[str, ...] = ()

    @property
    def complete(self) -> VmEntryVerdict:
        """The verdict with the suspects among its warnings."""
        found = tuple(
            Suspect(item.id, item.fields, f"{item.message} (on processors that do not relax this)")
            for item in self.suspects
        )
        return attrs.evolve(self.verdict, warnings=found + self.verdict.warnings) if found else self.verdict


class ReportedProcessor:
    """A processor to judge many VMCSs for: what depends on it alone is worked out once."""

    def __init__(self, known: Capabilities) -> None:
        """Take what is known of the processor."""
        self.known = known
        self._evaluator = Evaluator(known)
        self._shown: dict[Evidence, tuple[ReportedProcessor, tuple[str, ...]]] = {}

    def shown_by(self, vmcs: Vmcs) -> tuple[ReportedProcessor, tuple[str, ...]]:
        """This processor with what a VMCS shows of it, and that in words."""
        seen = evidence(vmcs)
        if seen == NOTHING:
            return self, ()
        found = self._shown.get(seen)
        if found is None:
            known, words = with_evidence(self.known, seen)
            if len(self._shown) >= _KEPT:
                self._shown.clear()
            found = self._shown[seen] = (ReportedProcessor(known) if words else self), words
        return found

    def judge(self, vmcs: Vmcs, only: Container[str] | None = None) -> VmEntryVerdict:
        """Judge a VMCS by what is known, and nothing else; the failures of `only` are put into words."""
        return verdict_of(self._evaluator, vmcs, only)

    @cached_property
    def plain(self) -> ReportedProcessor:
        """A processor without newer relaxations of which the same is known."""
        return ReportedProcessor(plain(self.known))


@by_identity
def _waiting(undecided: tuple[Undecided, ...]) -> frozenset[str]:
    """The undecided checks that a processor without relaxations may fail."""
    return frozenset(
        [item.id for item in undecided if not item.of_fields and _waits(item.id, item.missing[0])]
    )


@functools.lru_cache(maxsize=1 << 14)
def _waits(check_id: str, first: str) -> bool:
    return first.startswith(_OF_THE_PROCESSOR) and "revision" not in asks(CHECKS[check_id])


def judge_any(vmcs: Vmcs, processor: ReportedProcessor) -> ProcessorJudgement:
    """Judge a VMCS for a processor of which little or nothing may be known."""
    processor, inferred = processor.shown_by(vmcs)
    verdict = processor.judge(vmcs)
    waiting = _waiting(verdict.undecided)
    if not waiting:
        return ProcessorJudgement(verdict, inferred=inferred)
    likely = processor.plain.judge(vmcs, waiting)
    suspects = likely.failed
    explain = bool(suspects) and not verdict.failed and likely.explains_report == "yes"
    return ProcessorJudgement(verdict, suspects, explain, inferred)
