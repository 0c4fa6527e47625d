"""`popek vti`: judge a VPD configuration, list what it must fulfil, and find the cheapest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from .errors import UserError
from .options import AsJson
from .output import console, print_json, progress

if TYPE_CHECKING:
    from popek.architectures.ia64.vti.configuration import Configuration
    from popek.architectures.ia64.vti.fidelity import Profile
    from popek.architectures.ia64.vti.requirements import Requirement
    from popek.architectures.ia64.vti.rules import Judgement
    from popek.assistance.vti_requirements import Failure, Witness

app = App(
    name="vti", help="Judge VT-i configurations (the virtual processor descriptor) and find the best one."
)

_SCHEMA = "popek/vti-verdict/1"
_SOUND, _REFUTED, _UNDECIDED = 0, 1, 3

Grants = Annotated[
    tuple[str, ...],
    Parameter(name="--grant", help="What the VMM leaves to the guest: kernel-registers, dcr, counters, ..."),
]
Readings = Annotated[
    tuple[str, ...], Parameter(name="--assume", help="An open point of the sources, such as CR_ANY_IC=1.")
]


@app.command
def check(
    file: Annotated[str | None, Parameter(help="A configuration as TOML or JSON.")] = None,
    /,
    *,
    vac: Annotated[str | None, Parameter(help="The VPD's acceleration control word.")] = None,
    vdc: Annotated[str | None, Parameter(help="The VPD's disable control word.")] = None,
    grant: Grants = ("kernel-registers", "dcr"),
    assume: Readings = (),
    derive: Annotated[bool, Parameter(help="Also derive fidelity and safety per instruction.")] = True,
    json: AsJson = False,
) -> int:
    """Judge a configuration by the rules V1 to V23, and by what its bits let a guest do.

    Exit code: 0 sound, 1 refused, unsafe or otherwise wrong, 2 bad input, 3 undecided.
    """
    from popek.architectures.ia64.vti.rules import BIT_RULES, judge

    configuration = _configuration(file, vac, vdc)
    judgement = judge(configuration, only=None if file else BIT_RULES)
    rows: list[Failure] = []
    if derive:
        from popek.assistance.vti_requirements import failures_under

        granted = {*grant, *configuration.dedicated}
        if all(rule.id != "V12" for rule in judgement.broken):
            granted.add("features")
        with progress("deriving") as show:
            rows = list(failures_under(configuration, _profile(sorted(granted), assume), progress=show))
    outcome = _outcome(judgement.outcome, rows)
    if json:
        print_json(_verdict(configuration, judgement, rows, outcome))
    else:
        _print_check(configuration, judgement, rows, outcome)
    return {"sound": _SOUND, "undecided": _UNDECIDED}.get(outcome, _REFUTED)


@app.command
def requirements(
    *,
    grant: Grants = ("kernel-registers", "dcr"),
    assume: Readings = (),
    every: Annotated[
        bool, Parameter(name="--all", negative="", help="Also instructions that ask nothing.")
    ] = False,
    json: AsJson = False,
) -> int:
    """List per instruction the weakest condition on the bits for fidelity and for safety."""
    found = _requirements(_profile(grant, assume))
    rows = [r for r in found if every or r.knobs or r.condition(r.sound) != "always"]
    if json:
        print_json(
            {
                "schema": "popek/vti-requirements/1",
                "instructions": [
                    {
                        "form": r.form,
                        "mnemonic": r.mnemonic,
                        "faithful": r.condition(r.faithful),
                        "safe": r.condition(r.safe),
                        "intercepted": r.condition(r.intercepts) if r.knobs else None,
                        "undecided": r.condition(r.undecided),
                    }
                    for r in rows
                ],
            }
        )
        return _UNDECIDED if any(r.undecided for r in found) else _SOUND
    from rich.table import Table

    table = Table(title="VT-i: what fidelity and safety ask of the control bits")
    for heading in ("instruction", "faithful when", "safe when", "may be intercepted when"):
        table.add_column(heading)
    for r in rows:
        intercepted = r.condition(r.intercepts) if r.knobs else ""
        table.add_row(r.form, r.condition(r.faithful), r.condition(r.safe), intercepted)
    console().print(table)
    return _UNDECIDED if any(r.undecided for r in found) else _SOUND


@app.command
def synthesize(
    *,
    grant: Grants = ("kernel-registers", "dcr"),
    assume: Readings = (),
    no_promotion_pages: Annotated[
        bool, Parameter(negative="", help="The guest has no executable page with access right 7.")
    ] = False,
    later: Annotated[bool, Parameter(negative="", help="Also use a_tf, a_ic_um and d_psr_i.")] = False,
    json: AsJson = False,
) -> int:
    """Find the faithful and safe control bits with the fewest intercepts."""
    from popek.architectures.ia64.vti.configuration import VAC_BITS, VDC_BITS
    from popek.architectures.ia64.vti.synthesis import synthesize as find

    found = _requirements(_profile(grant, assume))
    best = find(found, {"promotion_pages": int(not no_promotion_pages), "si": 1}, later=later)
    if best is None:
        raise UserError("no choice of control bits is faithful and safe under these assumptions")
    words = {
        name: sum(best.bits[bit] << number for bit, number in bits.items())
        for name, bits in (("vac", VAC_BITS), ("vdc", VDC_BITS))
    }
    if json:
        print_json(
            {
                "schema": "popek/vti-synthesis/1",
                **{name: hex(value) for name, value in words.items()},
                "bits": dict(best.bits),
                "intercepted": list(best.intercepted),
                "native": list(best.native),
                "open": list(best.open),
            }
        )
        return _SOUND
    lines = (
        ", ".join(f"{name} = {value:#x}" for name, value in words.items()),
        "set: " + (", ".join(name for name, value in best.bits.items() if value) or "nothing"),
        f"run without the VMM: {', '.join(best.native) or 'none'}",
        f"left open whatever the bits: {', '.join(best.open) or 'none'}",
    )
    for line in lines:
        console().print(line, soft_wrap=True)
    return _SOUND


# -- input -------------------------------------------------------------------------------------------


def _configuration(file: str | None, vac: str | None, vdc: str | None) -> Configuration:
    from popek.architectures.ia64.vti.configuration import ConfigurationError, from_mapping, load

    try:
        if file is not None:
            if vac is not None or vdc is not None:
                raise UserError("give a file or --vac and --vdc, not both")
            return load(file)
        if vac is None or vdc is None:
            raise UserError("expected a file, or both --vac and --vdc, such as --vac 0x7f --vdc 0x1")
        return from_mapping({"vac": vac, "vdc": vdc}, name="command line")
    except ConfigurationError as error:
        raise UserError(str(error)) from None


def _profile(grants: Sequence[str], readings: Sequence[str]) -> Profile:
    from popek.architectures.ia64.machine import ASSUMPTIONS
    from popek.architectures.ia64.vti.fidelity import GRANTS, Profile

    for name in grants:
        if name not in GRANTS:
            raise UserError(f"--grant {name}: expected one of {', '.join(GRANTS)}")
    assumed = {}
    for text in readings:
        name, sign, value = text.partition("=")
        if not sign or name.upper() not in ASSUMPTIONS or value not in ("0", "1"):
            raise UserError(
                f"--assume {text}: expected NAME=0 or NAME=1 with NAME of {', '.join(ASSUMPTIONS)}"
            )
        assumed[name.lower()] = int(value)
    return Profile(grants=frozenset(grants), assumed=assumed)


def _requirements(profile: Profile) -> list[Requirement]:
    from popek.assistance.vti_requirements import derive

    with progress("deriving") as show:
        return derive(profile, progress=show)


# -- output -------------------------------------------------------------------------------------------


def _outcome(by_rules: str, rows: Sequence[Failure]) -> str:
    """The worse of the rules' outcome and what was derived of instructions that the bits govern."""
    order = ("rejected", "unsafe", "undefined", "unfaithful", "vmm-defect", "undecided", "sound")
    derived = [row.verdict for row in rows if row.governed]
    found = [by_rules, *("undecided" if verdict == "unknown" else verdict for verdict in derived)]
    return min(found, key=order.index)


