"""`popek compare`: kinds of hardware assistance side by side."""

from __future__ import annotations

import json as jsons
from typing import Annotated

from cyclopts import Parameter

from .errors import UserError


def compare(
    *names: str,
    only: Annotated[
        tuple[str, ...], Parameter(help="Questions, such as mode-bit or open; all by default.", negative="")
    ] = (),
    json: Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")] = False,
) -> int:
    """Put kinds of hardware assistance side by side: the same questions, asked of each.

    Args:
        names: such as vt-i and vt-x; all by default.
    """
    from popek.kernel.machine import UnknownNameError
    from popek.report import assistance as report
    from popek_proofs import hardware_assistance as proofs

    from . import console, progress

    try:
        chosen, queries = proofs.find(names), proofs.find_queries(only)
    except UnknownNameError as error:
        raise UserError(str(error)) from None
    with progress("asking") as show:
        found = proofs.compare(chosen, queries, progress=show)
    if json:
        print(jsons.dumps(found.to_json(), indent=2, sort_keys=True))
    else:
        console().print(report.table(found))
    return 0
