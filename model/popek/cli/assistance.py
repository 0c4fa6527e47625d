"""`popek compare`: kinds of hardware assistance side by side."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .errors import UserError
from .options import AsJson
from .output import console, print_json, progress


def compare(
    *names: str,
    only: Annotated[
        tuple[str, ...], Parameter(help="Questions, such as mode-bit or open; all by default.", negative="")
    ] = (),
    json: AsJson = False,
) -> int:
    """Put kinds of hardware assistance side by side: the same questions, asked of each.

    Args:
        names: such as vt-i and vt-x; all by default.
    """
    from popek.kernel.machine import UnknownNameError
    from popek.report import assistance as report
    from popek_proofs.assistance import comparison as proofs

    try:
        chosen, queries = proofs.find(names), proofs.find_queries(only)
    except UnknownNameError as error:
        raise UserError(str(error)) from None
    with progress("asking") as show:
        found = proofs.compare(chosen, queries, progress=show)
    if json:
        print_json(found.to_json())
    else:
        console().print(report.table(found))
    return 0
