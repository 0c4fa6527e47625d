"""`popek vmcb repair`, `generate` and `rules`: what takes a solver, beside the commands of `vmcb`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from . import figures
from .dumps import (
    FAILS,
    Keep,
    exit_code,
    kept_fields,
    one_line,
    print_rules,
    print_several,
    shown_name,
    terminal,
)
from .errors import UserError
from .figures import Svg
from .options import AsJson
from .output import progress, working
from .vmcb import File, Processor, Width, app, processor_of, read, wanted_processor

if TYPE_CHECKING:
    from popek.architectures.svm.vmcb import SvmProcessor
    from popek.vmcs.standing import Answers

_GENERATES_FOR = "zen4"


@app.command
def repair(
    file: File,
    /,
    *,
    keep: Keep = None,
    maxphyaddr: Width = None,
    capabilities: Processor = None,
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Find the smallest set of bits to change so that VMRUN enters the guest, or say why there is none.

    Exit code: 0 it enters with the changes, 1 no repair, 2 bad input, 3 something stays undecided.
    """
    from popek.architectures.svm.vmcb import find
    from popek.report.vmcb import WORDS
    from popek.report.vmcs_repair import print_repair
    from popek.vmcs.edits import end_of
    from popek.vmcs.vmcb import repair_vmcb

    kept = kept_fields(keep, find)
    figures.assert_writable(svg)
    wanted = wanted_processor(capabilities, maxphyaddr)
    dumps = read(file)
    with working("searching"):
        found = [repair_vmcb(dump.vmcb, processor_of(dump, wanted, maxphyaddr), keep=kept) for dump in dumps]
    if json:
        answers = [item.to_json() for item in found]
        print_several(answers)
    else:
        for number, (dump, item) in enumerate(zip(dumps, found, strict=True)):
            if number:
                terminal().print()
            print_repair(terminal(), dump.vmcb.name, item, WORDS)
    if svg is not None:
        from popek.architectures.svm.vmcb import FIELDS
        from popek.report.vmcb import decode

        figures.write(figures.of_changes(found, FIELDS, decode), svg)
    return exit_code([end_of(item) for item in found])


@app.command
def generate(
    *,
    violate: Annotated[str, Parameter(help="A check's id, such as SVM-CR-06.")],
    count: Annotated[int, Parameter(help="How many VMCBs.")] = 10,
    seed: Annotated[int, Parameter(help="Another seed gives other VMCBs.")] = 1,
    capabilities: Processor = None,
    maxphyaddr: Width = None,
) -> int:
    """Print VMCBs at the edge of one check as JSON Lines, which `popek vmcb check --jsonl` reads.

    They violate that check and no other (`"violates": true`) or, in turn, are one bit away from doing so and
    violate none. Exit code: 0, 1 no such VMCB, 2 bad input.
    """
    from popek.architectures.svm.capabilities import to_mapping
    from popek.architectures.svm.checks import CHECKS, NOT_MODELLED
    from popek.vmcs.edges import Impossible, edge_json
    from popek.vmcs.vmcb import generate_vmcbs

    check_id = violate.upper()
    if check_id in NOT_MODELLED:
        raise UserError(f"--violate {check_id}: not modelled: {NOT_MODELLED[check_id]}")
    if check_id not in CHECKS:
        raise UserError(
            f"--violate {shown_name(violate)}: no check has this id; `popek vmcb explain` knows them"
        )
    if count < 1:
        raise UserError(f"--count {count}: expected a number above 0")
    known = _complete(capabilities or _GENERATES_FOR, maxphyaddr)
    try:
        for number, edge in enumerate(generate_vmcbs(check_id, count, seed, known), 1):
            memory = [(address, 8, value) for address, value in edge.found.memory.items()]
            sys.stdout.write(one_line(edge_json(edge, number, to_mapping(known), memory)))
    except Impossible as error:
        sys.stderr.write(f"popek: {error}\n")
        return FAILS
    return 0


@app.command
def rules(*, capabilities: Processor = None, maxphyaddr: Width = None, json: AsJson = False) -> int:
    """Ask about the checks themselves: can all pass, which can fail alone, and which are shadowed by others.

    Without --capabilities the question is asked for every processor that has a name.
    """
    from popek.architectures.svm.capabilities import presets
    from popek.vmcs.vmcb import ask_vmcb

    answers: list[Answers] = []
    with progress("asking") as show:
        chosen = [capabilities] if capabilities is not None else list(presets())
        for name in chosen:
            if show is not None:
                show(len(answers), len(chosen))
            answers.append(ask_vmcb(_complete(name, maxphyaddr), shown_name(name)))
    print_rules(answers, json=json, one=capabilities is not None)
    return 0


def _complete(wanted: str, maxphyaddr: int | None) -> SvmProcessor:
    """A processor of which everything is known: what is not said of it it does not have, and its width is 48."""
    from popek.architectures.svm.capabilities import completed

    known = wanted_processor(wanted, maxphyaddr)
    assert known is not None
    return completed(known, maxphyaddr)
