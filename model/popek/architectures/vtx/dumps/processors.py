"""Judging a dump whose processor is not, or not fully, known: what would fail on a plain one is a suspect.

`judge` calls a failure what fails on every processor that fits what is known. A check that only newer
processors relax stays undecided; the state is then judged again for a processor without relaxations.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import attrs

from ..capabilities import Capabilities
from ..checks import CHECKS
from ..evaluation import asks
from ..verdict import Failure, Suspect, Verdict, verdict_of_many
from ..vmcs import Vmcs

_OF_THE_PROCESSOR = ("MSR ", "CPUID ", "maxphyaddr", "linear_address_width")
"""How an input that only the processor can give is called."""

_HIGH32 = 0xFFFF_FFFF << 32
_TRUE_CONTROLS = 1 << 55

# All optional controls, but none of the relaxations: must-be-1 bits are the default1 class less the bits that
# the TRUE capability MSRs free on real processors (CR3-load and CR3-store exiting, save and load debug
# controls); no relaxed error-code or zero-length injection, 4 CR3 targets, four-level EPT in WB or UC memory
# (Intel SDM vol. 3, appendix A.1 to A.10).
_PLAIN: Mapping[int, int] = {
    0x480: _TRUE_CONTROLS,
    0x481: _HIGH32 | 0x16,
    0x482: _HIGH32 | 0x0401_E172,
    0x483: _HIGH32 | 0x0003_6DFF,
    0x484: _HIGH32 | 0x0000_11FF,
    0x485: 0x0004_01E0,
    0x486: 0x8000_0021,
    0x487: 0xFFFF_FFFF,
    0x488: 0x2000,
    0x489: (1 << 64) - 1,
    0x48B: _HIGH32,
    0x48C: 0x0F01_0673_4141,
    0x48D: _HIGH32 | 0x16,
    0x48E: _HIGH32 | 0x0400_6172,
    0x48F: _HIGH32 | 0x0003_6DFB,
    0x490: _HIGH32 | 0x0000_11FB,
    0x491: (1 << 64) - 1,
    0x492: (1 << 64) - 1,
    0x493: (1 << 64) - 1,
}
_PLAIN_ADDRESSES, _PLAIN_LINEAR = 52, 48


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
            Suspect(item.id, item.fields, f"{item.message} (on processors that do not relax this)")
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
    def plain(self) -> Processor:
        """A processor without newer relaxations of which the same is known."""
        known = self.known
        has_widths = "0x80000008.0.eax" in known.cpuid
        return Processor(
            attrs.evolve(
                known,
                msrs={**_PLAIN, **known.msrs},
                features={"LAM": False, **known.features},
                maxphyaddr=known.maxphyaddr or (None if has_widths else _PLAIN_ADDRESSES),
                linear_address_width=known.linear_address_width or (None if has_widths else _PLAIN_LINEAR),
            )
        )


def judge_any(vmcs: Vmcs, processor: Processor) -> Judgement:
    """Judge a VMCS for a processor of which little or nothing may be known."""
    verdict = processor.judge(vmcs)
    waiting = {
        item.id
        for item in verdict.undecided
        if item.missing[0].startswith(_OF_THE_PROCESSOR) and "revision" not in asks(CHECKS[item.id])
    }
    if not waiting:
        return Judgement(verdict)
    likely = processor.plain.judge(vmcs)
    suspects = tuple(item for item in likely.failed if item.id in waiting)
    explain = bool(suspects) and not verdict.failed and likely.explains_report == "yes"
    return Judgement(verdict, suspects, explain)
