"""`popek bench`: speed."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from popek.machines import usual

from . import figures
from .figures import Svg
from .options import AsJson
from .output import console, print_json, progress
from .resolving import known_names


def bench(
    *parts: str,
    machine: str = usual(),
    only: Annotated[tuple[str, ...], Parameter(help="These forms or mnemonics alone.", negative="")] = (),
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Measure speed in one run: of classifying beside the solver's, and rates of the rest.

    Args:
        parts: classify, steps, laws, vmcs, difftest; all by default.
        machine: a name that `popek machines` lists, or a Python file that declares one.
    """
    from popek.benchmark import PARTS, benchmark
    from popek.report import benchmark as report

    figures.assert_writable(svg)
    with known_names(), progress("measuring") as show:
        found = benchmark(machine, only, parts=parts or PARTS, progress=show)
    if svg is not None:
        figures.write(report.figure(found), svg)
    if json:
        print_json(found.to_json())
    else:
        console().print(report.benchmark(found))
    return 0
