"""Questions about what others made: programs, VMCS dumps, hardware assistance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from popek.errors import PopekError

from .subjects import subject

if TYPE_CHECKING:
    from popek.architectures.vtx.dumps.diagnosis import Diagnosis
    from popek.architectures.vtx.dumps.model import Dump
    from popek.architectures.vtx.verdict import VmEntryVerdict
    from popek.assistance.synthesis import Synthesis
    from popek.scan.judging import Scan


@attrs.frozen(eq=False)
class Diagnosed:
    """What a VM entry with the VMCS of a dump does.

    Attributes:
        dump: what was read.
        diagnosis: the verdict beside what the dump says happened, in sentences.
    """

    dump: Dump
    diagnosis: Diagnosis
    _complete: VmEntryVerdict = attrs.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """`popek/vmcs-verdict/1`."""
        return verdict_json(self.dump, self._complete, self.diagnosis.shown)


@attrs.frozen(eq=False)
class Synthesized:
    """The best controls of a kind of hardware assistance.

    Attributes:
        found: the answer.
    """

    found: Synthesis
    _document: Mapping[str, Any] = attrs.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """`popek/assistance-synthesis/1`."""
        return dict(self._document)


def diagnose(source: str | Path, /, *, capabilities: str | None = None) -> Diagnosed:
    """Whether a VM entry with the VMCS of a dump succeeds, and which checks it fails.

    Args:
        source: a file, or the text of the dump itself, which has more than one line.
        capabilities: a processor: the name of a preset, or a file with capability MSRs.

    Raises:
        PopekError: no dump, more than one, or no such processor.

    >>> import popek
    >>> popek.diagnose("VM instruction error: 7\\nCR0: actual=0x0000000080050033\\n").diagnosis.label
    'UNDECIDED'
    """
    from popek.architectures.vtx.capabilities import UNKNOWN
    from popek.architectures.vtx.capability_files import from_mapping, load_capabilities
    from popek.architectures.vtx.dumps.diagnosis import diagnose as diagnosed
    from popek.architectures.vtx.dumps.diagnosis import vmcs_of
    from popek.architectures.vtx.dumps.processors import ReportedProcessor, judge_any
    from popek.architectures.vtx.dumps.reading import read_dumps

    if isinstance(source, str) and "\n" in source:
        name, data = "the text", source.encode()
    else:
        name = Path(source).name
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise PopekError(f"{source}: {error.strerror or error}") from None
    dumps = read_dumps(data, name)
    if len(dumps) != 1:
        raise PopekError(f"{name}: holds {len(dumps)} dumps: expected one")
    dump = dumps[0]
    said = dump.capabilities if capabilities is None else capabilities
    try:
        known = (
            load_capabilities(said)
            if isinstance(said, str)
            else UNKNOWN
            if said is None
            else from_mapping(said, name=dump.name)
        )
    except OSError as error:
        raise PopekError(f"{said}: {error.strerror or error}") from None
    judged = judge_any(vmcs_of(dump), ReportedProcessor(known))
    return Diagnosed(dump, diagnosed(dump, known), judged.complete)


def verdict_json(dump: Dump, verdict: VmEntryVerdict, inferred: Sequence[str] = ()) -> dict[str, Any]:
    """`popek/vmcs-verdict/1` of a dump, with what was not understood in it."""
    answer: dict[str, Any] = {**verdict.to_json(), "name": dump.name, "format": dump.format}
    for key, lines in (("unrecognised", dump.unrecognised), ("remarks", dump.remarks)):
        if lines:
            answer[key] = [{"line": item.line, "text": item.text} for item in lines]
    said = {field_id.lower(): value for field_id, value in answer["reported"].items()}
    answer["reported"] = {**dump.reported, **said}
    if inferred:
        answer["inferred"] = list(inferred)
    return answer


def synthesize(
    technique: str,
    /,
    processor: str | None = None,
    *,
    own: Collection[str] | None = None,
    assume: Mapping[str, int] | None = None,
) -> Synthesized:
    """The controls of a kind of hardware assistance that are faithful and safe, exist on a processor, and exit least.

    Args:
        technique: such as `"vt-x"`, or a Python file with an `Assistance`.
        processor: for `vt-x` the name of a capability preset, or a file with capability MSRs.
        own: what the VMM owns; all that it usually owns by default.
        assume: what else holds, such as `{"unrestricted": 1}`.

    Raises:
        PopekError: a name that is not known.
    """
    from popek.assistance.desk import desk_of
    from popek.assistance.synthesis import processor_of
    from popek.assistance.synthesis import synthesize as find
    from popek.machines import assistance
    from popek.report.assistance import Owner, synthesis_json

    desk = desk_of(assistance(technique))
    names = desk.assistance.everything if own is None else frozenset(own)
    found = find(desk, processor_of(desk, processor), sorted(names), assume=assume or {})
    return Synthesized(found, synthesis_json(Owner(desk.assistance, names, assume or {}), found))


def scan_file(
    file: str | Path,
    /,
    *,
    base: int | None = None,
    mode: int | None = None,
    machine: str | None = None,
    technique: str | None = None,
    timeout: float = 0.0,
    jobs: int = 1,
    **settings: int | str,
) -> Scan:
    """The instructions of a program that are critical, unfaithful or unsafe under a technique.

    Args:
        file: an ELF file, or a raw image.
        base: the address of a raw image's first byte.
        mode: the size of code, 16, 32 or 64, where the file does not say it.
        machine: whose code it is; by default the file or `mode` says.

    Raises:
        PopekError: a file that cannot be read, or whose code is not known.
    """
    from popek.checks.survey import Request, survey
    from popek.machines import codes
    from popek.scan.files import read, reader
    from popek.scan.judging import Scan, judge
    from popek.scan.sweep import sweep

    known = codes()
    program = read(Path(file), base, known)
    code, size = reader(program, machine, mode, known)
    about = subject(code.machine, technique, settings, timeout=timeout, as_named=True)
    swept = sweep(program, code, size)
    present = [form for form in about.machine.instructions if form in swept.starts]
    rows = survey(Request(about, promises=True), forms=present, jobs=jobs).rows if present else ()
    findings, undecided = judge(swept, rows)
    chosen = dict(about.configuration.settings)
    return Scan(program, code.machine, about.technique.name, chosen, size, swept, findings, undecided)


__all__ = ["Diagnosed", "Synthesized", "diagnose", "scan_file", "synthesize", "verdict_json"]
