"""Judging a dump whose processor is not, or not fully, known: what would fail on a plain one is a suspect.

`judge` calls a failure what fails on every processor that fits what is known for sure. A check that only newer
processors relax stays undecided; the state is then judged again for a processor without relaxations, and with the
values that nobody is sure of.

Who names a processor may be wrong: where a VMCS shows that it was entered, or that the processor came as far as its
guest state, and what is said of the processor alone makes an earlier check fail, it is of another processor.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Container
from functools import cached_property
from typing import Final

import attrs

from popek.architectures.vtx.entry_checks import CHECKS, Check, Outcome

from ..capabilities import UNKNOWN, Capabilities
from ..capability_limits import plain
from ..evaluation import Evaluator, asks
from ..identity import by_identity
from ..inference import NOTHING, Evidence, evidence, with_evidence
from ..verdict import Failure, Suspect, Undecided, VmEntryVerdict, reported_outcome, verdict_of
from ..vmcs import Vmcs

_KEPT = 256
"""How many processors, by what a VMCS shows, are kept at most."""

_OF_THE_PROCESSOR = ("MSR ", "CPUID ", "maxphyaddr", "linear_address_width")
"""How an input that only the processor can give is called."""


@attrs.frozen
class ProcessorJudgement:
    """A verdict with its suspects: undecided checks that fail on a plain processor.

    `suspects_explain` says whether the suspects would account for what the dump reports; `inferred`, in words,
    what the VMCS itself shows of the processor. `processor` is the one that it was judged for; where that is not the
    one that was asked for, `against` says in words why it cannot be.
    """

    verdict: VmEntryVerdict
    processor: ReportedProcessor = attrs.field(eq=False, repr=False)
    suspects: tuple[Failure, ...] = ()
    suspects_explain: bool = False
    inferred: tuple[str, ...] = ()
    against: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """What the VMCS shows of the processor, and that it is not the one that was asked for, in words."""
        return (*self.against, *self.inferred)

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

    def __init__(self, known: Capabilities, checks: Collection[Check] = ()) -> None:
        """Take what is known of the processor, and the checks to judge by; none stands for all."""
        self.known = known
        self.sure = known.sure
        self._evaluator = Evaluator(self.sure, checks) if checks else Evaluator(self.sure)
        self._shown: dict[Evidence, tuple[ReportedProcessor, tuple[str, ...]]] = {}

    def shown_by(self, vmcs: Vmcs) -> tuple[ReportedProcessor, tuple[str, ...]]:
        """This processor with what a VMCS shows of it, and that in words."""
        seen = evidence(vmcs)
        if seen == NOTHING:
            return self, ()
        found = self._shown.get(seen)
        if found is None:
            sure, words = with_evidence(self.sure, seen)
            if len(self._shown) >= _KEPT:
                self._shown.clear()
            found = self._shown[seen] = (ReportedProcessor(self._with(sure)) if words else self), words
        return found

    def _with(self, sure: Capabilities) -> Capabilities:
        """What is known, where more is known for sure than before."""
        if not self.known.unsure:
            return sure
        return attrs.evolve(
            sure,
            msrs={**self.known.msrs, **sure.msrs},
            cpuid={**self.known.cpuid, **sure.cpuid},
            features={**self.known.features, **sure.features},
            maxphyaddr=sure.maxphyaddr or self.known.maxphyaddr,
            linear_address_width=sure.linear_address_width or self.known.linear_address_width,
            unsure=self.known.unsure,
        )

    def judge(self, vmcs: Vmcs, only: Container[str] | None = None) -> VmEntryVerdict:
        """Judge a VMCS by what is known for sure, and nothing else; the failures of `only` are put into words."""
        return verdict_of(self._evaluator, vmcs, only)

    @cached_property
    def plain(self) -> ReportedProcessor:
        """A processor without newer relaxations of which the same is known, and nothing unsure."""
        return ReportedProcessor(attrs.evolve(plain(self.known), unsure=()), _of_the_processor())

    @cached_property
    def plain_for_sure(self) -> ReportedProcessor:
        """As `plain`, without the values that nobody is sure of."""
        return ReportedProcessor(plain(self.sure), _of_the_processor())


@functools.cache
def _of_the_processor() -> tuple[Check, ...]:
    """The checks that ask something of the processor: the others wait for no value of it.

    Those of MSR areas ask what the MSRs that are listed need.
    """
    areas = CHECKS["LOAD-06"].group
    return tuple(check for check in CHECKS.values() if asks(check) or check.group is areas)


_NOBODY: Final = ReportedProcessor(UNKNOWN)
_FIXED: Final = frozenset({*(f"CTL-CAP-0{number}" for number in range(1, 9)), "HOST-CR-01", "HOST-CR-02"})
"""What a hypervisor takes from the processor that it runs on: rows that another processor's values make fail."""
_REACHED: Final = {33: 2, 41: 2, 34: 3}
"""The stage that a VM-entry failure shows to have been reached, by its exit reason."""


