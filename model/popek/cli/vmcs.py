"""`popek vmcs`: judge, decode, explain, repair, generate and compare VMCSs, and ask about the rules."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from cyclopts import App, Parameter

from .errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from popek.architectures.vtx.capabilities import Capabilities
    from popek.architectures.vtx.dumps.model import Dump
    from popek.architectures.vtx.verdict import Verdict

app = App(name="vmcs", help="Judge, decode, explain, repair and generate VMCSs.")

_EXIT_CODES = {"enters": 0, "undecided": 3}
_FAILS, _BAD_INPUT, _DIFFERENT = 1, 2, 1
_MOST_PROCESSORS = 64
_SCHEMA = "popek/vmcs-verdict/1"

File = Annotated[
    str, Parameter(help="A dump as text or JSON; `-` reads standard input.", allow_leading_hyphen=True)
]
Processor = Annotated[
    str | None,
    Parameter(
        name="--capabilities", help="A preset's name, or a file with capability MSRs (rdmsr, VBox.log, JSON)."
    ),
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")]
AsJsonLines = Annotated[
    bool, Parameter(name="--jsonl", negative="", help="One VMCS a line in, one verdict a line out.")
]


@app.command
def check(
    file: File, /, *, capabilities: Processor = None, json: AsJson = False, jsonl: AsJsonLines = False
) -> int:
    """Say whether a VM entry with this VMCS succeeds, and which checks it fails.

    Exit code: 0 the entry succeeds, 1 a check fails, 2 bad input, 3 undecided.
    """
    if jsonl:
        return _check_lines(file, capabilities)
    dumps = _read(file)
    processors = [_processor(dump, capabilities, file) for dump in dumps]
    if json:
        verdicts = [_judged(dump, known) for dump, known in zip(dumps, processors, strict=True)]
        answers = [_verdict_json(dump, verdict) for dump, verdict in zip(dumps, verdicts, strict=True)]
        _print_json(answers[0] if len(answers) == 1 else answers)
        return _exit_code([verdict.outcome.kind for verdict in verdicts])
    from popek.architectures.vtx.dumps.diagnosis import diagnose
    from popek.report.vmcs import print_check

    console, kinds = _console(), []
    for number, (dump, known) in enumerate(zip(dumps, processors, strict=True)):
        if number:
            console.print()
        diagnosis = diagnose(dump, known)
        kinds.append(diagnosis.verdict.outcome.kind)
        print_check(console, diagnosis)
    return _exit_code(kinds)


@app.command
def decode(file: File, /, *, json: AsJson = False) -> int:
    """Print every field of a dump bit by bit."""
    from popek.architectures.vtx.dumps.bits import decode as decode_field
    from popek.architectures.vtx.fields import FIELDS

    dumps = _read(file)
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
        _print_json(answers[0] if len(answers) == 1 else answers)
        return 0
    from popek.report.vmcs import print_decode

    console = _console()
    for number, (dump, rows) in enumerate(zip(dumps, decoded, strict=True)):
        if number:
            console.print()
        print_decode(console, dump, rows)
    return 0


@app.command
def explain(
    subject: Annotated[str, Parameter(help="A check's id, a field, its encoding, or a bit.")], /
) -> int:
    """Explain a check, a field or a bit, such as `GUEST-CR-09`, `0x6802`, `sec[1]` or `PCIDE`."""
    from popek.architectures.vtx.dumps.explanation import UnknownSubject
    from popek.architectures.vtx.dumps.explanation import explain as explanations_of
    from popek.report.vmcs import print_explanation

    try:
        found = explanations_of(subject)
    except UnknownSubject as error:
        raise UserError(str(error)) from None
    console = _console()
    for number, explanation in enumerate(found):
        if number:
            console.print()
        print_explanation(console, explanation)
    return 0


@app.command
def diff(first: File, second: File, /, *, capabilities: Processor = None) -> int:
    """Compare two dumps, field by field and bit by bit.

    Exit code: 0 the fields are the same, 1 they differ, 2 bad input.
    """
    from popek.architectures.vtx.dumps.comparison import compare
    from popek.report.vmcs import print_comparison

    if first == second == "-":
        raise UserError("only one of the two dumps can be standard input")
    pair = [_only(_read(name), name) for name in (first, second)]
    known = [_processor(dump, capabilities, name) for dump, name in zip(pair, (first, second), strict=True)]
    comparison = compare(pair[0], pair[1], (known[0], known[1]))
    print_comparison(_console(), comparison)
    return 0 if comparison.same else _DIFFERENT


@app.command
def repair(
    file: File,
    /,
    *,
    capabilities: Processor = None,
    keep: Annotated[
        list[str] | None, Parameter(help="Fields that must not change.", consume_multiple=True)
    ] = None,
    json: AsJson = False,
) -> int:
    """Find the smallest set of bits to change so that the entry succeeds, or say why there is none.

    Exit code: 0 it succeeds with the changes, 1 no repair, 2 bad input, 3 something stays undecided.
    """
    from popek.architectures.vtx.dumps.diagnosis import vmcs_of
    from popek.architectures.vtx.fields import UnknownField, find
    from popek.checks.vmcs_repair import repair as smallest
    from popek.report.vmcs_repair import print_repair

    try:
        kept = [find(name).id for names in keep or [] for name in names.split(",")]
    except UnknownField as error:
        raise UserError(f"--keep: {error}") from None
    dumps = _read(file)
    processors = [_processor(dump, capabilities, file) for dump in dumps]
    found = [smallest(vmcs_of(dump), known, keep=kept) for dump, known in zip(dumps, processors, strict=True)]
    if json:
        answers = [{**item.to_json(), "name": dump.name} for dump, item in zip(dumps, found, strict=True)]
        _print_json(answers[0] if len(answers) == 1 else answers)
    else:
        for number, (dump, item) in enumerate(zip(dumps, found, strict=True)):
            if number:
                _console().print()
            print_repair(_console(), dump.name, item)
    ends = [
        item.after.outcome.kind if item.after else "undecided" if item.answer.value == "unknown" else "fails"
        for item in found
    ]
    return _exit_code(ends)


_GENERATES_FOR = "bochs-tigerlake"


@app.command
def generate(
    *,
    violate: Annotated[str, Parameter(help="A check's id, such as GUEST-CR-09.")],
    count: Annotated[int, Parameter(help="How many VMCSs.")] = 10,
    seed: Annotated[int, Parameter(help="Another seed gives other VMCSs.")] = 1,
    capabilities: Processor = None,
) -> int:
    """Print VMCSs at the edge of one check as JSON Lines, which `popek vmcs check --jsonl` reads.

    They violate that check and no other (`"violates": true`) or, in turn, are one bit away from doing so and
    violate none. Exit code: 0, 1 no such VMCS, 2 bad input.
    """
    from popek.architectures.vtx.capability_files import presets, to_mapping
    from popek.architectures.vtx.checks import CHECKS
    from popek.checks.vmcs_generate import Impossible, edge_json
    from popek.checks.vmcs_generate import generate as edges

    check_id = violate.upper()
    if check_id not in CHECKS:
        raise UserError(f"--violate {_shown(violate)}: no check has this id; `popek vmcs explain` knows them")
    if count < 1:
        raise UserError(f"--count {count}: expected a number above 0")
    wanted = capabilities or _GENERATES_FOR
    known = _complete_processor(wanted)
    named = wanted if wanted in presets() and known.name == wanted else to_mapping(known)
    try:
        for number, edge in enumerate(edges(check_id, count, seed, known), 1):
            sys.stdout.write(_one_line(edge_json(edge, number, named)))
    except Impossible as error:
        sys.stderr.write(f"popek: {error}\n")
        return _FAILS
    return 0


@app.command
def rules(*, capabilities: Processor = None, json: AsJson = False) -> int:
    """Ask about the checks themselves: can all pass, which can fail alone, and which are shadowed by others.

    Without --capabilities the question is asked for the presets of real processors.
    """
    from popek.checks.vmcs_redundancy import ask
    from popek.report.vmcs_repair import print_answers

    answers = [ask(known) for known in _processors(capabilities)]
    if json:
        shown = [item.to_json() for item in answers]
        _print_json(shown[0] if capabilities else shown)
        return 0
    for item in answers:
        print_answers(_console(), item)
    return 0


@app.command
def compare(
    *,
    with_: Annotated[str, Parameter(name="--with", help="A rule set: a patch (.toml) or a Python file.")],
    capabilities: Processor = None,
    json: AsJson = False,
) -> int:
    """Compare the checks with another rule set: equivalent, or here is a VMCS that shows the difference.

    Without --capabilities they are compared on the presets of real processors, up to the first difference.
    Exit code: 0 equivalent, 1 different, 2 bad input, 3 undecided.
    """
    from popek.checks.vmcs_compare import compare_rules
    from popek.checks.vmcs_rulefiles import RuleFileError, load_rules
    from popek.report.vmcs_repair import print_rule_comparison

    try:
        other = load_rules(with_)
    except RuleFileError as error:
        raise UserError(_one_clear_line(error)) from None
    except OSError as error:
        raise UserError(f"{_shown(with_)}: {(error.strerror or 'cannot be read').lower()}") from None
    found = []
    for known in _processors(capabilities):
        found.append(compare_rules(other, known))
        if found[-1].answer.value == "sat":
            break
    answers = {item.answer.value for item in found}
    if "sat" in answers:
        found = found[-1:]
    if json:
        shown = [item.to_json() for item in found]
        _print_json(shown[0] if len(shown) == 1 else shown)
    else:
        for item in found:
            print_rule_comparison(_console(), item)
    return _DIFFERENT if "sat" in answers else _EXIT_CODES["undecided"] if "unknown" in answers else 0


def _processors(wanted: str | None) -> list[Capabilities]:
    """The processor that `--capabilities` names, else the real ones that are known."""
    from popek.architectures.vtx.capability_files import presets

    if wanted is not None:
        return [_complete_processor(wanted)]
    return [_complete_processor(name) for name in presets() if not name.startswith("bochs-")]


def _complete_processor(wanted: str) -> Capabilities:
    """A processor of which everything is known: the rest is as on processors without relaxations."""
    import attrs

    from popek.architectures.vtx.dumps.processors import Processor

    known = _wanted_processor(wanted)
    plain = Processor(known).plain.known
    given = attrs.evolve(plain, features=known.features)
    return (
        known
        if given == known
        else attrs.evolve(plain, name=f"{known.name}, the rest as on plain processors")
    )


def _only(dumps: list[Dump], name: str) -> Dump:
    if len(dumps) > 1:
        raise UserError(f"{_shown(name)}: holds {len(dumps)} dumps: expected one")
    return dumps[0]


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _shown(name: str) -> str:
    from popek.architectures.vtx.dumps.model import printable

    return "standard input" if name == "-" else printable(name)


def _open(name: str) -> BinaryIO:
    if name == "-":
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UserError(f"{_shown(name)}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError:
        raise UserError(f"{name!r}: not a file name") from None


def _bytes(name: str) -> bytes:
    try:
        with _open(name) as stream:
            return stream.read()
    except OSError as error:
        raise UserError(f"{_shown(name)}: {(error.strerror or 'cannot be read').lower()}") from None


def _read(name: str) -> list[Dump]:
    return _parsed(_bytes(name), name)


def _parsed(data: bytes, name: str) -> list[Dump]:
    from popek.architectures.vtx.dumps.model import DumpError
    from popek.architectures.vtx.dumps.reading import read_dumps

    try:
        return read_dumps(data, _shown(name))
    except DumpError as error:
        place = f"{_shown(name)}:{error.line}" if error.line else _shown(name)
        raise UserError(f"{place}: {error.message}") from None


def _processor(dump: Dump, wanted: str | None, name: str) -> Capabilities:
    """The processor that `--capabilities` names, else the one that the dump describes."""
    if wanted is not None:
        return _wanted_processor(wanted)
    try:
        return _described_processor(dump)
    except UserError as error:
        raise UserError(f"{_shown(name)}: {error}") from None


def _wanted_processor(wanted: str) -> Capabilities:
    from popek.architectures.vtx.capability_files import CapabilityError, load_capabilities

    try:
        return load_capabilities(wanted)
    except (CapabilityError, OSError) as error:
        raise UserError(_one_clear_line(error)) from None


def _one_clear_line(error: Exception) -> str:
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
        raise UserError(_one_clear_line(error)) from None


def _exit_code(kinds: Sequence[str]) -> int:
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


def _verdict_json(dump: Dump, verdict: Verdict) -> dict[str, Any]:
    answer: dict[str, Any] = {**verdict.to_json(), "name": dump.name, "format": dump.format, **_beside(dump)}
    said = {field_id.lower(): value for field_id, value in answer["reported"].items()}
    answer["reported"] = {**dump.reported, **said}
    return answer


def _print_json(value: object) -> None:
    import json

    sys.stdout.write(json.dumps(value, sort_keys=True, indent=1) + "\n")


def _check_lines(file: str, capabilities: str | None) -> int:
    """Judge a stream: JSON Lines line by line, anything else as a whole, with one verdict for each dump."""
    with _open(file) as stream:
        first = stream.readline()
        if first.lstrip()[:1] == b"{" and first.rstrip()[-1:] == b"}":
            return _check_json_lines(itertools.chain([first], stream), file, capabilities)
        dumps = _parsed(first + stream.read(), file)
    kinds = []
    for dump in dumps:
        verdict = _judged(dump, _processor(dump, capabilities, file))
        kinds.append(verdict.outcome.kind)
        sys.stdout.write(_one_line(_verdict_json(dump, verdict)))
    return _exit_code(kinds)


def _check_json_lines(lines: Iterable[bytes], file: str, capabilities: str | None) -> int:
    """Answer every line in order; a line that is no VMCS is answered by an object with the key `error`."""
    import json

    from popek.architectures.vtx.dumps.diagnosis import vmcs_of
    from popek.architectures.vtx.dumps.json_input import read_line
    from popek.architectures.vtx.dumps.model import DumpError
    from popek.architectures.vtx.dumps.processors import Processor, judge_any

    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
    name, bad, kinds = _shown(file), False, set[str]()
    write, flush = sys.stdout.write, sys.stdout.flush
    wanted = None if capabilities is None else Processor(_wanted_processor(capabilities))
    described: dict[str, Processor] = {}
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
                    processor = described[key] = Processor(_described_processor(dump))
            verdict = judge_any(vmcs_of(dump), processor).complete
        except (DumpError, UserError) as error:
            bad = True
            sys.stderr.write(f"popek: {name}:{number}: {error}\n")
            write(encode({"schema": _SCHEMA, "name": f"{name}:{number}", "error": str(error)}) + "\n")
        else:
            kinds.add(verdict.outcome.kind)
            write(encode(_verdict_json(dump, verdict)) + "\n")
        flush()
    return _BAD_INPUT if bad else _exit_code(sorted(kinds))


def _judged(dump: Dump, known: Capabilities) -> Verdict:
    from popek.architectures.vtx.dumps.diagnosis import vmcs_of
    from popek.architectures.vtx.dumps.processors import Processor, judge_any

    return judge_any(vmcs_of(dump), Processor(known)).complete


def _one_line(value: object) -> str:
    import json

    return json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"
