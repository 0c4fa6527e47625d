"""`popek vmcs`: judge, decode, explain, repair, generate and compare VMCSs, and ask about the rules."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from cyclopts import App, Parameter

from .errors import UserError
from .options import AsJson
from .output import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from popek.architectures.vtx.capabilities import Capabilities
    from popek.architectures.vtx.dumps.model import Dump
    from popek.architectures.vtx.dumps.processors import ProcessorJudgement
    from popek.architectures.vtx.verdict import Undecided, VmEntryVerdict

app = App(name="vmcs", help="Judge, decode, explain, compare, repair and generate VMCSs.")

_EXIT_CODES = {"enters": 0, "undecided": 3}
_FAILS, _BAD_INPUT, _DIFFERENT = 1, 2, 1
_MOST_PROCESSORS = 64
_SCHEMA = "popek/vmcs-verdict/1"

File = Annotated[
    str, Parameter(help="A dump as text or JSON; `-` reads standard input.", allow_leading_hyphen=True)
]
ReportedProcessor = Annotated[
    str | None,
    Parameter(
        name="--capabilities", help="A preset's name, or a file with capability MSRs (rdmsr, VBox.log, JSON)."
    ),
]
AsJsonLines = Annotated[
    bool, Parameter(name="--jsonl", negative="", help="One VMCS a line in, one verdict a line out.")
]


@app.command
def check(
    file: File, /, *, capabilities: ReportedProcessor = None, json: AsJson = False, jsonl: AsJsonLines = False
) -> int:
    """Say whether a VM entry with this VMCS succeeds, and which checks it fails.

    Exit code: 0 the entry succeeds, 1 a check fails, 2 bad input, 3 undecided.
    """
    if jsonl:
        return _check_lines(file, capabilities)
    dumps = read(file)
    processors = [processor_of(dump, capabilities, file) for dump in dumps]
    if json:
        found = [_judged(dump, known) for dump, known in zip(dumps, processors, strict=True)]
        answers = [
            _verdict_json(dump, item.complete, item.inferred) for dump, item in zip(dumps, found, strict=True)
        ]
        print_json(answers[0] if len(answers) == 1 else answers)
        return exit_code([item.verdict.outcome.kind for item in found])
    from popek.architectures.vtx.dumps.diagnosis import diagnose
    from popek.report.vmcs import print_check

    console, kinds = terminal(), []
    for number, (dump, known) in enumerate(zip(dumps, processors, strict=True)):
        if number:
            console.print()
        diagnosis = diagnose(dump, known)
        kinds.append(diagnosis.verdict.outcome.kind)
        print_check(console, diagnosis)
    return exit_code(kinds)


@app.command
def decode(file: File, /, *, json: AsJson = False) -> int:
    """Print every field of a dump bit by bit."""
    from popek.architectures.vtx.dumps.bits import decode as decode_field
    from popek.architectures.vtx.fields import FIELDS

    dumps = read(file)
    areas = ("guest-state", "host-state", "control", "exit-information")
    ordered = sorted(FIELDS.values(), key=lambda field: areas.index(field.area))
    decoded = [
        [
            (field, dump.fields[field.id], decode_field(field.id, dump.fields[field.id]))
            for field in ordered
            if field.id in dump.fields
        ]
        for dump in dumps
    ]
    if json:
        answers = [
            {
                "schema": "popek/vmcs-fields/1",
                "name": dump.name,
                "format": dump.format,
                "fields": {
                    field.id: {
                        "encoding": f"{field.encoding:#06x}",
                        "value": hex(value),
                        "bits": [
                            {"high": bit.high, "low": bit.low, "name": bit.name, "value": hex(bit.value)}
                            for bit in bits
                        ],
                    }
                    for field, value, bits in rows
                },
                **_beside(dump),
            }
            for dump, rows in zip(dumps, decoded, strict=True)
        ]
        print_json(answers[0] if len(answers) == 1 else answers)
        return 0
    from popek.report.vmcs import print_decode

    console = terminal()
    for number, (dump, rows) in enumerate(zip(dumps, decoded, strict=True)):
        if number:
            console.print()
        print_decode(console, dump, rows)
    return 0


@app.command
def explain(
    subject: Annotated[
        str,
        Parameter(
            help="A check's id, a field, its encoding, a bit, an exit reason, a VM-instruction error, a processor.",
            allow_leading_hyphen=True,
        ),
    ],
    /,
) -> int:
    """Explain a check, a field, a bit, an error, a processor: `GUEST-CR-09`, `0x6802`, `sec[1]`, `0x80000021`."""
    from popek.architectures.vtx.dumps.explanation import UnknownSubject
    from popek.architectures.vtx.dumps.explanation import explain as explanations_of
    from popek.report.vmcs import print_explanation

    try:
        found = explanations_of(subject)
    except UnknownSubject as error:
        amd = _of_amd(subject)
        if not amd:
            raise UserError(str(error)) from None
        sys.stdout.write(
            "\n".join((*amd, "", "this is AMD's: `popek vmcb` judges and explains VMCBs")) + "\n"
        )
        return 0
    console = terminal()
    for number, explanation in enumerate(found):
        if number:
            console.print()
        print_explanation(console, explanation)
    return 0


def _of_amd(subject: str) -> list[str]:
    """What is known of an exit code of AMD's VMRUN, by its name or by the number that KVM prints."""
    from popek.architectures.svm.explanation import UnknownVmcbSubject, explanation
    from popek.architectures.svm.vmcb import exit_codes

    wanted = subject.strip().upper()
    bare = wanted.removeprefix("VMEXIT_")
    numbers = {name.upper().replace(" ", "_"): code for code, name in exit_codes().items()}
    numbers |= {"NPF": numbers.get("NESTED_PAGE_FAULT", -1)}
    with contextlib.suppress(UnknownVmcbSubject):
        if wanted in ("VMEXIT_INVALID", "-1"):
            return explanation(wanted)
        if wanted != bare and bare in numbers:
            return explanation(hex(numbers[bare]))[:2]
        if wanted[:1].isdigit() and "exit code" in (lines := explanation(wanted))[0]:
            return lines[:2]
    return []


