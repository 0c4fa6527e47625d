"""Machines with devices as text: the verdict, the invariant, and traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import networkx as nx
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.checks.verdict import Status

from .interrupts import wrapped
from .svg import Figure, columns

if TYPE_CHECKING:
    from popek.architectures.vtd.dmar import DmarTable
    from popek.architectures.vtd.dmar_findings import DmarFinding
    from popek.architectures.vtd.faults import Explained
    from popek.checks.device_traces import DeviceTrace
    from popek.kernel.agents import Devices
    from popek_proofs.devices import DeviceClaimVerdict, DeviceSafety

_STYLES = {"holds": "bold green", "refuted": "bold red", "unknown": "bold yellow"}
_MOST = 2  # accesses of a step that are told one by one


def safety(found: DeviceSafety, *, questions: bool = False) -> RenderableType:
    """What became of one attachment."""
    devices, attachment = found.devices, found.devices.attachments[found.attachment]
    head = Text.assemble((devices.title, "bold"), f": {attachment.title}")
    parts: list[RenderableType] = [head]
    if found.dropped:
        parts.append(Text(f"without: {', '.join(found.dropped)}"))
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in (
        ("safety", "nothing of the monitor's or of another guest's changes or is learnt"),
        ("fidelity", "the driver sees what its own machine's device does"),
    ):
        status = found.status(name).value
        table.add_row(Text(status, _STYLES[status]), name, text)
    asked = len(found.rows)
    if asked:
        forms = f"{len(found.forms)} of the processor's {found.all_forms} forms"
        parts += [table, Text(f"asked of the device's steps and of {forms}: {asked} questions")]
    else:
        parts += [table, Text("the trace was found first: nothing else was asked")]
    parts += ["", Text("invariant", "bold")]
    lines = Table(box=None, pad_edge=False, show_header=False)
    for name, text in found.invariant:
        lines.add_row("", name, text)
    parts.append(lines)
    for premise in attachment.premises:
        parts.append(Text(f"fidelity asks of the driver: {premise.text}"))
    open_rows = [row for row in found.rows if row.status is not Status.HOLDS]
    if open_rows:
        rows = Table(box=None, pad_edge=False, show_header=False)
        for row in found.rows if questions else open_rows:
            rows.add_row(
                "", Text(row.status.value, _STYLES[row.status.value]), row.step, row.promise, row.why
            )
        parts.append(rows)
    for one in found.traces:
        parts += ["", *_trace(one, f"a shortest trace against {one.promise}")]
    if found.needless:
        names = ", ".join(found.dropped)
        parts += ["", Text(f"no promise rests on {names}: safety and fidelity hold without", "bold")]
        if found.decides is None:
            parts.append(
                Text(
                    "nothing was found that it decides: with it each step from the first state goes the same way"
                )
            )
        else:
            parts += _trace(found.decides, "what it decides is which requests are refused: the shortest")
    parts += ["", *(Text(f"left out: {note}", "dim") for note in devices.notes)]
    return Group(*parts)


def _trace(one: DeviceTrace, title: str) -> list[RenderableType]:
    table = Table(box=None, pad_edge=False, show_header=False)
    for number, step in enumerate(one.steps, 1):
        did = [f"{kind} at {address:#x} → {cell:#x}" for kind, address, cell in step.accesses]
        told = did if len(did) <= _MOST else [did[0], f"and {len(did) - 1} more"]
        table.add_row(str(number), step.event, "; ".join([*told, *([step.refused] if step.refused else [])]))
    parts: list[RenderableType] = [Text(title, "bold"), table]
    parts.append(Text(f"  {one.broken}", "red"))
    for whose, state in (("guest", one.guest), ("monitor", one.private), ("unit", one.unit)):
        if state:
            parts.append(Text(f"  {whose}: " + ", ".join(f"{k} {v}" for k, v in state.items()), "dim"))
    return parts


def figure(one: DeviceTrace) -> Figure:
    """A trace from left to right: each step, and what it reached."""
    graph = nx.DiGraph()
    for number, step in enumerate(one.steps):
        last = number == len(one.steps) - 1
        did = [f"{kind} at {address:#x} → {cell:#x}" for kind, address, cell in step.accesses[:_MOST]]
        lines = wrapped(step.event) + did + wrapped(step.refused if step.refused else "")
        lines += wrapped(one.broken) if last else []
        graph.add_node(
            number, layer=number, lines=[line for line in lines if line], kind="red" if last else ""
        )
        if number:
            graph.add_edge(number - 1, number)
    steps = "\n".join(f"{number}. {step.event}" for number, step in enumerate(one.steps, 1))
    return columns(graph, words=f"breaks {one.promise}\n{steps}\n{one.broken}")


def machines(known: Sequence[Devices[Any]]) -> RenderableType:
    """What there is."""
    table = Table("name", "device", "attachments", "may be dropped", box=None, pad_edge=False)
    from popek.checks.devices import droppable

    for one in known:
        names = {name: None for way in one.attachments.values() for name in droppable(way)}
        table.add_row(one.name, one.agent.title, ", ".join(one.attachments), str(len(names)))
    return table


def claims(found: Sequence[DeviceClaimVerdict]) -> RenderableType:
    """Each claim with its verdict."""
    table = Table("", "claim", "promise", "says", box=None, pad_edge=False)
    for one in found:
        mark = Text("as expected", "green") if not one.unexpected else Text("otherwise", "bold red")
        table.add_row(mark, one.claim.id, f"{one.claim.promise} {one.verdict.value}", one.claim.says)
    return table


def rules() -> RenderableType:
    """The ledger of the remapping unit."""
    from popek.architectures.vtd.ledger import rules as ledger

    table = Table("rule", "reason", "what must hold", "source", "confidence", box=None, pad_edge=False)
    for rule in ledger().values():
        table.add_row(rule.id, f"{rule.reason:#04x}", rule.rule, rule.source, rule.confidence)
    return table


def second_stage() -> RenderableType:
    """The ledger of EPT and nested paging."""
    from popek.architectures.second_stage.ledger import second_stage_rules

    table = Table("rule", "a breach is", "what must hold", "source", "confidence", box=None, pad_edge=False)
    for rule in second_stage_rules().values():
        table.add_row(rule.id, rule.outcome, rule.rule, rule.source, rule.confidence)
    return table


def dmar(table: DmarTable, found: Sequence[DmarFinding]) -> RenderableType:
    """What a DMAR table says."""
    counts = ", ".join(
        f"{len(table.of(name))} {name}" for name in dict.fromkeys(s.title for s in table.structures)
    )
    head = f"DMAR of {table.oem}: {table.host_width} address bits, {counts or 'no structures'}"
    parts: list[RenderableType] = [Text(head, "bold")]
    titles = {"own": "the monitor must own", "care": "the monitor must mind", "wrong": "the table is wrong"}
    for kind, title in titles.items():
        mine = [one for one in found if one.kind == kind]
        if mine:
            parts += [Text(title, "bold red" if kind == "wrong" else "bold")]
            parts += [Text(f"  {one.what}") for one in mine]
    return Group(*parts)


def faults(found: Sequence[Explained]) -> RenderableType:
    """Each line with what it says."""
    parts: list[RenderableType] = []
    for one in found:
        parts.append(Text.assemble(f"line {one.line}: ", (one.what, "bold")))
        parts += [Text(f"  {text}") for text in one.why]
    return Group(*parts)
