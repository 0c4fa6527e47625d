"""`popek classify --technique all`: a machine under each of its techniques."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import Parameter

from .errors import UserError
from .kept import told_of_the_store
from .output import console, print_json, progress

if TYPE_CHECKING:
    from popek.checks.survey import Request

ALL = "all"
Technique = Annotated[
    str | None,
    Parameter(
        name="--technique",
        help=f"A way to virtualize it, or {ALL} of the machine's; its first by default.",
    ),
]


def classify(request: Request, forms: Sequence[str] | None, *, jobs: int, json: bool) -> int:
    """Print the surveys, or those in one table where nothing but the classes was asked.

    Args:
        request: what to ask; its technique is the first of them.
        forms: only these.

    Returns:
        The exit code.
    """
    from popek.checks.every_technique import surveys
    from popek.report import classification, letter, techniques

    subject = request.subject
    requests = [
        attrs.evolve(request, subject=attrs.evolve(subject, technique=technique))
        for technique in subject.machine.techniques.values()
    ]
    with progress("classifying") as show:
        found = surveys(requests, forms=forms, jobs=jobs, progress=show)
    told_of_the_store([row for one in found for row in one.rows])
    if json:
        whole = {"schema": "popek/classifications/1", "classifications": [one.to_json() for one in found]}
        print_json(whole)
    elif request.by_the_letter or request.promises:
        report = letter if request.by_the_letter else classification
        for one in found:
            console().print(report.survey(one))
            console().print()
    else:
        console().print(techniques.surveys(subject.machine, found))
    return 3 if any(one.unknown for one in found) else 0


def assert_possible(settings: Sequence[str], symbolic: str, svg: Path | None, expect: Path | None) -> None:
    """Refuse what is about one technique."""
    left_open = [f"--set {text}" for text in settings if text.endswith("=?")]
    left_open += [f"--symbolic {symbolic}"] if symbolic else []
    files = {"--svg": svg, "--expect": expect}
    given = [f"{option} {file}" for option, file in files.items() if file is not None]
    for option in (*left_open, *given):
        raise UserError(f"{option}: expected with one technique, and --technique {ALL} asks about each")
