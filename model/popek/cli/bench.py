"""`popek bench`: speed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from popek.machines import usual

from . import figures
from .errors import UNEXPECTED
from .figures import Svg
from .options import AsJson
from .output import console, print_json, progress
from .resolving import known_names


def bench(
    *parts: str,
    machine: str = usual(),
    only: Annotated[tuple[str, ...], Parameter(help="These forms or mnemonics alone.", negative="")] = (),
    compare: Annotated[
        Path | None,
        Parameter(help="What --json printed before: its ratios beside these; exit code 1 if one is worse."),
    ] = None,
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Measure speed in one run: of classifying beside the solver's, and rates of the rest.

    Args:
        parts: classify, growth, start, steps, laws, vmcs, difftest, commands; all by default.
        machine: a name that `popek machines` lists, or a Python file that declares one.
    """
    from popek.benchmark import PARTS, benchmark
    from popek.benchmark.comparing import changes, read_benchmark
    from popek.report import benchmark as report

    figures.assert_writable(svg)
    before = None if compare is None else read_benchmark(compare)
    with known_names(), progress("measuring") as show:
        found = benchmark(machine, only, parts=parts or PARTS, progress=show)
    if svg is not None:
        figures.write(report.figure(found), svg)
    compared = [] if before is None else changes(before, found)
    if json:
        told = {} if before is None else {"compared": [attrs.asdict(one) for one in compared]}
        print_json(found.to_json() | told)
    else:
        console().print(report.benchmark(found))
        if before is not None:
            console().print(report.compared(compared))
    return UNEXPECTED if any(one.worse for one in compared) else 0
