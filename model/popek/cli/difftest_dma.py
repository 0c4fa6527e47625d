"""`popek difftest dma`: thousands of DMA requests on QEMU's remapping unit, each compared with the rules."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .errors import UserError
from .options import AsJson
from .output import console, print_json, progress

_UNEXPECTED = 1
_WIDTHS = (39, 48)


def difftest_dma(
    *,
    cases: Annotated[int, Parameter(help="How many requests to try.")] = 2000,
    seed: Annotated[int, Parameter(help="Another seed gives other requests.")] = 1,
    width: Annotated[int, Parameter(help="The unit's address width: 39 or 48.")] = 39,
    json: AsJson = False,
) -> int:
    """Program root and context tables at random on QEMU's intel-iommu, let a device move data, and compare.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no QEMU.
    """
    from popek.emulators.qemu.dma import QemuError, compare, make_cases, summary

    if cases < 1:
        raise UserError(f"--cases {cases}: expected 1 or more")
    if width not in _WIDTHS:
        raise UserError(f"--width {width}: expected {' or '.join(map(str, _WIDTHS))}")
    try:
        with progress("comparing") as show:
            found = summary(compare(make_cases(cases, seed, width), width, show), width, seed)
    except QemuError as error:
        raise UserError(str(error)) from None
    if json:
        print_json(found)
    else:
        console().print(f"{found['cases']} requests on QEMU's intel-iommu, {width} bits, seed {seed}")
        for outcome, count in found["outcomes"].items():
            console().print(f"  {count:6}  {outcome}")
        console().print(f"rules that some request broke: {', '.join(found['rules_violated'])}")
        console().print(f"unexplained: {len(found['unexplained'])}")
        for one in found["unexplained"][:5]:
            console().print(
                f"  {one['unlike']}: {'write' if one['write'] else 'read'} at {one['address']}; {one['about']}"
            )
    return _UNEXPECTED if found["unexplained"] else 0
