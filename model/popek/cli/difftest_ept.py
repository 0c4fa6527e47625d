"""`popek difftest ept`: references of a guest through EPT entries drawn at random, on Bochs and by the rules."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .errors import UserError
from .options import AsJson
from .output import console, print_json, working

_SHOWN = 5


def difftest_ept(
    *,
    cases: Annotated[int, Parameter(help="How many references to try.")] = 1000,
    seed: Annotated[int, Parameter(help="Another seed gives other tables.")] = 1,
    json: AsJson = False,
) -> int:
    """Let a guest on Bochs read, write and jump through EPT tables, and compare exits, qualifications and flags.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no Bochs.
    """
    from popek.emulators.bochs.simulator import BochsError
    from popek.emulators.non_root.second_stage import compare_ept, ept_summary, make_ept_cases

    if cases < 1:
        raise UserError(f"--cases {cases}: expected 1 or more")
    try:
        with working("comparing"):
            found = ept_summary(compare_ept(make_ept_cases(cases, seed)), seed)
    except BochsError as error:
        raise UserError(str(error)) from None
    left = found["unexplained"]
    if json:
        print_json(found)
        return int(bool(left))
    lines = [f"{found['cases']} references of a guest on Bochs, seed {seed}"]
    lines += [f"  {count:6}  {rule}" for rule, count in found["outcomes"].items()]
    lines += [f"known deviation {name}: {count}" for name, count in found["deviations"].items()]
    lines += [f"unexplained: {len(left)}"]
    lines += [f"  {one['unlike']}: {one['case']['kind']}, {one['case']['about']}" for one in left[:_SHOWN]]
    for line in lines:
        console().print(line)
    return int(bool(left))
