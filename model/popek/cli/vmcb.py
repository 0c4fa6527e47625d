"""`popek vmcb`: judge and decode AMD's VMCBs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from .errors import UserError
from .options import AsJson
from .output import print_json

if TYPE_CHECKING:
    from popek.architectures.svm.dumps import VmcbDump
    from popek.architectures.svm.verdict import VmrunVerdict

app = App(name="vmcb", help="Judge, decode and explain AMD's VMCBs.")

_SCHEMA = "popek/vmcb-verdict/1"
_EXIT_CODES = {"enters": 0, "vmexit-invalid": 1, "undecided": 3}

File = Annotated[
    str,
    Parameter(
        help="A dump by Linux KVM, JSON, NAME = value lines or 4096 bytes; `-` reads standard input.",
        allow_leading_hyphen=True,
    ),
]


@app.command
def check(
    file: File,
    /,
    *,
    maxphyaddr: Annotated[int | None, Parameter(help="Physical-address width of the processor.")] = None,
    json: AsJson = False,
    jsonl: Annotated[
        bool, Parameter(name="--jsonl", negative="", help="One VMCB a line in, one verdict a line out.")
    ] = False,
) -> int:
    """Say whether VMRUN enters the guest with this VMCB, and which checks it fails.

    Exit code: 0 it enters, 1 a check fails, 2 bad input, 3 undecided.
    """
    if maxphyaddr is not None and not 32 <= maxphyaddr <= 52:
        raise UserError(f"--maxphyaddr {maxphyaddr}: expected a number from 32 to 52")
    if jsonl:
        return _check_lines(file, maxphyaddr)
    found = _read(file)
    verdicts = [_judged(dump, maxphyaddr) for dump in found]
    if json:
        answers = [_answer(dump, verdict) for dump, verdict in zip(found, verdicts, strict=True)]
        print_json(answers[0] if len(answers) == 1 else answers)
    else:
        texts = [_text(dump, verdict) for dump, verdict in zip(found, verdicts, strict=True)]
        sys.stdout.write("\n".join(texts))
    codes = {_EXIT_CODES[verdict.outcome] for verdict in verdicts}
    return next((code for code in (1, 3) if code in codes), 0)


def _judged(dump: VmcbDump, maxphyaddr: int | None) -> VmrunVerdict:
    import attrs

    from popek.architectures.svm.verdict import judge

    known = dump.processor
    return judge(dump.vmcb, known if maxphyaddr is None else attrs.evolve(known, maxphyaddr=maxphyaddr))


def _answer(dump: VmcbDump, verdict: VmrunVerdict) -> dict[str, Any]:
    answer = verdict.to_json()
    for key, items in (("remarks", dump.remarks), ("unrecognised", dump.unrecognised)):
        if items:
            answer[key] = [{"line": item.line, "text": item.text} for item in items]
    return answer


_MOST_SHOWN = 6


def _text(dump: VmcbDump, verdict: VmrunVerdict) -> str:
    from popek.architectures.svm.verdict import exit_name

    count = len(dump.vmcb.fields)
    words = {"enters": "ENTERS", "vmexit-invalid": "VMEXIT_INVALID", "undecided": "UNDECIDED"}
    lines = [f"{dump.vmcb.name}: {count} field{'s' * (count != 1)}", words[verdict.outcome]]
    lines += [f"  {item.id}  {item.message}  [{item.section}]" for item in verdict.failed]
    if verdict.warnings:
        lines.append("These fail on some processors:")
        lines += [f"  {item.id}  {item.message}" for item in verdict.warnings]
    code = verdict.reported.get("EXITCODE")
    if code is not None:
        lines.append(f"The dump reports exit code {code:#x} {exit_name(code)}".rstrip())
        if verdict.entered:
            lines.append("  which is that of a VM exit: the last VMRUN entered the guest")
        lines.append(f"  explained by the checks: {verdict.explains_report}")
    waiting = len(verdict.undecided)
    if waiting:
        missing = ", ".join(dict.fromkeys(item.missing for item in verdict.undecided))
        many = "checks" if waiting > 1 else "check"
        lines.append(f"{waiting} {many} cannot be decided; needed: {missing}")
    lines += [f"line {item.line}: {item.text}" for item in dump.remarks]
    if dump.unrecognised:
        count = len(dump.unrecognised)
        lines.append(f"{count} piece{'s' * (count != 1)} of text not recognised:")
        lines += [f"  line {item.line}: {item.text[:200]}" for item in dump.unrecognised[:_MOST_SHOWN]]
        if count > _MOST_SHOWN:
            lines.append(f"  and {count - _MOST_SHOWN} more")
    return "\n".join(lines) + "\n"


def _check_lines(file: str, maxphyaddr: int | None) -> int:
    """Answer every line in order; one that is no VMCB is answered by an object with the key `error`."""
    import json

    from popek.architectures.svm.dumps import read_vmcbs
    from popek.architectures.svm.dumps_json import VmcbDumpError

    def encode(value: object) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"

    name = _shown(file)
    codes: set[int] = set()
    for number, line in enumerate(_bytes(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            if line.lstrip()[:1] != b"{":
                raise VmcbDumpError("expected a JSON object on each line")
            dump = read_vmcbs(line, f"{name}:{number}")[0]
            verdict = _judged(dump, maxphyaddr)
        except VmcbDumpError as error:
            codes.add(2)
            sys.stderr.write(f"popek: {name}:{number}: {error}\n")
            sys.stdout.write(encode({"error": str(error), "name": f"{name}:{number}", "schema": _SCHEMA}))
        else:
            codes.add(_EXIT_CODES[verdict.outcome])
            sys.stdout.write(encode(_answer(dump, verdict)))
        sys.stdout.flush()
    return next((code for code in (2, 1, 3) if code in codes), 0)


@app.command
def decode(file: File, /) -> int:
    """Print every field of a VMCB, with its intercepts by name."""
    from popek.architectures.svm.vmcb import FIELDS, intercepts

    for number, dump in enumerate(_read(file)):
        if number:
            sys.stdout.write("\n")
        for field in FIELDS.values():
            if field.id not in dump.vmcb.fields:
                continue
            value = dump.vmcb.fields[field.id]
            names = [
                name for (owner, bit), name in intercepts().items() if owner == field.id and value >> bit & 1
            ]
            shown = f"  {', '.join(names)}" if names else ""
            sys.stdout.write(
                f"{field.offset:03X}H  {field.id:22}  {value:#0{field.width // 4 + 2}x}  {field.title}{shown}\n"
            )
    return 0


@app.command
def explain(
    subject: Annotated[str, Parameter(help="A check's id, a field, its offset, or an exit code.")], /
) -> int:
    """Explain a check, a field or an exit code, such as `SVM-CR-06`, `ASID`, `0x58` or `0x400`."""
    from popek.architectures.svm.explanation import UnknownVmcbSubject, explanation

    try:
        sys.stdout.write("\n".join(explanation(subject)) + "\n")
    except UnknownVmcbSubject as error:
        raise UserError(str(error)) from None
    return 0


def _shown(name: str) -> str:
    return "standard input" if name == "-" else "".join(c if c.isprintable() else "\ufffd" for c in name)


def _bytes(name: str) -> bytes:
    if not name:
        raise UserError("expected a file, and its name is empty")
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        path = Path(name)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{_shown(name)}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError:
        raise UserError(f"{name!r}: not a file name") from None


def _read(name: str) -> list[VmcbDump]:
    from popek.architectures.svm.dumps import read_vmcbs
    from popek.architectures.svm.dumps_json import VmcbDumpError

    data = _bytes(name)
    try:
        return read_vmcbs(data, _shown(name))
    except VmcbDumpError as error:
        raise UserError(f"{_shown(name)}: {error}") from None