@app.command
def diff(first: File, second: File, /, *, capabilities: ReportedProcessor = None) -> int:
    """Compare two dumps, field by field and bit by bit.

    Exit code: 0 the fields are the same, 1 they differ, 2 bad input.
    """
    from popek.architectures.vtx.dumps.comparison import compare
    from popek.report.vmcs import print_comparison

    if first == second == "-":
        raise UserError("only one of the two dumps can be standard input")
    pair = [_only(read(name), name) for name in (first, second)]
    known = [processor_of(dump, capabilities, name) for dump, name in zip(pair, (first, second), strict=True)]
    comparison = compare(pair[0], pair[1], (known[0], known[1]))
    print_comparison(terminal(), comparison)
    return 0 if comparison.same else _DIFFERENT


def _only(dumps: list[Dump], name: str) -> Dump:
    if len(dumps) > 1:
        raise UserError(f"{shown_name(name)}: holds {len(dumps)} dumps: expected one")
    return dumps[0]


def terminal() -> Console:
    """A console that prints text as it is."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def shown_name(name: str) -> str:
    """An input's name as messages have it."""
    from popek.architectures.vtx.dumps.model import printable

    return "standard input" if name == "-" else printable(name)


def _open(name: str) -> BinaryIO:
    if name == "-":
        return sys.stdin.buffer
    if not name:
        raise UserError("expected a file, and its name is empty")
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UserError(f"{shown_name(name)}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError:
        raise UserError(f"{name!r}: not a file name") from None


def _bytes(name: str) -> bytes:
    try:
        with _open(name) as stream:
            return stream.read()
    except OSError as error:
        raise UserError(f"{shown_name(name)}: {(error.strerror or 'cannot be read').lower()}") from None


def read(name: str) -> list[Dump]:
    """The dumps of a file; `-` is standard input."""
    return _parsed(_bytes(name), name)


def _parsed(data: bytes, name: str) -> list[Dump]:
    from popek.architectures.vtx.dumps.model import DumpError
    from popek.architectures.vtx.dumps.reading import read_dumps

    try:
        return read_dumps(data, shown_name(name))
    except DumpError as error:
        place = f"{shown_name(name)}:{error.line}" if error.line else shown_name(name)
        raise UserError(f"{place}: {error.message}") from None


def processor_of(dump: Dump, wanted: str | None, name: str) -> Capabilities:
    """The processor that `--capabilities` names, else the one that the dump describes."""
    if wanted is not None:
        return wanted_processor(wanted)
    try:
        return _described_processor(dump)
    except UserError as error:
        raise UserError(f"{shown_name(name)}: {error}") from None


def wanted_processor(wanted: str) -> Capabilities:
    """The processor that `--capabilities` names."""
    from popek.architectures.vtx.capability_files import CapabilityError, load_capabilities

    try:
        return load_capabilities(wanted)
    except (CapabilityError, OSError) as error:
        raise UserError(one_clear_line(error)) from None


def one_clear_line(error: Exception) -> str:
    """A message fit for a terminal."""
    from popek.architectures.vtx.dumps.model import printable

    return printable(str(error))


def _described_processor(dump: Dump) -> Capabilities:
    from popek.architectures.vtx.capabilities import UNKNOWN
    from popek.architectures.vtx.capability_files import CapabilityError, from_mapping, load_capabilities

    try:
        if isinstance(dump.capabilities, str):
            return load_capabilities(dump.capabilities)
        return UNKNOWN if dump.capabilities is None else from_mapping(dump.capabilities, name=dump.name)
    except (CapabilityError, OSError) as error:
        raise UserError(one_clear_line(error)) from None


def exit_code(kinds: Sequence[str]) -> int:
    """The code of several verdicts: a failure outweighs an undecided one."""
    codes = {_EXIT_CODES.get(kind, _FAILS) for kind in kinds}
    return next((code for code in (_FAILS, _EXIT_CODES["undecided"]) if code in codes), 0)


def _beside(dump: Dump) -> dict[str, Any]:
    beside: dict[str, Any] = {}
    if dump.unrecognised:
        beside["unrecognised"] = [{"line": item.line, "text": item.text} for item in dump.unrecognised]
    if dump.remarks:
        beside["remarks"] = [{"line": item.line, "text": item.text} for item in dump.remarks]
    return beside


def _verdict_json(dump: Dump, verdict: VmEntryVerdict, inferred: Sequence[str] = ()) -> dict[str, Any]:
    answer: dict[str, Any] = {**verdict.to_json(), "name": dump.name, "format": dump.format, **_beside(dump)}
    said = {field_id.lower(): value for field_id, value in answer["reported"].items()}
    answer["reported"] = {**dump.reported, **said}
    if inferred:
        answer["inferred"] = list(inferred)
    return answer


def _check_lines(file: str, capabilities: str | None) -> int:
    """Judge a stream: JSON Lines line by line, anything else as a whole, with one verdict for each dump."""
    with _open(file) as stream:
        first = stream.readline()
        if first.lstrip()[:1] == b"{" and first.rstrip()[-1:] == b"}":
            return _check_json_lines(itertools.chain([first], stream), file, capabilities)
        dumps = _parsed(first + stream.read(), file)
    kinds = []
    for dump in dumps:
        item = _judged(dump, processor_of(dump, capabilities, file))
        kinds.append(item.verdict.outcome.kind)
        sys.stdout.write(one_line(_verdict_json(dump, item.complete, item.inferred)))
    return exit_code(kinds)


def _check_json_lines(lines: Iterable[bytes], file: str, capabilities: str | None) -> int:
    """Answer every line in order; a line that is no VMCS is answered by an object with the key `error`."""
    import json

    import attrs

    from popek.architectures.vtx.dumps.diagnosis import vmcs_of
    from popek.architectures.vtx.dumps.json_input import read_line
    from popek.architectures.vtx.dumps.model import DumpError
    from popek.architectures.vtx.dumps.processors import ReportedProcessor, judge_any
    from popek.architectures.vtx.identity import by_identity
    from popek.architectures.vtx.verdict import undecided_json

    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode

    @by_identity
    def lacking_one(item: Undecided) -> str:
        return encode(undecided_json((item,)))[1:-1]

    def undecided(items: tuple[Undecided, ...]) -> str:
        return f"[{','.join(map(lacking_one, items))}]"

    name, bad, kinds = shown_name(file), False, set[str]()
    write, flush = sys.stdout.write, sys.stdout.flush
    wanted = None if capabilities is None else ReportedProcessor(wanted_processor(capabilities))
    described: dict[str, ReportedProcessor] = {}
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            dump = read_line(line.decode("utf-8", errors="replace"), number, name)
            processor = wanted
            if processor is None:
                key = encode(dump.capabilities)
                processor = described.get(key)
                if processor is None:
                    if len(described) >= _MOST_PROCESSORS:
                        described.clear()
                    processor = described[key] = ReportedProcessor(_described_processor(dump))
            judgement = judge_any(vmcs_of(dump), processor)
            verdict = judgement.complete
        except (DumpError, UserError) as error:
            bad = True
            sys.stderr.write(f"popek: {name}:{number}: {error}\n")
            write(encode({"schema": _SCHEMA, "name": f"{name}:{number}", "error": str(error)}) + "\n")
        else:
            kinds.add(verdict.outcome.kind)
            # Most of a long answer is what a partial dump lacks, and that a stream repeats.
            rest = encode(_verdict_json(dump, attrs.evolve(verdict, undecided=()), judgement.inferred))
            lacking = f'"undecided":{undecided(verdict.undecided)}'
            write(rest.replace('"undecided":[]', lacking, 1) + "\n")
        flush()
    return _BAD_INPUT if bad else exit_code(sorted(kinds))


def _judged(dump: Dump, known: Capabilities) -> ProcessorJudgement:
    from popek.architectures.vtx.dumps.diagnosis import vmcs_of
    from popek.architectures.vtx.dumps.processors import ReportedProcessor, judge_any

    return judge_any(vmcs_of(dump), ReportedProcessor(known))


def one_line(value: object) -> str:
    """JSON on one line."""
    import json

    return json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"