def _verdict(
    configuration: Configuration, judgement: Judgement, rows: Sequence[Failure], outcome: str
) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "name": configuration.name,
        "outcome": outcome,
        "broken": [
            {
                "id": rule.id,
                "text": rule.text,
                "consequence": rule.consequence.value,
                "why": rule.why,
                "confidence": rule.confidence,
                "source": rule.source,
            }
            for rule in judgement.broken
        ],
        "undecided": [rule.id for rule in judgement.undecided],
        "kept": [rule.id for rule in judgement.kept],
        "instructions": [row.to_json() for row in rows],
    }


def _print_check(
    configuration: Configuration,
    judgement: Judgement,
    rows: Sequence[Failure],
    outcome: str,
) -> None:
    shown = console()

    def line(text: str, style: str = "") -> None:
        shown.print(text, style=style, soft_wrap=True)

    line(f"{configuration.name}: {outcome}", "bold")
    for rule in judgement.broken:
        line(f"  {rule.id} broken ({rule.consequence.value}, confidence {rule.confidence}): {rule.text}")
        line(f"     {rule.why}; {rule.source}", "dim")
    if judgement.undecided:
        line(f"  not decided by what is given: {', '.join(rule.id for rule in judgement.undecided)}")
    for row in rows:
        if not row.governed:
            continue
        line(f"  {row.form}: {row.verdict}")
        for text in _witness_lines(row.witness):
            line(f"     {text}")
    left = [row.form for row in rows if not row.governed]
    if left:
        line(f"  whatever the bits, not faithful: {', '.join(left)}")


def _witness_lines(witness: Witness | None) -> Iterator[str]:
    if witness is None:
        return
    for title, state in (("guest", witness.guest), ("vmm", witness.vmm)):
        start = ", ".join(f"{name} = {value}" for name, value in state.items())
        yield f"{title} state: {start or 'plain'}"
    yield witness.assembly
    yield f"  guest's own machine: {witness.native}"
    yield f"  hardware: {witness.virtualized}"
