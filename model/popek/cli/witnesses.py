"""`--asm` and `--confirm`: witnesses as assembly, and on an emulator."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .errors import UserError

if TYPE_CHECKING:
    from popek.checks.explanation import Explanation
    from popek.checks.ladder import LadderStep
    from popek.kernel.machine import Machine
    from popek.report.witnesses import Confirmation, Named

Asm = Annotated[
    bool | Path,
    Parameter(help="Print the witnesses as assembly, or write them to a FILE.", negative=""),
]
Confirm = Annotated[
    bool | str,
    Parameter(
        help="Run the witnesses on an emulator, by default on the first that the machine has.",
        negative="",
    ),
]


def assert_possible(machine: str, asm: bool | Path, confirm: bool | str) -> None:
    """Refuse, before anything is computed, what cannot be done with a machine's witnesses."""
    if not asm and not confirm:
        return
    from popek.emulators import declared_witnesses
    from popek.emulators.witnesses import harness

    option = "--asm" if asm else "--confirm"
    harnesses = declared_witnesses()
    if machine not in harnesses:
        known = " and ".join(harnesses)
        raise UserError(f"{option}: there is no assembler or emulator for {machine}, only for {known}")
    if asm and harness(machine).assembly is None:
        raise UserError(f"--asm: nobody writes witnesses of {machine} as assembly; --confirm runs them")
    if isinstance(confirm, str) and confirm not in (names := harness(machine).emulators):
        raise UserError(f"--confirm {confirm}: expected {' or '.join(names)}")
    if isinstance(asm, Path) and asm.is_dir():
        raise UserError(f"--asm {asm}: expected a file, and this is a folder")
    if isinstance(asm, Path) and not asm.parent.is_dir():
        raise UserError(f"--asm {asm}: there is no folder {asm.parent}")


def of_explanation(
    machine: Machine[Any], subject: str, found: Explanation, asm: bool | Path, confirm: bool | str
) -> list[Confirmation]:
    """What `--asm` and `--confirm` do with the witnesses of an explanation."""
    from popek.report.witnesses import Named

    named = [
        Named(form.row.form, question.replace("_", "-"), witness)
        for form in found.forms
        for question, witness in form.counterexamples.items()
    ]
    return asked(machine, subject, named, asm, confirm)


def asked(
    machine: Machine[Any], subject: str, named: Sequence[Named], asm: bool | Path, confirm: bool | str
) -> list[Confirmation]:
    """What `--asm` and `--confirm` do with witnesses."""
    if asm:
        write_assembly(machine, subject, named, asm)
    return confirmed(machine, named, confirm) if confirm else []


def steps(found: Sequence[Confirmation]) -> dict[tuple[str, str], LadderStep]:
    """How far witnesses got on an emulator, by form and question."""
    from popek.checks.ladder import LadderStep, Reached, Rung

    return {
        (one.subject, one.question.replace("-", "_")): LadderStep(
            Rung.EMULATOR,
            Reached.YES if one.verdict == "confirmed" else Reached.UNKNOWN,
            f"{one.against}: {one.verdict}",
        )
        for one in found
    }


def print_confirmations(found: Sequence[Confirmation]) -> None:
    """Nothing where nothing was asked."""
    from popek.report.witnesses import confirmations

    from .output import console

    if found:
        console().print(confirmations(found))


def write_assembly(machine: Machine[Any], subject: str, found: Sequence[Named], asm: bool | Path) -> None:
    """To a file, or to standard output."""
    from popek.emulators.differential import EmulatorError
    from popek.report.witnesses import assembly

    try:
        source = assembly(machine, subject, found)
        if isinstance(asm, Path):
            asm.write_text(source, encoding="ascii")
        else:
            sys.stdout.write(source)
    except EmulatorError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"--asm {asm}: {error.strerror}") from None


def confirmed(machine: Machine[Any], found: Sequence[Named], confirm: bool | str) -> list[Confirmation]:
    """What the emulator says of each."""
    from popek.emulators.differential import EmulatorError
    from popek.emulators.witnesses import harness
    from popek.report.witnesses import confirm as run

    against = confirm if isinstance(confirm, str) else harness(machine.name).emulators[0]
    try:
        return run(machine, found, against)
    except EmulatorError as error:
        raise UserError(str(error)) from None