def _against(vmcs: Vmcs, processor: ReportedProcessor, verdict: VmEntryVerdict) -> tuple[Failure, ...]:
    """The checks that fail by what is said of the processor, although the VMCS shows that they passed."""
    report, named = reported_outcome(vmcs), processor.known.named
    passed = [item for item in verdict.failed if _passed(CHECKS[item.id], report, named, vmcs.printed)]
    if not passed:
        return ()
    anyway = {item.id for item in _NOBODY.shown_by(vmcs)[0].judge(vmcs).failed}
    return tuple(item for item in passed if item.id not in anyway)


def _reached(check: Check, report: Outcome | None) -> bool:
    """Whether a reported VM-entry failure shows that the processor passed a check."""
    if report is None or report.kind != "entry-failure":
        return False
    return check.group.stage < _REACHED.get(report.reason or 0, 0)


def _passed(check: Check, report: Outcome | None, named: bool, printed: bool) -> bool:
    """Whether the processor that a VMCS comes from let a check pass, by what it reports and by what it holds."""
    if report is not None and report.kind == "entry-failure":
        return _reached(check, report)
    if report is not None and report.kind == "enters":
        return named and printed  # a VMCS may have changed since, but the values were somebody's guess
    told = report is not None and bool(set(report.errors) & set(check.outcome.errors))
    return named and printed and check.id in _FIXED and not told


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
    asked = processor.known.name
    processor, inferred = processor.shown_by(vmcs)
    verdict = processor.judge(vmcs)
    against = _against(vmcs, processor, verdict) if verdict.failed else ()
    if against:
        processor, inferred = _NOBODY.shown_by(vmcs)
        verdict = processor.judge(vmcs)
    words = tuple(
        f"{item.id} would fail there, too: {item.message}"
        if number
        else f"this dump is not from {asked}, whose values are left aside: {item.id} would fail there: {item.message}"
        for number, item in enumerate(against)
    )
    waiting = _waiting(verdict.undecided)
    if not waiting:
        return ProcessorJudgement(verdict, processor, inferred=inferred, against=words)
    likely = processor.plain.judge(vmcs, waiting)
    report = reported_outcome(vmcs)
    # What the processor is known to have passed is not suspected of anything.
    suspects = tuple(item for item in likely.failed if not _reached(CHECKS[item.id], report))
    suspects = _with_doubts(suspects, verdict, processor, vmcs)
    explain = bool(suspects) and not verdict.failed and likely.explains_report == "yes"
    return ProcessorJudgement(verdict, processor, suspects, explain, inferred, words)


def _with_doubts(
    suspects: tuple[Failure, ...], verdict: VmEntryVerdict, processor: ReportedProcessor, vmcs: Vmcs
) -> tuple[Failure, ...]:
    """Suspects, each that stands on a value nobody is sure of with the name of that value."""
    if not suspects or not processor.known.unsure:
        return suspects
    anyway = {item.id for item in processor.plain_for_sure.judge(vmcs).failed}
    lacking = {item.id: item.missing[0] for item in verdict.undecided}
    return tuple(
        item
        if item.id in anyway
        else attrs.evolve(
            item,
            message=f"{item.message} (by {lacking[item.id]}, of which {processor.known.name} is not sure)",
        )
        for item in suspects
    )
