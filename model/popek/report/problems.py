"""The eight problems of ring deprivileging as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from popek.checks.verdict import Truth
from popek_proofs.eight_problems.problems import FoundProblem
from popek_proofs.eight_problems.search import Answered, Asking
from popek_proofs.eight_problems.traces import Cost

from . import classification
from .witnesses import Named

_WORDS = {
    Truth.YES: "present",
    Truth.NO: "absent",
    Truth.UNKNOWN: "unknown",
    Truth.NOT_ASKED: "not asked",
}
_STYLES = {
    Truth.YES: "bold red",
    Truth.NO: "bold green",
    Truth.UNKNOWN: "bold yellow",
    Truth.NOT_ASKED: "dim",
}


def problems(found: Sequence[FoundProblem], asking: Asking) -> RenderableType:
    """Each problem: whether it is there, and the witness of each of its questions."""
    settings = ", ".join(f"{k}={v}" for k, v in asking.subject.configuration.settings.items())
    heading = Text.assemble(
        (asking.subject.machine.name, "bold"), " under ", (asking.subject.technique.name, "bold")
    )
    heading.append(f" with {settings}" if settings else "")
    parts: list[RenderableType] = [heading]
    for one in found:
        head = Text.assemble((one.problem.title, "bold"), "  ", (_WORDS[one.present], _STYLES[one.present]))
        body: list[RenderableType] = [Text(one.problem.statement, "dim")]
        for answer in one.answers:
            body += _answer(answer)
        parts += ["", head, Padding(Group(*body), (0, 0, 0, 2))]
    counts = [
        f"{number} {word}"
        for truth, word in _WORDS.items()
        if (number := sum(one.present is truth for one in found)) or truth is not Truth.NOT_ASKED
    ]
    return Group(*parts, "", Text(", ".join(counts), "bold"))


def _answer(answer: Answered) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text.assemble((_WORDS[answer.present], _STYLES[answer.present]), f"  {answer.question}")
    ]
    if len(answer.forms) > 1:
        parts.append(Padding(Text(f"{len(answer.forms)} forms: {', '.join(answer.forms)}"), (0, 0, 0, 2)))
    if answer.witness is not None:
        parts.append(classification.counterexample(answer.witness.to_json(), 2))
    for cost in answer.costs:
        parts.append(Padding(_cost(cost), (0, 0, 0, 2)))
    return parts


def _cost(cost: Cost) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    for line, fate in cost.lines:
        table.add_row(f"  {line}", Text(fate, "dim" if fate == "completes" else "yellow"))
    total = f"{cost.necessary} necessary and {cost.needless} needless traps, {cost.lost} lost"
    return Group(Text(f"{cost.trace}: {total} in {len(cost.lines)} instructions"), table)


def to_json(found: Sequence[FoundProblem], asking: Asking) -> dict[str, object]:
    """`popek/problems/1`."""
    return {
        "schema": "popek/problems/1",
        "machine": asking.subject.machine.name,
        "technique": asking.subject.technique.name,
        "configuration": dict(asking.subject.configuration.settings),
        "problems": [one.to_json() for one in found],
    }


def named(found: Sequence[FoundProblem]) -> list[Named]:
    """The witnesses, with what they are of."""
    return [
        Named(answer.witness.assembly, one.problem.name, answer.witness)
        for one in found
        for answer in one.answers
        if answer.witness is not None
    ]
