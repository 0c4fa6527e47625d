"""`popek devices`: what a guest's own device can do to the monitor; fault lines explained; the unit's rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from .errors import UserError
from .options import AsJson
from .output import console, print_json, working

app = App(
    name="devices",
    help="What a guest's own device can do to the monitor: safety with remapping and without, fault lines explained.",
)

_HOLDS, _REFUTED, _UNKNOWN = 0, 1, 3

Machine = Annotated[
    str, Parameter(help="A machine with a device, as `popek devices list` has it; or a Python file.")
]


@app.command(name="list")
def list_(*, json: AsJson = False) -> int:
    """List the machines with devices, how a monitor can attach these, and what may be dropped."""
    from popek.checks.devices import droppable
    from popek.machines import devices
    from popek.report import devices as report

    known = [make() for make in devices().values()]
    if json:
        rows = [
            {
                "name": one.name,
                "title": one.title,
                "device": one.agent.title,
                "attachments": {
                    name: {"title": way.title, "droppable": droppable(way)}
                    for name, way in one.attachments.items()
                },
                "left_out": list(one.notes),
            }
            for one in known
        ]
        print_json({"schema": "popek/device-machines/1", "machines": rows})
    else:
        console().print(report.machines(known))
    return _HOLDS


@app.command
def safety(
    machine: Machine,
    /,
    *,
    attachment: Annotated[
        str | None,
        Parameter(help="How the monitor attaches the device; the last of the machine's by default."),
    ] = None,
    drop: Annotated[
        tuple[str, ...],
        Parameter(
            name="--drop",
            negative="",
            help="A rule of the unit, a duty of the monitor or a premise to leave out; `help` lists them.",
        ),
    ] = (),
    form: Annotated[
        tuple[str, ...],
        Parameter(
            name="--form",
            negative="",
            help="Forms of the processor to ask as well; 'none', or 'all' for every one.",
        ),
    ] = (),
    json: AsJson = False,
) -> int:
    """Prove by induction that a guest's device reaches nothing else, or show a shortest trace in which it does.

    Exit code: 0 safe and faithful, 1 one of both is refuted, 2 bad input, 3 one is unknown.
    """
    from popek.checks.devices import FIDELITY, Attached, VacuousError, droppable
    from popek.kernel.exploration import PathBudgetError
    from popek.kernel.machine import UnknownNameError
    from popek.machines import MachineFileError, with_devices
    from popek.report import devices as report
    from popek_proofs.devices import device_safety

    try:
        devices = with_devices(machine)
        if "help" in drop:
            way = Attached.of(devices, attachment).attachment
            listed = "; ".join(f"{name}: {text}" for name, text in droppable(way).items())
            raise UserError(f"--drop takes {listed or 'nothing'}")
        forms = None if not form else [] if form == ("none",) else list(form)
        if form == ("all",):
            forms = list(devices.machine().instructions)
        with working("asking"):
            found = device_safety(devices, attachment, drop, forms)
    except (UnknownNameError, MachineFileError, PathBudgetError, VacuousError) as error:
        raise UserError(str(error)) from None
    if json:
        print_json(found.to_json())
    else:
        console().print(report.safety(found))
    statuses = {found.status(name).value for name in ("safety", FIDELITY)}
    if "refuted" in statuses:
        return _REFUTED
    return _UNKNOWN if "unknown" in statuses else _HOLDS


@app.command
def check(*names: str, json: AsJson = False) -> int:
    """Check what publications say of machines with devices; every claim by default.

    Exit code: 0 all as expected, 1 one is otherwise, 2 bad input.
    """
    from popek.kernel.machine import UnknownNameError
    from popek.report import devices as report
    from popek_proofs.devices import check_device_claim, claim_named, device_claims

    try:
        claims = [claim_named(name) for name in names] or list(device_claims())
    except UnknownNameError as error:
        raise UserError(str(error)) from None
    with working("checking"):
        found = [check_device_claim(claim) for claim in claims]
    if json:
        print_json({"schema": "popek/device-claims/1", "claims": [one.to_json() for one in found]})
    else:
        console().print(report.claims(found))
    return int(any(one.unexpected for one in found))


@app.command
def rules(
    *,
    of: Annotated[
        Literal["vt-d", "second-stage"],
        Parameter(help="Of a VT-d remapping unit, or of EPT and nested paging."),
    ] = "vt-d",
    json: AsJson = False,
) -> int:
    """Print the rules of what stands before storage, with fault reasons or outcomes, and sources."""
    import attrs

    from popek.architectures.second_stage.ledger import second_stage_rules
    from popek.architectures.vtd.ledger import rules as ledger
    from popek.report import devices as report

    if of == "second-stage":
        if json:
            found = [attrs.asdict(rule) for rule in second_stage_rules().values()]
            print_json({"schema": "popek/second-stage-rules/1", "rules": found})
        else:
            console().print(report.second_stage())
    elif json:
        print_json(
            {"schema": "popek/remapping-rules/1", "rules": [attrs.asdict(rule) for rule in ledger().values()]}
        )
    else:
        console().print(report.rules())
    return _HOLDS


@app.command
def dmar(
    file: Annotated[
        str,
        Parameter(
            help="A DMAR table, binary or as text; `-` reads standard input.", allow_leading_hyphen=True
        ),
    ],
    /,
    *,
    json: AsJson = False,
) -> int:
    """Say what a DMAR table of ACPI means for a monitor that gives devices to guests.

    Takes /sys/firmware/acpi/tables/DMAR, or what acpidump, xxd, hexdump -C or iasl -d make of it.

    Exit code: 0 read and well formed, 1 the table breaks a rule, 2 bad input.
    """
    from popek.architectures.vtd.dmar import DmarError, parse
    from popek.architectures.vtd.dmar_findings import WRONG, findings
    from popek.architectures.vtd.dmar_text import table_bytes
    from popek.report import devices as report

    try:
        table = parse(table_bytes(_read(file)))
    except DmarError as error:
        raise UserError(f"{file}: {error}") from None
    found = findings(table)
    if json:
        print_json(table.to_json() | {"findings": [one.to_json() for one in found]})
    else:
        console().print(report.dmar(table, found))
    return _REFUTED if any(one.kind == WRONG for one in found) else _HOLDS


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None


@app.command
def fault(
    file: Annotated[
        str, Parameter(help="A log as text; `-` reads standard input.", allow_leading_hyphen=True)
    ],
    /,
    *,
    json: AsJson = False,
) -> int:
    """Say what happened, and why, of lines of Linux about a remapping unit: DMAR, INTR-REMAP, AMD-Vi."""
    from popek.architectures.enclosures import decoded
    from popek.architectures.vtd.faults import NoFaultError, explain
    from popek.report import devices as report

    try:
        found = explain(decoded(_read(file)))
    except NoFaultError as error:
        raise UserError(f"{file}: {error}") from None
    if json:
        print_json({"schema": "popek/remapping-faults/1", "faults": [one.to_json() for one in found]})
    else:
        console().print(report.faults(found))
    return _HOLDS
