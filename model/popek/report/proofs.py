"""Propositions and their instances on machines, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from popek.checks.premise import THEOREM1, THEOREM3, TITLES
from popek.checks.verdict import Status, Truth

from . import classification
from .wording import evidence

if TYPE_CHECKING:
    from popek_proofs.theorems.instantiate import Instantiation
    from popek_proofs.theorems.proposition import Proof, ProofReport

STYLES = {
    Status.HOLDS: "bold green",
    Status.REFUTED: "bold red",
    Status.UNKNOWN: "yellow",
    Status.NOT_ASKED: "dim",
}
MANY_FORMS = 6
MANY = 3  # propositions up to which their counterexample tables are shown


def propositions(found: ProofReport) -> RenderableType:
    """A line per proposition; for a few of them, what each hypothesis is for."""
    table = Table("proposition", "verdict", "solvers", "hypotheses", "needed", "", box=None, pad_edge=False)
    table.columns[5].overflow = "fold"
    for proof in found.proofs:
        solvers = ", ".join(f"{name} {answer.value}" for name, answer in sorted(proof.answers.items()))
        needed = sum(need.needed is Truth.YES for need in proof.needs)
        table.add_row(
            Text(proof.proposition.id, "bold"),
            Text(
                proof.verdict.value + (" (vacuous)" if proof.vacuous is Truth.YES else ""),
                STYLES[proof.verdict],
            ),
            solvers,
            str(len(proof.proposition.hypotheses)),
            str(needed) if proof.needs else "",
            Text(proof.proposition.statement, "dim"),
        )
    parts: list[RenderableType] = [table]
    if len(found.proofs) <= MANY:
        for proof in found.proofs:
            parts += ["", _details(proof)]
    seconds = sum(proof.seconds for proof in found.proofs)
    held = sum(proof.verdict is Status.HOLDS for proof in found.proofs)
    parts += ["", Text(f"{held} of {len(found.proofs)} propositions hold; {seconds:.1f} s")]
    return Group(*parts)


def _details(proof: Proof) -> RenderableType:
    parts: list[RenderableType] = [
        Text(proof.proposition.id, "bold"),
        Text(f"{proof.proposition.statement}  [{proof.proposition.source}]"),
    ]
    for hypothesis in proof.proposition.hypotheses:
        given = f"  (by {hypothesis.by})" if hypothesis.by else ""
        parts.append(Text(f"  {hypothesis.name}: {hypothesis.statement}{given}"))
    for need in proof.needs:
        parts.append(Text(f"without {need.hypothesis.name}:", "italic"))
        shown = "  no machine was found" if need.machine is None else str(need.machine)
        parts.append(Padding(Text(shown), (0, 0, 0, 2)))
    return Group(*parts)


def _states(premise: str, witness: Mapping[str, Any]) -> RenderableType:
    """States in which what is asked once fails, side by side."""
    guest, private, *others = witness["states"]
    columns = {"a guest": guest, "what the VMM keeps": private}
    columns |= {f"another {number}": state for number, state in enumerate(others, 1)}
    columns |= {"the guest's image": witness["image"]} if "image" in witness else {}
    names = dict.fromkeys(name for state in columns.values() for name in state)
    table = Table("", *columns, box=None, pad_edge=False)
    for name in names:
        table.add_row(name, *(state.get(name, "as after reset") for state in columns.values()))
    if not names:
        table.add_row("all", *("as after reset" for _ in columns))
    for name, ends in witness.get("differ", {}).items():
        table.add_row(f"→ {name}", *ends)
    return Group(Text(f"{premise}: {witness['story']}"), Padding(table, (0, 0, 0, 2)))


def _premises(found: Instantiation[Any]) -> Table:
    """A line per premise: of how many forms it holds, and of which not."""
    table = Table("premise", "what", "holds", "of", "not", box=None, pad_edge=False)
    table.columns[4].overflow = "fold"
    for name in TITLES:
        asked = [p for p in found.premises if p.name == name]
        good = [p for p in asked if p.truth is Truth.YES]
        bad = [p for p in asked if p.truth is Truth.NO]
        unsure = [p for p in asked if p.truth is Truth.UNKNOWN]
        why = [_few("", [p.form or p.how for p in bad]), _few("unknown: ", [p.form or p.how for p in unsure])]
        if not good and not bad and not unsure:
            why = [f"not asked: {asked[0].how}" if asked else "not asked"]
        style = STYLES[found.verdict((name,))] if good or bad or unsure else "dim"
        table.add_row(
            Text(name, style), TITLES[name], str(len(good)), str(len(asked)), "; ".join(w for w in why if w)
        )
    return table


def _few(title: str, names: list[str]) -> str:
    more = f" and {len(names) - MANY_FORMS} more" if len(names) > MANY_FORMS else ""
    return title + ", ".join(names[:MANY_FORMS]) + more if names else ""


def instantiation(found: Instantiation[Any]) -> RenderableType:
    """What the theorems say of a machine, and why where a premise fails."""
    parts: list[RenderableType] = []
    for theorem, status in (
        ("Theorem 1", found.theorem1),
        ("Theorem 2", found.theorem2),
        ("Theorem 3", found.theorem3),
    ):
        parts.append(Text.assemble((status.value, STYLES[status]), f"  {theorem}"))
    parts += [Text(str(found)), Text(found.recursively)]
    parts += ["", _premises(found)]
    needed = found.failing((*THEOREM1, *THEOREM3))
    witness: Any = next((p.witness for p in needed if p.form and p.witness is not None), None)
    if witness:
        parts += ["", classification.counterexample(witness)]
    whole = [p for p in found.failing(tuple(TITLES)) if not p.form and p.truth is Truth.NO and p.witness]
    for premise in whole[:MANY]:
        parts += ["", _states(premise.name, premise.witness or {})]
    if found.disagreements:
        parts.append(Text("\nWhere the classes of 1974 and A1 part", "bold"))
        parts += [Text(f"  {one.form}: {one.how}") for one in found.disagreements]
        shown = found.disagreements[0].witness
        parts += [classification.counterexample(shown, 4)] if shown else []
    asked = found.ladder(tuple(TITLES))
    parts += ["", evidence(asked)] if asked.questions else []
    parts.append(Text(f"{found.seconds:.1f} s", "dim"))
    return Group(*parts)
