"""`popek vtx`: what VT-x must be set to, the cheapest setting, and what real settings come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from .errors import UserError
from .options import AsJson, Jobs
from .output import console, print_json, progress
from .vtx_interrupts import interrupts

if TYPE_CHECKING:
    from popek.architectures.vtx.operation.ownership import Profile
    from popek.architectures.vtx.operation.settings import Settings

app = App(name="vtx", help="VT-x as a virtualization technique: which control settings keep the promises.")

app.command(interrupts)

Own = Annotated[
    str,
    Parameter(
        help="What the VMM owns, comma-separated; `everything` is all that EPT leaves; `--own help` lists."
    ),
]
Unrestricted = Annotated[
    bool, Parameter(negative="", help="The guest may leave protected mode and paging on the hardware.")
]

_AS_EXPECTED, _REFUTED, _UNDECIDED = 0, 1, 3


@app.command
def requirements(
    *instructions: str,
    own: Own = "everything",
    unrestricted: Unrestricted = False,
    mode: Annotated[
        Literal["protected", "virtual-8086", "real"],
        Parameter(help="The mode that the guest is in; `real` is for an unrestricted guest."),
    ] = "protected",
    witnesses: Annotated[
        bool, Parameter(negative="", help="Show for each need what happens without it.")
    ] = False,
    every: Annotated[
        bool, Parameter(name="--all", negative="", help="Also instructions that ask nothing.")
    ] = False,
    json: AsJson = False,
) -> int:
    """List per instruction the weakest condition on the controls for fidelity and for safety.

    Args:
        instructions: only these forms or mnemonics.
    """
    from popek.assistance.vtx_requirements import derive, governed_forms
    from popek.report import vtx as report

    owned = _profile(own, unrestricted)
    if mode == "real" and not unrestricted:
        raise UserError(
            "--mode real: only an unrestricted guest is in real-address mode on the hardware; add --unrestricted"
        )
    forms = _forms(instructions) if instructions else governed_forms()
    found = []
    with progress("deriving") as show:
        for row in derive(forms, owned, mode=mode, witnesses=witnesses or json):
            found.append(row)
            if show is not None:
                show(len(found), len(forms))
    shown = [row for row in found if every or instructions or row.requirement.knobs or not row.always]
    if json:
        print_json(report.requirements_json(owned, shown, mode))
    else:
        console().print(report.requirements(owned, shown, mode))
    return (
        _UNDECIDED
        if any(row.requirement.undecided & row.requirement.sound for row in found)
        else _AS_EXPECTED
    )


@app.command
def exits(*, json: AsJson = False) -> int:
    """List which control decides about which exit, derived, beside the manual's exit reasons."""
    from popek.assistance.vtx_requirements import governed_forms, governs, representatives
    from popek.report import vtx as report

    forms = representatives(governed_forms())
    found = []
    with progress("deriving") as show:
        for form in forms:
            found.append(governs(form))
            if show is not None:
                show(len(found), len(forms))
    if json:
        print_json(report.exits_json(found))
    else:
        console().print(report.exits(found))
    return _AS_EXPECTED


@app.command
def synthesize(
    *,
    capabilities: Annotated[
        str, Parameter(help="A capability preset, or a file as `popek vmcs check` takes it.")
    ],
    own: Own = "everything",
    unrestricted: Unrestricted = False,
    weights: Annotated[str | None, Parameter(help="A TOML file of MNEMONIC = how often it runs.")] = None,
    json: AsJson = False,
) -> int:
    """Find the controls that are faithful and safe, pass every VM-entry check, and exit least.

    Exit code: 0 found, 1 there are none (the reason is printed), 2 bad input, 3 undecided.
    """
    from popek.architectures.vtx.capability_files import CapabilityError, load_capabilities
    from popek.assistance.vtx_synthesis import WeightsError, load_weights
    from popek.assistance.vtx_synthesis import synthesize as find
    from popek.report import vtx as report
    from popek.solving.solver import Answer

    owned = _profile(own, unrestricted)
    try:
        processor = load_capabilities(capabilities)
        frequency = {} if weights is None else load_weights(weights)
    except (CapabilityError, WeightsError) as error:
        raise UserError(str(error)) from None
    with progress("deriving") as show:
        found = find(processor, owned, weights=frequency, progress=show)
    if json:
        print_json(found.to_json())
    else:
        console().print(report.synthesis(found, processor.name))
    return {Answer.SAT: _AS_EXPECTED, Answer.UNSAT: _REFUTED}.get(found.answer, _UNDECIDED)


