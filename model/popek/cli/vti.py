"""`popek vti`: judge a VPD configuration, list what it must fulfil, and find the cheapest."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from .errors import UserError
from .options import AsJson
from .output import console, print_json

if TYPE_CHECKING:
    from popek.architectures.ia64.state import Ia64
    from popek.architectures.ia64.vti.configuration import Configuration
    from popek.architectures.ia64.vti.fidelity import Obligation, Profile
    from popek.architectures.ia64.vti.requirements import Assume, Requirement
    from popek.architectures.ia64.vti.rules import Judgement
    from popek.checks.runs import Run
    from popek.kernel.instruction import Instruction

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
    rows: list[dict[str, Any]] = []
    if derive:
        granted = {*grant, *configuration.dedicated}
        if all(rule.id != "V12" for rule in judgement.broken):
            granted.add("features")
        profile = _profile(sorted(granted), assume)
        rows = list(_judged(configuration, profile, progress=not json))
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
    found = _requirements(_profile(grant, assume), progress=not json)
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

    found = _requirements(_profile(grant, assume), progress=not json)
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


# -- the questions -----------------------------------------------------------------------------------


def _solver() -> Assume:
    """Ask a fresh solver per question."""
    from popek.checks.solver import Answer
    from popek.checks.verdict import Question

    known = {Answer.SAT: True, Answer.UNSAT: False, Answer.UNKNOWN: None}

    def assume(base: Sequence[Any]) -> Any:
        return lambda conditions: known[Question("VT-i", [*base, *conditions]).ask()[0]]

    return assume


def _explored(*, progress: bool) -> Iterator[tuple[Instruction, Run[Ia64]]]:
    from popek.architectures.ia64 import MACHINES
    from popek.checks.runs import explore_instruction

    machine = MACHINES["ia64"]()
    for instruction in _tracked(list(machine.instructions.values()), progress):
        yield instruction, explore_instruction(machine, instruction)


def _tracked(items: list[Any], progress: bool) -> Iterator[Any]:
    if not (progress and sys.stderr.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, "Deriving", console=Console(stderr=True), transient=True)


def _requirements(profile: Profile, *, progress: bool) -> list[Requirement]:
    from popek.architectures.ia64.vti.fidelity import obligation
    from popek.architectures.ia64.vti.requirements import requirement

    ask, explored = _solver(), _explored(progress=progress)
    return [requirement(obligation(instruction, run, profile), ask) for instruction, run in explored]


def _judged(configuration: Configuration, profile: Profile, *, progress: bool) -> Iterator[dict[str, Any]]:
    """Every instruction that the given bits do not make faithful and safe, with a witness."""
    from popek.architectures.ia64.vti.fidelity import ACCELERATIONS, DISABLES, obligation

    setting = {
        name: int(value)
        for name in (*ACCELERATIONS, *DISABLES)
        if (value := configuration.bit(name)) is not None
    }
    if configuration.promotion_pages is False:
        setting["promotion_pages"] = 0
    setting["si"] = 1 if configuration.machine_psr is None else configuration.machine_psr >> 23 & 1
    for name in ("a_tf", "a_ic_um", "d_psr_i"):
        setting.setdefault(name, 0)
    ask = _solver()
    for instruction, run in _explored(progress=progress):
        fixed = obligation(instruction, run, profile, setting)
        asker, given = ask(fixed.assumed), fixed.under(setting)
        for question in ("unsafe", "unfaithful"):
            condition = getattr(fixed, question)
            answer = False if condition.value == 0 else asker([*given, condition])
            if answer is not False:
                duty = obligation(instruction, run, profile)
                conditions = [*duty.assumed, *duty.under(setting), getattr(duty, question)]
                yield {
                    "form": instruction.form,
                    "mnemonic": instruction.mnemonic,
                    "verdict": question if answer else "unknown",
                    "governed": bool(duty.knobs),
                    "witness": _witness(duty, conditions, question) if answer else None,
                }
                break


def _witness(duty: Obligation, conditions: Sequence[Any], claim: str) -> dict[str, Any]:
    """A minimal case, run again on numbers: the guest's own machine beside the hardware."""
    from popek.architectures.ia64 import MACHINES
    from popek.architectures.ia64.state import Ia64
    from popek.architectures.ia64.vti.fidelity import probe
    from popek.checks.counterexample import ReplayError, differences, execute
    from popek.checks.verdict import Question
    from popek.checks.witness import find_minimal
    from popek.kernel.outcome import Next

    machine, question = MACHINES["ia64"](), Question(claim, conditions)
    _, model, solver = question.ask()
    if model is None or solver is None:
        raise ReplayError(f"{duty.instruction.form}: {claim} was satisfiable and is no more")
    probes = {name: probe(name, content).term for name, content in duty.guest.before.memories().items()}
    states = [duty.guest.before, duty.private]
    plain = Ia64.reset(psr__ic=1, psr__dt=1, psr__it=1, psr__rt=1, psr__i=1, psr__si=1)
    found = find_minimal(machine, duty.instruction, question, solver, model, states, probes, [plain, plain])
    guest, private = found.states
    native = execute(machine, duty.instruction, "guest's own machine", guest, found.operands)
    hardware = execute(machine, duty.instruction, "hardware", duty.image(guest, private), found.operands)
    if not isinstance(hardware.outcome, Next):
        raise ReplayError(f"{duty.instruction.form}: the witness for {claim} {hardware.describe()}")
    return {
        "assembly": duty.instruction.assembly(found.operands),
        "guest": {d.name: hex(d.after) for d in differences(plain, guest)},
        "vmm": {d.name: hex(d.after) for d in differences(plain, private)},
        "native": native.describe(),
        "virtualized": hardware.describe(),
    }


# -- output -------------------------------------------------------------------------------------------


def _outcome(by_rules: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The worse of the rules' outcome and what was derived of instructions that the bits govern."""
    order = ("rejected", "unsafe", "undefined", "unfaithful", "vmm-defect", "undecided", "sound")
    derived = [row["verdict"] for row in rows if row["governed"]]
    found = [by_rules, *("undecided" if verdict == "unknown" else verdict for verdict in derived)]
    return min(found, key=order.index)


def _verdict(
    configuration: Configuration, judgement: Judgement, rows: Sequence[Mapping[str, Any]], outcome: str
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
        "instructions": list(rows),
    }


def _print_check(
    configuration: Configuration,
    judgement: Judgement,
    rows: Sequence[Mapping[str, Any]],
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
        if not row["governed"]:
            continue
        line(f"  {row['form']}: {row['verdict']}")
        for text in _witness_lines(row["witness"]):
            line(f"     {text}")
    left = [row["form"] for row in rows if not row["governed"]]
    if left:
        line(f"  whatever the bits, not faithful: {', '.join(left)}")


def _witness_lines(witness: Mapping[str, Any] | None) -> Iterator[str]:
    if witness is None:
        return
    for title in ("guest", "vmm"):
        start = ", ".join(f"{name} = {value}" for name, value in witness[title].items())
        yield f"{title} state: {start or 'plain'}"
    yield witness["assembly"]
    yield f"  guest's own machine: {witness['native']}"
    yield f"  hardware: {witness['virtualized']}"
