"""Judging a dump whose processor is not, or not fully, known.

Three verdicts are compared. One takes only what is known. One completes it to the most permissive processor:
what fails there fails on every processor known, so it is a failure and not undecided. One completes it to a
plain processor without the newer relaxations: what fails only there is a suspect.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import attrs

from ..capabilities import Capabilities
from ..checks import CHECKS
from ..evaluation import asks
from ..fields import FIELDS
from ..verdict import Failure, Suspect, Verdict, verdict_of_many
from ..vmcs import Vmcs

_OF_THE_PROCESSOR = ("MSR ", "CPUID ", "maxphyaddr", "linear_address_width")
"""How an input that only the processor can give is called."""

_ONES32, _ONES64 = (1 << 32) - 1, (1 << 64) - 1
_HIGH32 = _ONES32 << 32
_TRUE_CONTROLS, _ANY_ERROR_CODE = 1 << 55, 1 << 56
_HOST_ADDRESS_SPACE_SIZE = _IA32E_GUEST = 1 << 9

# Must-be-1 bits: the default1 class less the bits that the TRUE capability MSRs free on real processors
# (CR3-load and CR3-store exiting, save and load debug controls); Intel SDM vol. 3, appendix A.2 to A.5.
_MOST_PERMISSIVE = {
    0x480: _TRUE_CONTROLS | _ANY_ERROR_CODE,
    0x485: _ONES64,
    0x486: 0x8000_0021,
    0x487: _ONES32,
    0x488: 0x2000,
    0x489: _ONES64,
    0x48B: _HIGH32,
    0x48C: _ONES64,
    0x48D: _HIGH32 | 0x16,
    0x48E: _HIGH32 | 0x0400_6172,
    0x48F: _HIGH32 | 0x0003_6DFB,
    0x490: _HIGH32 | 0x0000_11FB,
    0x491: _ONES64,
    0x492: _ONES64,
    0x493: _ONES64,
}
# Without relaxed error-code injection, zero-length injection, LAM, five-level paging, shadow-stack EPT bit.
_PLAIN = _MOST_PERMISSIVE | {
    0x480: _TRUE_CONTROLS,
    0x485: 0x0004_01E0,
    0x48C: 0x0F01_0673_4141,
}


_PLAIN_CONTROLS = {
    0x481: _HIGH32 | 0x16,
    0x482: _HIGH32 | 0x0401_E172,
    0x483: _HIGH32 | 0x0003_6DFF,
    0x484: _HIGH32 | 0x0000_11FF,
}


@attrs.frozen
class Judgement:
    """A verdict with its suspects: undecided checks that fail on a plain processor.

    `suspects_explain` says whether the suspects would account for what the dump reports.
    """

    verdict: Verdict
    suspects: tuple[Failure, ...] = ()
    suspects_explain: bool = False

    @property
    def complete(self) -> Verdict:
        """The verdict with the suspects among its warnings."""
        found = tuple(
            Suspect(item.id, item.fields, f"{item.message} (on processors without a relaxation of this)")
            for item in self.suspects
        )
        return attrs.evolve(self.verdict, warnings=found + self.verdict.warnings) if found else self.verdict


class Processor:
    """A processor to judge many VMCSs for: what depends on it alone is worked out once."""

    def __init__(self, known: Capabilities) -> None:
        """Take what is known of the processor."""
        self.known = known
        self._vmcs: Vmcs | None = None
        self._verdicts = verdict_of_many(iter(self._taken, None), known)

    def _taken(self) -> Vmcs | None:
        return self._vmcs

    def judge(self, vmcs: Vmcs) -> Verdict:
        """Judge a VMCS by what is known, and nothing else."""
        self._vmcs = vmcs
        return next(self._verdicts)

    @cached_property
    def with_intel64(self) -> Processor:
        """The same processor, known to support Intel 64."""
        return Processor(attrs.evolve(self.known, features={**self.known.features, "INTEL64": True}))

    @cached_property
    def permissive(self) -> Processor:
        """The most permissive processor of which the same is known."""
        return Processor(_completed(self.known, _MOST_PERMISSIVE, 57, lam=True))

    @cached_property
    def plain(self) -> Processor:
        """A processor without newer relaxations of which the same is known."""
        return Processor(_completed(self.known, _PLAIN, 48, lam=False))


def judge_any(vmcs: Vmcs, processor: Processor) -> Judgement:
    """Judge a VMCS for a processor of which little or nothing may be known."""
    if processor.known.has("INTEL64") is None and _shows_intel64(vmcs):
        processor = processor.with_intel64
    verdict = processor.judge(vmcs)
    waiting = {item.id for item in verdict.undecided if item.missing[0].startswith(_OF_THE_PROCESSOR)}
    if not waiting:
        return Judgement(verdict)
    certain = processor.permissive.judge(vmcs)
    new = {item.id for item in certain.failed if item.id in waiting and _is_monotone(item.id)}
    if new:
        verdict = _with_failures(verdict, certain, new)
    likely = processor.plain.judge(vmcs)
    suspects = tuple(item for item in likely.failed if item.id in waiting - new and _is_monotone(item.id))
    explain = bool(suspects) and not verdict.failed and likely.explains_report == "yes"
    return Judgement(verdict, suspects, explain)


def _with_failures(verdict: Verdict, certain: Verdict, new: set[str]) -> Verdict:
    decided = {item.id for item in verdict.failed} | new
    undecided = tuple(item for item in verdict.undecided if item.id not in new)
    explains = certain.explains_report
    return attrs.evolve(
        verdict,
        outcome=certain.outcome,
        admissible=certain.admissible,
        failed=tuple(item for item in certain.failed if item.id in decided),
        undecided=undecided,
        explains_report="unknown" if explains == "no" and undecided else explains,
    )


def _is_monotone(check_id: str) -> bool:
    """Whether a more permissive processor can only make the check pass: not if it compares an identifier."""
    return "revision" not in asks(CHECKS[check_id])


def _shows_intel64(vmcs: Vmcs) -> bool:
    """Whether the VMCS could not look so on a processor without Intel 64."""
    fields = vmcs.fields
    return (
        fields.get("EXIT_CONTROLS", 0) & _HOST_ADDRESS_SPACE_SIZE != 0
        or fields.get("ENTRY_CONTROLS", 0) & _IA32E_GUEST != 0
        or any(value >> 32 and FIELDS[name].natural for name, value in fields.items())
    )


def _completed(known: Capabilities, msrs: Mapping[int, int], linear: int, *, lam: bool) -> Capabilities:
    basic = known.msrs.get(0x480)
    if basic is not None and not basic & _TRUE_CONTROLS:
        # Without TRUE capability MSRs the plain ones decide, and all of the default1 class must be 1.
        msrs = {**msrs, **_PLAIN_CONTROLS}
    has_widths = "0x80000008.0.eax" in known.cpuid
    return attrs.evolve(
        known,
        msrs={**msrs, **known.msrs},
        features={"LAM": lam, **known.features},
        maxphyaddr=known.maxphyaddr or (None if has_widths else 52),
        linear_address_width=known.linear_address_width or (None if has_widths else linear),
    )
