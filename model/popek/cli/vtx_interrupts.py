"""`popek vtx interrupts`: what a guest is given and when, by induction; traces where a control is dropped."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from . import figures
from .errors import UserError
from .figures import Svg
from .options import AsJson
from .output import console, print_json, working

_HOLDS, _REFUTED, _UNKNOWN = 0, 1, 3


def interrupts(
    *,
    drop: Annotated[
        tuple[str, ...],
        Parameter(
            name="--drop",
            help="A control (external-interrupt-exiting, interrupt-window-exiting, nmi-exiting, virtual-nmis, "
            "nmi-window-exiting) or a duty of the VMM (look-at-if, look-at-shadow, look-at-nmi-blocking, "
            "inject-at-windows) to leave out.",
        ),
    ] = (),
    form: Annotated[
        tuple[str, ...],
        Parameter(name="--form", help="Instruction forms of the guest; 'all' for every one."),
    ] = (),
    sti_blocks_nmi_window: Annotated[
        bool, Parameter(help="Whether the processor holds off NMI-window exits while STI blocks events.")
    ] = True,
    json: AsJson = False,
    svg: Svg = None,
) -> int:
    """Prove that interrupts reach the guest when they may and only then, or show a shortest trace that breaks it.

    Exit code: 0 every promise holds, 1 one is refuted, 2 bad input, 3 one is unknown.
    """
    from popek.kernel.machine import UnknownNameError
    from popek.report import interrupts as report
    from popek_proofs.assistance.vtx_interrupts import prove, setup_of

    figures.assert_writable(svg)
    try:
        setup = setup_of(drop, sti_blocks_nmi_window=sti_blocks_nmi_window)
        with working("proving"):
            found = prove(setup, list(form) or None)
    except UnknownNameError as error:
        raise UserError(str(error)) from None
    if svg is not None:
        if not found.traces:
            raise UserError(f"--svg {svg}: draws a trace, and every promise holds; see --drop")
        figures.write(report.figure(found.traces[0]), svg)
    if json:
        print_json({"schema": "popek/vtx-interrupts/1", **found.to_json()})
    else:
        console().print(report.result(found))
    statuses = {status.value for _, _, status in found.promises}
    if "refuted" in statuses:
        return _REFUTED
    return _UNKNOWN if "unknown" in statuses else _HOLDS
