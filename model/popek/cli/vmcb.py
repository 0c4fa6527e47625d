"""`popek vmcb`: judge and decode AMD's VMCBs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from .errors import UserError
from .options import AsJson
from .output import print_json

if TYPE_CHECKING:
    from popek.architectures.svm.vmcb import Processor, Vmcb

app = App(name="vmcb", help="Judge and decode AMD's VMCBs.")

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
) -> int:
    """Say whether VMRUN enters the guest with this VMCB, and which checks it fails.

    Exit code: 0 it enters, 1 a check fails, 2 bad input, 3 undecided.
    """
    import attrs

    from popek.architectures.svm.verdict import exit_name, judge

    vmcb, processor = _read(file)
    if maxphyaddr is not None:
        if not 32 <= maxphyaddr <= 52:
            raise UserError(f"--maxphyaddr {maxphyaddr}: expected a number from 32 to 52")
        processor = attrs.evolve(processor, maxphyaddr=maxphyaddr)
    verdict = judge(vmcb, processor)
    if json:
        print_json(verdict.to_json())
        return _EXIT_CODES[verdict.outcome]
    words = {"enters": "ENTERS", "vmexit-invalid": "VMEXIT_INVALID", "undecided": "UNDECIDED"}
    lines = [f"{vmcb.name}: {len(vmcb.fields)} fields", words[verdict.outcome]]
    lines += [f"  {item.id}  {item.message}  [{item.section}]" for item in verdict.failed]
    if verdict.warnings:
        lines.append("These fail on some processors:")
        lines += [f"  {item.id}  {item.message}" for item in verdict.warnings]
    code = verdict.reported.get("EXITCODE")
    if code is not None:
        lines.append(f"The dump reports exit code {code:#x} {exit_name(code)}".rstrip())
        lines.append(f"  explained by the checks: {verdict.explains_report}")
    if verdict.undecided:
        missing = ", ".join(dict.fromkeys(item.missing for item in verdict.undecided))
        lines.append(f"{len(verdict.undecided)} checks cannot be decided; they need: {missing}")
    sys.stdout.write("\n".join(lines) + "\n")
    return _EXIT_CODES[verdict.outcome]


@app.command
def decode(file: File, /) -> int:
    """Print every field of a VMCB, with its intercepts by name."""
    from popek.architectures.svm.vmcb import FIELDS, intercepts

    vmcb, _ = _read(file)
    for field in FIELDS.values():
        if field.id in vmcb.fields:
            value = vmcb.fields[field.id]
            names = [
                name for (owner, bit), name in intercepts().items() if owner == field.id and value >> bit & 1
            ]
            shown = f"  {', '.join(names)}" if names else ""
            sys.stdout.write(
                f"{field.offset:03X}H  {field.id:22}  {value:#0{field.width // 4 + 2}x}  {field.title}{shown}\n"
            )
    return 0


def _read(name: str) -> tuple[Vmcb, Processor]:
    from popek.architectures.svm.dumps import DumpError, read_vmcb

    if not name:
        raise UserError("expected a file, and its name is empty")
    shown = "standard input" if name == "-" else "".join(c if c.isprintable() else "\ufffd" for c in name)
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return read_vmcb(data, shown)
    except DumpError as error:
        raise UserError(f"{shown}: {error}") from None
    except OSError as error:
        raise UserError(f"{shown}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError:
        raise UserError(f"{name!r}: not a file name") from None
