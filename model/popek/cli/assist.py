"""`popek assist`: hardware assistance by the name of its technique; every question, from its declaration alone."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from .assist_input import (
    assert_possible,
    circumstances,
    configurations,
    desk_named,
    forms_named,
    mode_named,
    owner_of,
)
from .assist_interrupts import interrupts
from .assist_merge import merge
from .errors import UserError
from .options import HERE, AsJson, Jobs, Work
from .output import console, print_json, progress

app = App(
    name="assist",
    help="Hardware assistance (vt-x, vt-i, hypervisor-extension): what its controls must be, the best choice, "
    "and what real ones come to.",
)
app.command(interrupts)
app.command(merge)

Name = Annotated[str, Parameter(help="The technique, such as vt-x; or a Python file with an Assistance.")]
Own = Annotated[
    str | None,
    Parameter(
        help="What the VMM owns, comma-separated; `everything` is what it usually owns; `--own help` lists."
    ),
]
Grant = Annotated[
    tuple[str, ...],
    Parameter(name="--grant", negative="", help="What it leaves to the guest of that, such as counters."),
]
Assume = Annotated[
    tuple[str, ...],
    Parameter(name="--assume", negative="", help="What else holds: NAME or NAME=0; `--assume help` lists."),
]

_AS_EXPECTED, _REFUTED, _UNDECIDED = 0, 1, 3


@app.command(name="list")
def list_(*, json: AsJson = False) -> int:
    """List the kinds of hardware assistance, what a VMM can own under each, and what configurations are known."""
    from rich.table import Table

    from popek.machines import assistances

    known = [make() for make in assistances().values()]
    if json:
        rows = [
            {
                "name": a.name,
                "title": a.title,
                "source": a.source,
                "controls": [c.name for c in a.controls],
                "ownable": {name: item.summary for name, item in a.ownable.items()},
                "assume": dict(a.options),
                "modes": [mode for mode in a.modes if mode],
                "configurations": list(a.configurations()),
                "interrupts": a.interrupts is not None,
            }
            for a in known
        ]
        print_json({"schema": "popek/assistances/1", "assistances": rows})
        return _AS_EXPECTED
    table = Table("name", "title", "controls", "a VMM can own", "configurations", box=None, pad_edge=False)
    for a in known:
        configurations = ", ".join(a.configurations()) or "none"
        table.add_row(a.name, a.title, str(len(a.controls)), ", ".join(a.ownable), configurations)
    console().print(table)
    return _AS_EXPECTED


@app.command
def requirements(
    technique: Name,
    /,
    *instructions: str,
    own: Own = None,
    grant: Grant = (),
    assume: Assume = (),
    mode: Annotated[str, Parameter(help="The operating mode that the guest is in.")] = "",
    witnesses: Annotated[
        bool, Parameter(negative="", help="Show for each need what happens without it.")
    ] = False,
    every: Annotated[
        bool, Parameter(name="--all", negative="", help="Also instructions that ask nothing.")
    ] = False,
    json: AsJson = False,
) -> int:
    """List per instruction the weakest condition on the controls for fidelity and for safety.

    Exit code: 0 decided, 2 bad input, 3 something is undecided.

    Args:
        instructions: only these forms or mnemonics.
    """
    from popek.assistance.needs import derive
    from popek.report import assistance as report

    desk = desk_named(technique)
    owner, profile = owner_of(desk.assistance, own, grant, assume, mode_named(desk, mode))
    assert_possible(desk, profile, mode)
    forms = forms_named(desk, instructions) if instructions else desk.forms
    with progress("deriving") as show:
        found = list(derive(desk, forms, profile, mode=mode, witnesses=witnesses, progress=show))
    shown = [r for r in found if every or instructions or r.requirement.knobs or not r.requirement.always]
    if json:
        print_json(report.requirements_json(owner, shown))
    else:
        console().print(report.requirements(owner, shown))
    undecided = any(row.requirement.undecided & row.requirement.sound for row in found)
    return _UNDECIDED if undecided else _AS_EXPECTED


@app.command
def exits(technique: Name, /, *instructions: str, json: AsJson = False) -> int:
    """List which control decides about which exit: derived, beside the manual's exit reasons.

    Args:
        instructions: only these forms or mnemonics; one form of each instruction by default.
    """
    from popek.assistance.exits import Governed, governs
    from popek.report import assistance as report

    desk = desk_named(technique)
    forms = forms_named(desk, instructions) if instructions else desk.representatives()
    found: list[Governed] = []
    with progress("deriving") as show:
        for done, form in enumerate(forms, 1):
            found += governs(desk, form)
            if show is not None:
                show(done, len(forms))
    if json:
        print_json(report.exits_json(desk.assistance, found))
    else:
        console().print(report.exits(desk.assistance, found))
    return _AS_EXPECTED


@app.command
def synthesize(
    technique: Name,
    /,
    *,
    processor: Annotated[
        str | None, Parameter(help="A processor, such as a capability preset or file for vt-x.")
    ] = None,
    own: Own = None,
    grant: Grant = (),
    assume: Assume = (),
    given: Annotated[
        tuple[str, ...],
        Parameter(
            name="--given", negative="", help="NAME=0|1 of what nobody chooses, such as promotion_pages=0."
        ),
    ] = (),
    weights: Annotated[str | None, Parameter(help="A TOML file of MNEMONIC = how often it runs.")] = None,
    json: AsJson = False,
) -> int:
    """Find the controls that are faithful and safe, exist on the processor, and exit least.

    Exit code: 0 found, 1 there are none (the reason is printed), 2 bad input, 3 undecided: whether there are any, or
    whether an instruction keeps the promises under those that were found.
    """
    from popek.assistance.synthesis import WeightsError, load_weights, processor_of
    from popek.assistance.synthesis import synthesize as find
    from popek.kernel.assistance import AssistanceError
    from popek.report import assistance as report
    from popek.solving.solver import Answer

    desk = desk_named(technique)
    owner, _ = owner_of(desk.assistance, own, grant, assume)
    try:
        chosen = processor_of(desk, processor)
        frequency = {} if weights is None else load_weights(weights)
    except (AssistanceError, WeightsError) as error:
        raise UserError(str(error)) from None
    with progress("deriving") as show:
        found = find(
            desk,
            chosen,
            owner.names,
            assume=owner.assume,
            weights=frequency,
            circumstances=circumstances(desk.assistance, given),
            progress=show,
        )
    if json:
        print_json(report.synthesis_json(owner, found))
    else:
        console().print(report.synthesis(owner, found))
    if found.undecided:
        return _UNDECIDED
    return {Answer.SAT: _AS_EXPECTED, Answer.UNSAT: _REFUTED}.get(found.answer, _UNDECIDED)


What = Annotated[
    str | None, Parameter(help="A file, `-`, or a configuration that is known by name; see `--set`.")
]
Fields = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative="", help="FIELD=VALUE of a configuration, in the manual's names."),
]


@app.command
def judge(
    technique: Name,
    what: What = None,
    /,
    *,
    set_: Fields = (),
    witnesses: Annotated[bool, Parameter(help="Show a case for each harm.")] = True,
    jobs: Jobs = 0,
    json: AsJson = False,
) -> int:
    """Say which sensitive instructions run untrapped, whom that harms, and which exits are needless.

    Without a configuration, every known one is judged.
    Exit code: 0 no instruction harms a VMM whatever it owns, 1 some does.
    """
    from functools import partial

    from popek.assistance.judgement import judge as judged
    from popek.checks.workers import Workers
    from popek.machines import assistance as find_assistance
    from popek.report import assistance as report

    assistance = desk_named(technique).assistance
    one = what is not None or bool(set_)
    chosen = configurations(assistance, what, set_) if one else list(assistance.configurations().values())
    if not chosen:
        raise UserError(
            f"no configuration of {assistance.name} is known: name a file, or give --set FIELD=VALUE"
        )
    found = []
    again = partial(find_assistance, technique)
    with Workers(jobs) as workers, progress("judging") as show:
        for settings in chosen:
            found.append(
                judged(
                    assistance,
                    settings,
                    witnesses=witnesses and one,
                    workers=workers,
                    again=again,
                    progress=show,
                )
            )
    if json:
        answers = [judgement.to_json() for judgement in found]
        several = {"schema": "popek/assistance-judgements/1", "judgements": answers}
        print_json(answers[0] if one else several)
    elif not one:
        console().print(report.judgements(found))
    else:
        for judgement in found:
            console().print(report.judgement(judgement))
    return _AS_EXPECTED if all(judgement.safe_at_all for judgement in found) else _REFUTED


@app.command
def check(
    technique: Name,
    what: What = None,
    /,
    *,
    set_: Fields = (),
    own: Own = None,
    grant: Grant = (),
    assume: Assume = (),
    derive: Annotated[bool, Parameter(help="Also derive fidelity and safety per instruction.")] = True,
    json: AsJson = False,
) -> int:
    """Check a configuration for one VMM: by the manual's rules, and by what it lets a guest's instructions do.

    Exit code: 0 sound, 1 refused, unsafe or otherwise wrong, 2 bad input, 3 undecided.
    """
    from popek.assistance.judgement import check as checked
    from popek.kernel.assistance import AssistanceError
    from popek.report import assistance as report

    assistance = desk_named(technique).assistance
    if what is None and not set_:
        raise UserError("expected a configuration: a file, a known name, or --set FIELD=VALUE")
    owner, _ = owner_of(assistance, own, grant, assume)
    names = None if own is None and not grant else owner.names
    found = []
    for settings in configurations(assistance, what, set_):
        try:
            with progress("deriving") as show:
                found.append(
                    checked(assistance, settings, names, assume=owner.assume, derive=derive, progress=show)
                )
        except AssistanceError as error:
            raise UserError(f"{settings.name}: {error}") from None
    if json:
        answers = [one.to_json() for one in found]
        print_json(
            answers[0] if len(answers) == 1 else {"schema": "popek/assistance-checks/1", "checks": answers}
        )
    else:
        for one in found:
            console().print(report.checked(one), soft_wrap=True)
    outcomes = {one.outcome for one in found}
    if outcomes <= {"sound", "undecided"}:
        return _UNDECIDED if "undecided" in outcomes else _AS_EXPECTED
    return _REFUTED


@app.command
def gain(
    technique: Name,
    /,
    *instructions: str,
    processor: Annotated[str | None, Parameter(help="The processor whose controls are chosen.")] = None,
    json: AsJson = False,
) -> int:
    """Show side by side, per instruction: without the assistance, and with each choice of its controls.

    Exit code: 0 what was critical before is faithful and safe after, 1 it is not so.

    Args:
        instructions: only these forms or mnemonics.
    """
    from popek.assistance.gain import gain as gained
    from popek.kernel.assistance import AssistanceError
    from popek.report import assistance as report

    desk = desk_named(technique)
    forms = forms_named(desk, instructions) if instructions else None
    try:
        with progress("comparing") as show:
            found = gained(desk.assistance, forms, processor=processor, progress=show)
    except AssistanceError as error:
        raise UserError(str(error)) from None
    if json:
        print_json(found.to_json())
    else:
        console().print(report.gain(found))
    return _AS_EXPECTED if found.as_claimed else _REFUTED


@app.command
def compare(
    *names: str,
    only: Annotated[
        tuple[str, ...], Parameter(help="Questions, such as mode-bit or open; all by default.", negative="")
    ] = (),
    work: Work = HERE,
    json: AsJson = False,
) -> int:
    """Put kinds of hardware assistance side by side: the same questions, asked of each.

    Args:
        names: such as vt-i and vt-x; all by default.
    """
    from popek.kernel.machine import UnknownNameError
    from popek.machines import assistances
    from popek.report import assistance as report
    from popek_proofs.assistance import comparison as proofs

    wanted = list(dict.fromkeys(names or assistances()))
    chosen = [proofs.Compared(desk_named(name)) for name in wanted]
    try:
        queries = proofs.find_queries(only)
    except UnknownNameError as error:
        raise UserError(str(error)) from None
    with work.begun(), progress("asking") as show:
        found = proofs.compare(chosen, queries, found_as=wanted, jobs=work.jobs, progress=show)
    if json:
        print_json(found.to_json())
    else:
        console().print(report.table(found))
    return _AS_EXPECTED
