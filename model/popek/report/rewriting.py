"""What must be rewritten, as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.checks.names import shortened
from popek.checks.rewriting import ELSEWHERE, KERNEL, JudgedRewriting, Rewriting, Rewritten
from popek.checks.rewriting_saved import Saving
from popek.checks.verdict import Truth

from . import classification
from .claims import STYLES

if TYPE_CHECKING:
    from popek_proofs.rewriting import JudgedList


def rewriting(
    found: Rewriting, judged: JudgedRewriting | None = None, savings: Sequence[Saving] = ()
) -> RenderableType:
    """The least set with a witness of each mnemonic, what is enough, what settings save, and what is said of a list."""
    settings = ", ".join(f"{name}={value}" for name, value in found.configuration.items())
    heading = Text.assemble((found.machine, "bold"), " under ", (found.technique, "bold"))
    heading.append(f" with {settings}" if settings else "")
    parts: list[RenderableType] = [heading, Text(f"to keep: {' and '.join(found.promises)}"), ""]
    parts += [Text(f"not asked: {why}", "yellow") for why in found.not_asked.values()]
    if KERNEL not in found.not_asked:
        parts += _least(found)
    if ELSEWHERE not in found.not_asked:
        some = found.elsewhere
        told = f"outside the guest's kernel mode, run directly, {_forms(some)}"
        parts += ["", Text(f"{told} {_break(some)} a promise{_named(some)}")]
    if not found.partial:
        parts += ["", *_ways(found)]
    if savings:
        parts.append("")
        parts += [Text(_saved(one)) for one in savings]
    if judged is not None:
        parts += ["", *_judged(found, judged)]
    return Group(*parts)


def _saved(one: Saving) -> str:
    told = f"{one.setting} saves {_counted(len(one.saved))}" + (
        f": {shortened(one.saved)}" if one.saved else ""
    )
    told += f"; adds {_counted(len(one.added))}: {shortened(one.added)}" if one.added else "; adds none"
    told += f"; undecided: {shortened(one.open)}" if one.open else ""
    return f"{told} ({_counted(len(one.asked))} asked)"


def _ways(found: Rewriting) -> list[RenderableType]:
    """The ways to do without hardware help, by how many forms run directly and whether the promises are kept."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("way", "direct in the guest's kernel mode", "outside it", "keeps the promises"):
        table.add_column(column)
    for way in found.ways:
        counts = ("none" if count is None else str(count) for count in (way.kernel, way.elsewhere))
        style = {Truth.YES: "green", Truth.NO: "red"}.get(way.keeps, "yellow")
        table.add_row(way.name, *counts, Text(way.keeps.value, style))
    return [Text(f"ways to do it, by the {_counted(len(found.forms))}"), table]


def published(found: JudgedList) -> RenderableType:
    """A published list: what is expected, each difference with its reason and a witness, and what is unexplained."""
    judged, told = found.judged, found.published
    heading = Text.assemble((told.id, "bold"), f"  {told.title}")
    where = f"{told.source}  [{told.machine}, {told.technique}]"
    verdict = Text.assemble(
        (found.verdict.value, STYLES[found.verdict]),
        f"  what it leaves to the processor keeps the promises: {_counted(len(judged.given))} replaced, "
        f"{len(judged.missing)} missing, {len(judged.needless)} needless",
    )
    parts: list[RenderableType] = [heading, Text(f"  {where}", "dim"), Text("  ").append_text(verdict)]
    parts += [Text(f"  {told.note}", "dim")] if told.note else []
    witnesses = found.witnesses()
    for one in told.differences:
        parts.append(Text(f"  {one.kind}: {shortened(one.forms)}"))
        sure = "" if one.confidence == "H" else " (unsure)"
        parts.append(Text(f"    because {one.why}{sure}", "dim"))
        member = witnesses.get(one.why)
        if member is not None and member.kernel.witness is not None:
            line = classification.witness_line(member.kernel.witness)
            parts.append(Text(f"    {member.kernel.witness['assembly']}: {line}"))
    for kind, forms in found.unexplained.items():
        if forms:
            parts.append(Text(f"  {kind} otherwise than expected: {shortened(forms)}", "bold red"))
    for title, forms in (("left out and undecided", judged.open), ("named and undecided", judged.unsure)):
        if forms:
            parts.append(Text(f"  {title}: {shortened(forms)}", "yellow"))
    return Group(*parts, "")


def _least(found: Rewriting) -> list[RenderableType]:
    members = found.members
    title = (
        f"must not reach the processor in the guest's kernel mode: {_forms(members)} of {len(found.forms)}"
    )
    parts: list[RenderableType] = [Text(title, "bold")]
    if members:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("form", "breaks", "because", "witness"):
            table.add_column(column)
        only = any(one.operands for one in members)
        if only:
            table.add_column("only with")
        told: set[str] = set()
        for one in members:
            shown = "" if one.mnemonic in told or one.kernel.witness is None else one.kernel.witness
            told.add(one.mnemonic)
            table.add_row(
                one.form,
                ", ".join(one.kernel.breaches),
                "; ".join(dict.fromkeys(one.kernel.breaches.values())),
                classification.witness_line(shown) if isinstance(shown, Mapping) else "",
                *(["; ".join(", ".join(values) for values in one.operands.values())] if only else []),
            )
        parts.append(table)
    rest = f"what the others owe there holds, so that they may run directly: {_forms(found.direct)}"
    words = {
        Truth.YES: f"enough: {rest}",
        Truth.UNKNOWN: rest + (f"; undecided: {_list(found.open)}" if found.open else ""),
    }
    parts.append(Text(words.get(found.enough, ""), "green" if found.enough is Truth.YES else "yellow"))
    if found.partial:
        parts.append(Text("only some of the machine's forms were asked about", "yellow"))
    return parts


def _judged(found: Rewriting, judged: JudgedRewriting) -> list[RenderableType]:
    style = {Truth.YES: "bold green", Truth.NO: "bold red"}.get(judged.complete, "bold yellow")
    word = {Truth.YES: "complete", Truth.NO: "incomplete"}.get(judged.complete, "unknown")
    parts: list[RenderableType] = [
        Text.assemble(f"the list of {_counted(len(judged.given))}: ", (word, style))
    ]
    by_form = {one.form: one for one in found.forms}
    for title, forms in (
        ("missing", judged.missing),
        ("needless", judged.needless),
        ("left out and undecided", judged.open),
        ("named and undecided", judged.unsure),
    ):
        if forms:
            parts.append(Text(f"  {title}: {shortened(forms)}"))
    if judged.missing:
        first = by_form[judged.missing[0]]
        if first.kernel.witness is not None:
            parts.append(classification.counterexample(first.kernel.witness, 4))
    return parts


def _forms(some: Iterable[Rewritten]) -> str:
    return _counted(len(list(some)))


def _counted(count: int) -> str:
    return f"{count} form{'' if count == 1 else 's'}"


def _break(some: tuple[Rewritten, ...]) -> str:
    return "breaks" if len(some) == 1 else "break"


def _named(some: tuple[Rewritten, ...]) -> str:
    return f": {_list(some)}" if some else ""


def _list(some: Iterable[Rewritten]) -> str:
    return shortened(one.form for one in some)
