"""`popek vmcs repair`, `generate`, `rules` and `compare`: what takes a solver, beside the commands of `vmcs`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from . import figures
from .dumps import (
    Keep,
    exit_code,
    kept_fields,
    one_clear_line,
    one_line,
    print_rules,
    print_several,
    shown_name,
    terminal,
)
from .errors import UserError
from .figures import Svg
from .options import ALONE, AsJson, Work
from .output import print_json, progress, working
from .vmcs import File, Processor, app, processor_of, read, wanted_processor

if TYPE_CHECKING:
    from collections.abc import Callable

    from popek.architectures.vtx.capabilities import Capabilities
    from popek.vmcs.standing import Answers

_FAILS, _DIFFERENT, _UNDECIDED = 1, 1, 3


@app.command
def repair(
    file: File,
    /,
    *,
    capabilities: Processor = None,
    keep: Keep = None,
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Find the smallest set of bits to change so that the entry succeeds, or say why there is none.

    The figure shows the fields to change bit by bit.

    Exit code: 0 it succeeds with the changes, 1 no repair, 2 bad input, 3 something stays undecided.
    """
    from popek.architectures.vtx.dumps.diagnosis import vmcs_of
    from popek.architectures.vtx.fields import find
    from popek.report.vmcs_repair import print_repair
    from popek.vmcs.edits import end_of
    from popek.vmcs.repair import repair as smallest

    kept = kept_fields(keep, find)
    figures.assert_writable(svg)
    dumps = read(file)
    processors = [processor_of(dump, capabilities, file) for dump in dumps]
    with working("searching"):
        found = [
            smallest(vmcs_of(dump), known, keep=kept) for dump, known in zip(dumps, processors, strict=True)
        ]
    if json:
        answers = [{**item.to_json(), "name": dump.name} for dump, item in zip(dumps, found, strict=True)]
        print_several(answers)
    else:
        for number, (dump, item) in enumerate(zip(dumps, found, strict=True)):
            if number:
                terminal().print()
            print_repair(terminal(), dump.name, item)
    if svg is not None:
        from popek.architectures.vtx.dumps.bits import decode
        from popek.architectures.vtx.fields import FIELDS

        figures.write(figures.of_changes(found, FIELDS, decode), svg)
    return exit_code([end_of(item) for item in found])


_GENERATES_FOR = "bochs-tigerlake"


@app.command
def generate(
    *,
    violate: Annotated[str, Parameter(help="A check's id, such as GUEST-CR-09.")],
    count: Annotated[int, Parameter(help="How many VMCSs.")] = 10,
    seed: Annotated[int, Parameter(help="Another seed gives other VMCSs.")] = 1,
    capabilities: Processor = None,
    work: Work = ALONE,
) -> int:
    """Print VMCSs at the edge of one check as JSON Lines, which `popek vmcs check --jsonl` reads.

    They violate that check and no other (`"violates": true`) or, in turn, are one bit away from doing so and
    violate none. Exit code: 0, 1 no such VMCS, 2 bad input.
    """
    from popek.architectures.vtx.entry_checks import CHECKS
    from popek.vmcs.generate import blocks
    from popek.work import results

    check_id = violate.upper()
    if check_id not in CHECKS:
        raise UserError(
            f"--violate {shown_name(violate)}: no check has this id; `popek vmcs explain` knows them"
        )
    if count < 1:
        raise UserError(f"--count {count}: expected a number above 0")
    wanted = capabilities or _GENERATES_FOR
    _complete_processor(wanted)  # what is wrong with it is said before anything is made
    with work.begun():
        for lines, impossible in results(
            _generating, (check_id, seed, wanted), blocks(count), jobs=work.jobs
        ):
            sys.stdout.write(lines)
            if impossible:
                sys.stderr.write(f"popek: {impossible}\n")
                return _FAILS
    return 0


def _generating(check_id: str, seed: int, wanted: str) -> Callable[[tuple[int, int]], tuple[str, str]]:
    """What makes a block of VMCSs: as lines, and why there is none, where the first block has none."""
    from popek.architectures.vtx.capability_files import presets, to_mapping
    from popek.vmcs.edges import Impossible, edge_json
    from popek.vmcs.generate import TOGETHER
    from popek.vmcs.generate import generate as edges

    known = _complete_processor(wanted)
    named = wanted if wanted in presets() and known.name == wanted else to_mapping(known)

    def made(piece: tuple[int, int]) -> tuple[str, str]:
        block, count = piece
        lines: list[str] = []
        try:
            for edge in edges(check_id, count, seed, known, block=block):
                number = block * TOGETHER + len(lines) + 1
                lines.append(one_line(edge_json(edge, number, named, edge.found.memory)))
        except Impossible as error:
            return "", "" if block else str(error)
        return "".join(lines), ""

    return made


@app.command
def rules(*, capabilities: Processor = None, json: AsJson = False) -> int:
    """Ask about the checks themselves: can all pass, which can fail alone, and which are shadowed by others.

    Without --capabilities the question is asked for the presets of real processors.
    """
    from popek.vmcs.redundancy import ask

    answers: list[Answers] = []
    with progress("asking") as show:
        chosen = _processors(capabilities)
        for known in chosen:
            if show is not None:
                show(len(answers), len(chosen))
            answers.append(ask(known))
    print_rules(answers, json=json, one=capabilities is not None)
    return 0


@app.command
def compare(
    *,
    with_: Annotated[str, Parameter(name="--with", help="A rule set: a patch (.toml) or a Python file.")],
    capabilities: Processor = None,
    json: AsJson = False,
) -> int:
    """Compare the checks with another rule set: equivalent, or here is a VMCS that shows the difference.

    Without --capabilities they are compared on the presets of real processors, up to the first difference.
    Exit code: 0 equivalent, 1 different, 2 bad input, 3 undecided.
    """
    from popek.report.vmcs_repair import print_rule_comparison
    from popek.vmcs.compare import compare_rules
    from popek.vmcs.rule_files import RuleFileError, load_rules

    try:
        other = load_rules(with_)
    except RuleFileError as error:
        raise UserError(one_clear_line(error)) from None
    except OSError as error:
        raise UserError(f"{shown_name(with_)}: {(error.strerror or 'cannot be read').lower()}") from None
    found = []
    with working("comparing"):
        for known in _processors(capabilities):
            found.append(compare_rules(other, known))
            if found[-1].answer.value == "sat":
                break
    answers = {item.answer.value for item in found}
    if "sat" in answers:
        found = found[-1:]
    if json:
        shown = [item.to_json() for item in found]
        print_json(shown[0] if len(shown) == 1 else shown)
    else:
        for item in found:
            print_rule_comparison(terminal(), item)
    return _DIFFERENT if "sat" in answers else _UNDECIDED if "unknown" in answers else 0


def _processors(wanted: str | None) -> list[Capabilities]:
    """The processor that `--capabilities` names, else the real ones that are known."""
    from popek.architectures.vtx.capability_files import presets

    if wanted is not None:
        return [_complete_processor(wanted)]
    return [_complete_processor(name) for name in presets() if not name.startswith("bochs-")]


def _complete_processor(wanted: str) -> Capabilities:
    """A processor of which everything is known: the rest is as on processors without relaxations."""
    import attrs

    from popek.architectures.vtx.dumps.processors import ReportedProcessor

    known = wanted_processor(wanted)
    plain = ReportedProcessor(known).plain.known
    given = attrs.evolve(plain, features=known.features)
    return (
        known
        if given == known
        else attrs.evolve(plain, name=f"{known.name}, the rest as on plain processors")
    )
