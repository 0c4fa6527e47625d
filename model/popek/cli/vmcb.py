"""`popek vmcb`: judge, decode and explain AMD's VMCBs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from popek.architectures.dump import beside

from .dumps import (
    BAD_INPUT,
    exit_code,
    input_error,
    one_line,
    open_input,
    print_several,
    read_bytes,
    shown_name,
)
from .errors import UserError
from .options import AsJson

if TYPE_CHECKING:
    from popek.architectures.svm.vmcb import SvmProcessor, VmcbDump

app = App(name="vmcb", help="Judge, decode, explain, repair AMD's VMCBs.")

_SCHEMA = "popek/vmcb-verdict/1"

File = Annotated[
    str,
    Parameter(
        help="A dump by Linux KVM or Xen, JSON, NAME = value lines or 4096 bytes; `-` reads standard input.",
        allow_leading_hyphen=True,
    ),
]
Processor = Annotated[
    str | None,
    Parameter(
        name="--capabilities",
        help="A processor's name, or a file: JSON, what `cpuid -1 -r` prints, /proc/cpuinfo.",
    ),
]
Width = Annotated[int | None, Parameter(help="Physical-address width of the processor.")]


@app.command
def check(
    file: File,
    /,
    *,
    capabilities: Processor = None,
    maxphyaddr: Width = None,
    json: AsJson = False,
    jsonl: Annotated[
        bool, Parameter(name="--jsonl", negative="", help="One VMCB a line in, one verdict a line out.")
    ] = False,
) -> int:
    """Say whether VMRUN enters the guest with this VMCB, and which checks it fails.

    Exit code: 0 it enters, 1 a check fails, 2 bad input, 3 undecided.
    """
    from popek.architectures.svm.verdict import judge

    wanted = wanted_processor(capabilities, maxphyaddr)
    if jsonl:
        return _check_lines(file, wanted, maxphyaddr)
    found = read(file)
    verdicts = [judge(dump.vmcb, processor_of(dump, wanted, maxphyaddr)) for dump in found]
    if json:
        answers = [
            {**verdict.to_json(), **beside(dump)} for dump, verdict in zip(found, verdicts, strict=True)
        ]
        print_several(answers)
    else:
        from popek.report.vmcb import text_of

        texts = [
            text_of(dump, processor_of(dump, wanted, maxphyaddr), verdict)
            for dump, verdict in zip(found, verdicts, strict=True)
        ]
        sys.stdout.write("\n".join(texts))
    return exit_code([verdict.kind for verdict in verdicts])


def wanted_processor(wanted: str | None, maxphyaddr: int | None) -> SvmProcessor | None:
    """The processor that `--capabilities` names; None if it is the one that the input describes."""
    from popek.architectures.dump import DumpError
    from popek.architectures.svm.capabilities import load_capabilities

    if maxphyaddr is not None and not 32 <= maxphyaddr <= 52:
        raise UserError(f"--maxphyaddr {maxphyaddr}: expected a number from 32 to 52")
    if wanted is None:
        return None
    try:
        return load_capabilities(wanted)
    except DumpError as error:
        raise UserError(f"--capabilities: {error.message}") from None


def processor_of(dump: VmcbDump, wanted: SvmProcessor | None, maxphyaddr: int | None) -> SvmProcessor:
    """The processor of the options, else the one that the input describes."""
    import attrs

    known = wanted or dump.processor
    return known if maxphyaddr is None else attrs.evolve(known, maxphyaddr=maxphyaddr)


def read(name: str) -> list[VmcbDump]:
    """The VMCBs of a file; `-` is standard input."""
    return _parsed(read_bytes(name), name)


def _parsed(data: bytes, name: str) -> list[VmcbDump]:
    from popek.architectures.dump import DumpError
    from popek.architectures.svm.dumps import read_vmcbs

    try:
        return read_vmcbs(data, shown_name(name))
    except DumpError as error:
        raise input_error(name, error) from None


def _check_lines(file: str, wanted: SvmProcessor | None, maxphyaddr: int | None) -> int:
    """Judge a stream: JSON Lines line by line, anything else as a whole, with one verdict for each dump."""
    from popek.architectures.svm.verdict import judge

    with open_input(file) as stream:
        first = stream.readline()
        if first.lstrip()[:1] == b"{" and first.rstrip()[-1:] == b"}":
            return _check_json_lines(itertools.chain([first], stream), file, wanted, maxphyaddr)
        dumps = _parsed(first + stream.read(), file)
    kinds = []
    for dump in dumps:
        verdict = judge(dump.vmcb, processor_of(dump, wanted, maxphyaddr))
        kinds.append(verdict.kind)
        sys.stdout.write(one_line({**verdict.to_json(), **beside(dump)}))
    return exit_code(kinds)


def _check_json_lines(
    lines: Iterable[bytes], file: str, wanted: SvmProcessor | None, maxphyaddr: int | None
) -> int:
    """Answer every line in order; one that is no VMCB is answered by an object with the key `error`."""
    from popek.architectures.dump import DumpError
    from popek.architectures.svm.dumps_json import from_line
    from popek.architectures.svm.verdict import judge

    name, bad, kinds = shown_name(file), False, set[str]()
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            dump = from_line(line.decode("utf-8", errors="replace"), f"{name}:{number}")
            verdict = judge(dump.vmcb, processor_of(dump, wanted, maxphyaddr))
        except DumpError as error:
            bad = True
            sys.stderr.write(f"popek: {name}:{number}: {error.message}\n")
            sys.stdout.write(
                one_line({"error": error.message, "name": f"{name}:{number}", "schema": _SCHEMA})
            )
        else:
            kinds.add(verdict.kind)
            sys.stdout.write(one_line(verdict.to_json()))
        sys.stdout.flush()
    return BAD_INPUT if bad else exit_code(sorted(kinds))


@app.command
def decode(file: File, /, *, json: AsJson = False) -> int:
    """Print every field of a VMCB, with its intercepts by name."""
    from popek.architectures.svm.vmcb import FIELDS, intercepts

    dumps = read(file)
    if json:
        answers = [
            {
                "schema": "popek/vmcb-fields/1",
                "name": dump.vmcb.name,
                "fields": {
                    field.id: {
                        "offset": f"{field.offset:#05x}",
                        "value": hex(value),
                        "intercepts": [
                            name
                            for (owner, bit), name in intercepts().items()
                            if owner == field.id and value >> bit & 1
                        ],
                    }
                    for field in FIELDS.values()
                    if (value := dump.vmcb.fields.get(field.id)) is not None
                },
                **beside(dump),
            }
            for dump in dumps
        ]
        print_several(answers)
        return 0
    for number, dump in enumerate(dumps):
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
