"""`popek vmcs`: judge, decode, explain, repair, generate and compare VMCSs, and ask about the rules."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from popek.architectures.dump import beside

from .dumps import (
    BAD_INPUT,
    exit_code,
    input_error,
    one_clear_line,
    one_line,
    open_input,
    print_several,
    read_bytes,
    shown_name,
    terminal,
)
from .errors import UserError
from .options import ALONE, AsJson, Work

if TYPE_CHECKING:
    from popek.architectures.vtx.capabilities import Capabilities
    from popek.architectures.vtx.dumps.model import Dump
    from popek.architectures.vtx.dumps.processors import ProcessorJudgement

app = App(name="vmcs", help="Judge, decode, explain, compare, repair and generate VMCSs.")

_DIFFERENT = 1

File = Annotated[
    str, Parameter(help="A dump as text or JSON; `-` reads standard input.", allow_leading_hyphen=True)
]
Processor = Annotated[
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
    file: File,
    /,
    *,
    capabilities: Processor = None,
    work: Work = ALONE,
    json: AsJson = False,
    jsonl: AsJsonLines = False,
) -> int:
    """Say whether a VM entry with this VMCS succeeds, and which checks it fails.

    Exit code: 0 the entry succeeds, 1 a check fails, 2 bad input, 3 undecided.
    """
    if jsonl:
        with work.begun():
            return _check_lines(file, capabilities, work.jobs)
    if work != ALONE:
        raise UserError("--jobs, --engine and --shard: expected with --jsonl")
    dumps = read(file)
    processors = [processor_of(dump, capabilities, file) for dump in dumps]
    if json:
        from popek.architectures.vtx.dumps.lines import verdict_json

        found = [_judged(dump, known) for dump, known in zip(dumps, processors, strict=True)]
        answers = [
            verdict_json(dump, item.complete, item.shown) for dump, item in zip(dumps, found, strict=True)
        ]
        print_several(answers)
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
                **beside(dump),
            }
            for dump, rows in zip(dumps, decoded, strict=True)
        ]
        print_several(answers)
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
    """What is known of AMD's exit codes, controls and processors, by the name or the number that people use."""
    from popek.architectures.svm.capabilities import explained
    from popek.architectures.svm.explanation import of_bits, of_exit_code

    return of_exit_code(subject) or of_bits(subject) or explained(subject)


@app.command
def diff(first: File, second: File, /, *, capabilities: Processor = None) -> int:
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


def read(name: str) -> list[Dump]:
    """The dumps of a file; `-` is standard input."""
    return _parsed(read_bytes(name), name)


def _parsed(data: bytes, name: str) -> list[Dump]:
    from popek.architectures.vtx.dumps.model import DumpError
    from popek.architectures.vtx.dumps.reading import read_dumps

    try:
        return read_dumps(data, shown_name(name))
    except DumpError as error:
        raise input_error(name, error) from None


def processor_of(dump: Dump, wanted: str | None, name: str) -> Capabilities:
    """The processor that `--capabilities` names, else the one that the dump describes."""
    if wanted is not None:
        return wanted_processor(wanted)
    from popek.architectures.dump import DumpError
    from popek.architectures.vtx.dumps.lines import described_processor

    try:
        return described_processor(dump)
    except DumpError as error:
        raise UserError(f"{shown_name(name)}: {error}") from None


def wanted_processor(wanted: str) -> Capabilities:
    """The processor that `--capabilities` names."""
    from popek.architectures.vtx.capability_files import CapabilityError, load_capabilities

    try:
        return load_capabilities(wanted)
    except (CapabilityError, OSError) as error:
        raise UserError(one_clear_line(error)) from None


def _check_lines(file: str, capabilities: str | None, jobs: int) -> int:
    """Judge a stream: JSON Lines line by line, anything else as a whole, with one verdict for each dump."""
    with open_input(file) as stream:
        first = stream.readline()
        if first.lstrip()[:1] == b"{" and first.rstrip()[-1:] == b"}":
            return _check_json_lines(itertools.chain([first], stream), file, capabilities, jobs)
        dumps = _parsed(first + stream.read(), file)
    from popek.architectures.vtx.dumps.lines import verdict_json

    kinds = []
    for dump in dumps:
        item = _judged(dump, processor_of(dump, capabilities, file))
        kinds.append(item.verdict.outcome.kind)
        sys.stdout.write(one_line(verdict_json(dump, item.complete, item.shown)))
    return exit_code(kinds)


_TOGETHER = 200  # lines that another process takes at once

_Numbered = list[tuple[int, bytes]]


def _check_json_lines(lines: Iterable[bytes], file: str, capabilities: str | None, jobs: int) -> int:
    """Answer every line in order; a line that is no VMCS is answered by an object with the key `error`."""
    from popek.work import engaging, results

    name, bad, kinds = shown_name(file), False, set[str]()
    if capabilities is not None:
        wanted_processor(capabilities)  # what is wrong with it is said before anything is judged
    write, flush = sys.stdout.write, sys.stdout.flush
    # Whoever waits for an answer to each line gets it, unless others do the work.
    pieces = _pieces(lines, 1 if jobs == 1 and not engaging() else _TOGETHER)
    for answers in results(_judging, (name, capabilities), pieces, jobs=jobs):
        for kind, answer, wrong in answers:
            if wrong:
                bad = True
                sys.stderr.write(wrong)
            else:
                kinds.add(kind)
            write(answer)
        flush()
    return BAD_INPUT if bad else exit_code(sorted(kinds))


def _pieces(lines: Iterable[bytes], size: int) -> Iterator[_Numbered]:
    numbered = ((number, line) for number, line in enumerate(lines, 1) if not line.isspace())
    while piece := list(itertools.islice(numbered, size)):
        yield piece


def _judging(name: str, capabilities: str | None) -> Callable[[_Numbered], list[tuple[str, str, str]]]:
    """What judges lines: of each the outcome, the answer, and what is wrong with it, if anything."""
    from popek.architectures.dump import DumpError
    from popek.architectures.vtx.dumps.lines import SCHEMA, LineJudge

    judge = LineJudge(name, None if capabilities is None else wanted_processor(capabilities))

    def judged(number: int, line: bytes) -> tuple[str, str, str]:
        try:
            return *judge.answer(line, number), ""
        except DumpError as error:
            told = one_line({"schema": SCHEMA, "name": f"{name}:{number}", "error": str(error)})
            return "", told, f"popek: {name}:{number}: {error}\n"

    return lambda piece: [judged(number, line) for number, line in piece]


def _judged(dump: Dump, known: Capabilities) -> ProcessorJudgement:
    from popek.architectures.vtx.dumps.diagnosis import vmcs_of
    from popek.architectures.vtx.dumps.processors import ReportedProcessor, judge_any

    return judge_any(vmcs_of(dump), ReportedProcessor(known))
