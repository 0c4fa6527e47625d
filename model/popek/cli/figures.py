"""What `--svg FILE` draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from .errors import UserError

if TYPE_CHECKING:
    from popek.checks.conditions import Conditions
    from popek.checks.explanation import Explanation
    from popek.checks.survey import Survey, SurveyRow
    from popek.kernel.machine import Machine
    from popek.report.svg import Figure
    from popek.vmcs.edits import Repair

Svg = Annotated[Path | None, Parameter(name="--svg", help="Write a figure to this file, too.")]
Kind = Literal["leaks", "paths"]
LEAKS: Kind = "leaks"


def assert_writable(svg: Path | None) -> None:
    """Find out before the work, not after it.

    Raises:
        UserError: a figure could not be written there.
    """
    if svg is None:
        return
    if svg.is_dir():
        raise UserError(f"--svg {svg}: expected a file, and this is a folder")
    if not svg.parent.is_dir():
        raise UserError(f"--svg {svg}: there is no folder {svg.parent}")


def write(figure: Figure, svg: Path) -> None:
    """Write a figure.

    Raises:
        UserError: it cannot be written.
    """
    try:
        figure.save(svg)
    except OSError as error:
        raise UserError(f"--svg {svg}: {error.strerror}") from None


def of_classification(found: Survey, *, every: bool) -> Figure:
    """What leaks into what: through every form, or through one form of each critical instruction.

    If none is critical, through one form of each sensitive instruction.
    """
    from popek.report.graphs import sensitivity_figure

    rows = found.rows if every else _one_each(found, "critical") or _one_each(found, "sensitive")
    return sensitivity_figure(row.leaks for row in rows if row.leaks is not None)


def _one_each(found: Survey, name: str) -> list[SurveyRow]:
    """The first form of each mnemonic that is in a class."""
    from popek.checks.verdict import Truth

    firsts: dict[str, SurveyRow] = {}
    for row in found.rows:
        if row.classes[name] is Truth.YES:
            firsts.setdefault(row.mnemonic, row)
    return list(firsts.values())


def of_instruction(machine: Machine[Any], found: Explanation, kind: Kind) -> Figure:
    """What leaks into what through the forms of an instruction, or the path tree of the first.

    Raises:
        UserError: the first form has too many paths.
    """
    from popek.report.graphs import path_tree, sensitivity_figure

    if kind == LEAKS:
        return sensitivity_figure(form.leaks for form in found.forms if form.leaks is not None)
    first = found.forms[0]
    if first.run is None:
        raise UserError(f"--figure paths: {first.row.remark}")
    return path_tree(machine, machine.instructions[first.row.form], first.run)


def of_settings(machine: Machine[Any], found: Conditions) -> Figure:
    """Instructions by combinations of the open settings.

    Raises:
        UserError: more combinations than can be looked at.
    """
    from popek.report.graphs import settings

    try:
        return settings(found, {name: machine.setting(name).values for name in found.open})
    except ValueError as error:
        raise UserError(f"--svg: {error}") from None


def of_propositions(names: Sequence[str]) -> Figure:
    """How the propositions of these groups rest on one another."""
    from popek.report.graphs import propositions
    from popek_proofs import known_propositions

    groups = {name.partition(".")[0] for name in names}
    return propositions([p for p in known_propositions() if not groups or p.id.partition(".")[0] in groups])


def of_changes(
    repaired: Sequence[Repair], fields: Mapping[str, Any], decode: Callable[[str, int], list[Any]]
) -> Figure:
    """The changed fields of control blocks bit by bit, the bits to change marked.

    Args:
        fields: by name, each with its `width`.
        decode: the names of a field's bits for a value.
    """
    from popek.report.graphs import bit_strip
    from popek.report.svg import stacked

    return stacked(
        [
            bit_strip(c.field, c.before, fields[c.field].width, decode(c.field, c.before), c.bits)
            for repair in repaired
            for c in repair.changes
        ]
    )


__all__ = [
    "LEAKS",
    "Kind",
    "Svg",
    "assert_writable",
    "of_changes",
    "of_classification",
    "of_instruction",
    "of_propositions",
    "of_settings",
    "write",
]