@app.command
def judge(
    what: Annotated[
        str | None, Parameter(help="A VMCS dump, `-`, or a hypervisor; every known hypervisor by default.")
    ] = None,
    /,
    *,
    witnesses: Annotated[bool, Parameter(help="Show a case for each harm.")] = True,
    jobs: Jobs = 0,
    json: AsJson = False,
) -> int:
    """Say which sensitive instructions run untrapped, whom that harms, and which exits are needless.

    Exit code: 0 no instruction harms a VMM whatever it owns, 1 some does.
    """
    from popek.assistance.vtx_judgement import judge as judged
    from popek.checks.workers import Workers
    from popek.report import vtx as report

    chosen = _settings(what)
    found = []
    shown = witnesses and what is not None
    with Workers(jobs) as workers, progress("judging") as show:
        for settings in chosen:
            found.append(judged(settings, witnesses=shown, workers=workers, progress=show))
    if json:
        answers = [judgement.to_json() for judgement in found]
        print_json(
            answers[0] if what is not None else {"schema": "popek/vtx-judgements/1", "judgements": answers}
        )
    elif what is None:
        console().print(report.judgements(found))
    else:
        for judgement in found:
            console().print(report.judgement(judgement))
    return _AS_EXPECTED if all(judgement.safe_at_all for judgement in found) else _REFUTED


@app.command
def compare(*, json: AsJson = False) -> int:
    """Show side by side, per instruction: ring deprivileging, VT-x of 2005, and VT-x with synthesized controls."""
    from popek.assistance.vtx_comparison import compare as compared
    from popek.report import vtx as report

    with progress("comparing") as show:
        found = compared(progress=show)
    if json:
        print_json(found.to_json())
    else:
        console().print(report.comparison(found))
    return _AS_EXPECTED if found.as_claimed else _REFUTED


# -- input -------------------------------------------------------------------------------------------


def _profile(own: str, unrestricted: bool) -> Profile:
    from popek.architectures.vtx.operation.ownership import EVERYTHING, OWNABLE, ProfileError, profile

    names = {name.strip() for name in own.split(",") if name.strip()}
    if "help" in names:
        raise UserError("--own takes " + "; ".join(f"{name}: {text}" for name, text in OWNABLE.items()))
    if "everything" in names:
        names = (names - {"everything"}) | EVERYTHING
    try:
        return profile(names, unrestricted=unrestricted)
    except ProfileError as error:
        raise UserError(f"--own {own}: {error}") from None


def _forms(names: Sequence[str]) -> list[str]:
    from popek.assistance.vtx_requirements import machine
    from popek.kernel.machine import UnknownNameError

    try:
        return [instruction.form for name in names for instruction in machine().find(name)]
    except UnknownNameError as error:
        raise UserError(str(error)) from None


def _settings(what: str | None) -> list[Settings]:
    from pathlib import Path

    from popek.architectures.vtx.operation.settings import SettingsError, hypervisors, of_vmcs

    known = hypervisors()
    if what is None:
        return list(known.values())
    by_name = {name.lower(): settings for name, settings in known.items()}
    if what.lower() in by_name:
        return [by_name[what.lower()]]
    if what != "-" and not Path(what).exists():
        import difflib

        near = difflib.get_close_matches(what.lower(), by_name, 2, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise UserError(f"{what}: neither a file nor a hypervisor; {hint}")
    from popek.architectures.vtx.vmcs import Vmcs

    from .vmcs import read

    try:
        return [of_vmcs(Vmcs(dump.name, dump.fields, default=dump.default)) for dump in read(what)]
    except SettingsError as error:
        raise UserError(str(error)) from None
