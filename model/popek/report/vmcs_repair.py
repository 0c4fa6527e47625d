"""Text for the terminal: repairs of VMCSs, questions about rule sets, comparisons of rule sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from popek.vmcs.compare import Comparison
    from popek.vmcs.edits import Change, Repair
    from popek.vmcs.standing import Answers

_STYLES = {"sat": "bold green", "unsat": "bold red", "unknown": "bold yellow"}


@attrs.frozen
class Words:
    """How a structure is talked about.

    Attributes:
        statement: of a check, by its id.
        names: what the bits of a field that differ are called.
        enters: that the entry succeeds.
    """

    statement: Callable[[str], str]
    names: Callable[[str, int], list[str]]
    enters: str


def print_repair(console: Console, name: str, found: Repair, words: Words | None = None) -> None:
    """Print what fails, what to change, and what the changes do; or why nothing helps.

    The words are those of VMCSs by default.
    """
    words = words or Words(_statement, names_of, "the entry succeeds.")
    console.print(Text(name, style="bold"))
    failed = found.verdict.failed
    if failed:
        console.print(f"{len(failed)} check{'s fail' if len(failed) > 1 else ' fails'}:")
        for failure in failed:
            console.print(Text.assemble("  ", (failure.id, "bold"), f"  {failure.message}"), soft_wrap=True)
    console.print(
        Text(_headline(found), style=_STYLES["unknown" if found.unexplained else found.answer.value])
    )
    for change in found.changes:
        _change(console, change, words)
    if found.reason is not None:
        for check_id in found.reason.checks:
            console.print(
                Text.assemble("  ", (check_id, "bold"), f"  {words.statement(check_id)}"), soft_wrap=True
            )
        if found.reason.kept:
            console.print(f"  while these are kept: {', '.join(found.reason.kept)}", soft_wrap=True)
    if found.after is not None and found.changes:
        console.print(f"After that: {_outcome(found, words)}", soft_wrap=True)
    if found.assumed:
        values = ", ".join(f"{field} = {value:#x}" for field, value in found.assumed.items() if value)
        others = sum(not value for value in found.assumed.values())
        parts = [values] if values else []
        if others:
            parts.append(f"{others} field{'s' if others > 1 else ''} 0")
        console.print(f"Taken for fields that the dump does not give: {', '.join(parts)}", soft_wrap=True)
    if found.plain_processor:
        console.print(
            "What is not known of the processor was taken to be as on processors without relaxations; "
            "--capabilities tells more.",
            soft_wrap=True,
        )


def _headline(found: Repair) -> str:
    if found.answer.value == "unsat":
        return "No repair: these checks cannot all pass"
    if found.answer.value == "unknown":
        return "Unknown: the solver ran out of effort"
    if found.unexplained:
        waiting = len(found.verdict.undecided)
        rest = f"{waiting} check{'s' * (waiting != 1)} cannot be decided" if waiting else "every check passes"
        return f"Nothing to repair is known: an entry failed, no check fails on what is given, and {rest}."
    if not found.changes:
        waiting = len(found.verdict.undecided)
        rest = (
            f"; {waiting} check{'s' * (waiting != 1)} cannot be decided"
            if waiting
            else ": every check passes"
        )
        return f"Nothing has to change{' as far as is known' if waiting else ''}{rest}."
    bits = sum(len(change.bits) for change in found.changes)
    count = len(found.changes)
    return f"Smallest repair: {bits} bit{'s' * (bits > 1)} in {count} field{'s' * (count > 1)}"


def names_of(field: str, differing: int) -> list[str]:
    """What the bits of a field of the VMCS that differ are called."""
    from popek.architectures.vtx.controls import bits_of

    return [
        f"{named.name}[{named.high}]"
        if named.high == named.low
        else f"{named.name}[{named.high}:{named.low}]"
        for named in bits_of(field)
        if differing >> named.low & (1 << named.high - named.low + 1) - 1
    ]


def _change(console: Console, change: Change, words: Words) -> None:
    names = words.names(change.field, change.before ^ change.after)
    line = Text.assemble("  ", (change.field, "cyan"), f"  {change.before:#x} → {change.after:#x}")
    if names and len(change.bits) <= 8:
        line.append(f"  {', '.join(names)}", style="dim")
    console.print(line, soft_wrap=True)


def _statement(check_id: str) -> str:
    from popek.architectures.vtx.entry_checks import CHECKS

    return CHECKS[check_id].statement if check_id in CHECKS else ""


def _outcome(found: Repair, words: Words) -> str:
    assert found.after is not None
    if found.after.kind == "enters":
        return words.enters
    waiting = len(found.after.undecided)
    if found.after.kind == "undecided":
        return f"no check fails; {waiting} cannot be decided from what is given."
    return found.after.kind


def print_answers(console: Console, answers: Answers) -> None:
    """Print which checks of a rule set can matter on a processor."""
    console.print(Text(answers.processor, style="bold"))
    for mode, enters in answers.modes.items():
        console.print(f"  {mode}: {'all checks can pass' if enters else f'NO {answers.structure} PASSES'}")
    console.print(f"  {len(answers.alone)} checks can fail alone")
    for title, ids in (
        ("never violated here", answers.never),
        ("not decided by the solver", answers.unknown),
        (f"not about fields of a {answers.structure}", answers.outside),
    ):
        if ids:
            console.print(f"  {len(ids)} {title}: {', '.join(ids)}", soft_wrap=True)
    if answers.shadowed:
        console.print(f"  {len(answers.shadowed)} shadowed (never fail alone):")
        for check_id, others in answers.shadowed.items():
            console.print(f"    {check_id}  by {', '.join(others)}", soft_wrap=True)


def print_rule_comparison(console: Console, found: Comparison) -> None:
    """Print whether two rule sets agree, or where they part."""
    if found.answer.value == "unsat":
        console.print(
            Text("Equivalent", style="bold green").append(f" on {found.processor}", style="not bold")
        )
        return
    if found.separating is None:
        console.print(Text("Unknown: the solver ran out of effort", style="bold yellow"))
        return
    console.print(Text("Different", style="bold red").append(f" on {found.processor}", style="not bold"))
    console.print(f"  ours:  {found.first}", soft_wrap=True)
    console.print(f"  other: {found.second}", soft_wrap=True)
    console.print("  a VMCS that shows it, as changes of one that enters:")
    for name, (before, after) in found.changes.items():
        console.print(f"    {name}  {before:#x} → {after:#x}", soft_wrap=True)
