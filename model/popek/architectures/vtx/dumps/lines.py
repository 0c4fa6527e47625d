"""Answers to streams: a VMCS on each line in, a verdict on each line out, as `popek vmcs check --jsonl` has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from popek.architectures.dump import DumpError, beside, printable

from ..capabilities import UNKNOWN, Capabilities
from ..capability_files import CapabilityError, from_mapping, load_capabilities
from ..verdict import VmEntryVerdict
from .diagnosis import vmcs_of
from .json_input import read_line
from .model import Dump
from .processors import ReportedProcessor, judge_any

SCHEMA: Final = "popek/vmcs-verdict/1"
_MOST_PROCESSORS: Final = 64
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def described_processor(dump: Dump) -> Capabilities:
    """The processor that a dump describes.

    Raises:
        DumpError: what it says of it is wrong.
    """
    try:
        if isinstance(dump.capabilities, str):
            return load_capabilities(dump.capabilities)
        return UNKNOWN if dump.capabilities is None else from_mapping(dump.capabilities, name=dump.name)
    except (CapabilityError, OSError) as error:
        raise DumpError(printable(str(error))) from None


def verdict_json(
    dump: Dump, verdict: VmEntryVerdict, inferred: Sequence[str] = (), *, undecided: bool = True
) -> dict[str, Any]:
    """A verdict with what the dump says beside it, without the undecided checks if so wanted."""
    answer: dict[str, Any] = {
        **verdict.to_json(undecided=undecided),
        "name": dump.name,
        "format": dump.format,
        **beside(dump),
    }
    said = {field_id.lower(): value for field_id, value in answer["reported"].items()}
    answer["reported"] = {**dump.reported, **said}
    if inferred:
        answer["inferred"] = list(inferred)
    return answer


class LineJudge:
    """Judges lines, and gets faster the more there are.

    Args:
        name: of the input.
        capabilities: of the processor; None is the one that each line describes.
    """

    def __init__(self, name: str, capabilities: Capabilities | None = None) -> None:
        """Judge lines of an input; see the class."""
        self.name = name
        self._wanted = None if capabilities is None else ReportedProcessor(capabilities)
        self._described: dict[str, ReportedProcessor] = {}

    def answer(self, line: bytes, number: int) -> tuple[str, str]:
        """How the entry ends, in a word, and the verdict as JSON on one line.

        Raises:
            DumpError: the line is no VMCS.
        """
        dump = read_line(line.decode("utf-8", errors="replace"), number, self.name)
        judgement = judge_any(vmcs_of(dump), self._wanted or self._processor_of(dump))
        verdict = judgement.complete
        # Most of a long answer is what a partial dump lacks, and that a stream repeats.
        rest = _encode(verdict_json(dump, verdict, judgement.shown, undecided=False))
        lacking = ",".join([item.text for item in verdict.undecided])
        return verdict.outcome.kind, rest.replace('"undecided":[]', f'"undecided":[{lacking}]', 1) + "\n"

    def _processor_of(self, dump: Dump) -> ReportedProcessor:
        key = _encode(dump.capabilities)
        processor = self._described.get(key)
        if processor is None:
            if len(self._described) >= _MOST_PROCESSORS:
                self._described.clear()
            processor = self._described[key] = ReportedProcessor(described_processor(dump))
        return processor


__all__ = ["SCHEMA", "LineJudge", "described_processor", "verdict_json"]
