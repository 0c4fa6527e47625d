"""Machines as text for people: all in a table, one in full, and what a trial found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.checks.scope_words import scope_line
from popek.checks.trial import STATES
from popek.checks.trial_finding import TrialFinding, TrialKind
from popek.kernel.left_open import LeftOpen
from popek.kernel.machine import Machine
from popek.kernel.scope import scope_of

from .wording import counted

_STYLES = {
    TrialKind.MISTAKE: "bold red",
    TrialKind.LAW: "bold red",
    TrialKind.LIMIT: "yellow",
    TrialKind.ADVICE: "yellow",
}


def machines(known: Iterable[Machine[Any]]) -> Table:
    """One line per machine."""
    table = Table("machine", "what it is", "instructions", "techniques", "settings", box=None, pad_edge=False)
    for machine in known:
        mnemonics = len({i.mnemonic for i in machine.instructions.values()})
        table.add_row(
            Text(machine.name, "bold"),
            machine.title,
            f"{mnemonics} in {len(machine.instructions)} forms",
            "\n".join(machine.techniques),
            " ".join(setting.name for setting in machine.settings),
        )
    return table


def machine(known: Machine[Any]) -> RenderableType:
    """All that is declared of one machine."""
    parts: list[RenderableType] = [
        Text(f"{known.name}  {known.title}", "bold"),
        f"source: {known.source or 'none named'}",
    ]
    state = Table("component", "bits", "role", "fields", box=None, pad_edge=False, title_justify="left")
    for slot in known.state.layout:
        size = f"2^{slot.address} × {slot.width}" if slot.address else str(slot.width)
        state.add_row(slot.name, size, slot.role.value, " ".join(name for name, *_ in slot.fields))
    parts += ["", state]
    if known.settings:
        table = Table("setting", "values", "default", "what it says", box=None, pad_edge=False)
        for setting in known.settings:
            values = ", ".join(f"{v} {setting.labels.get(v, '')}".strip() for v in setting.values[:8])
            default = "open" if setting.default is None else str(setting.default)
            table.add_row(
                setting.name, values + (" …" if len(setting.values) > 8 else ""), default, setting.summary
            )
        parts += ["", table]
    for technique in known.techniques.values():
        parts += ["", Text(technique.name, "bold"), f"  {technique.title}"]
        for what in ("owned", "replaced", "shadowed"):
            names = _by_component(known, getattr(technique, what))
            parts.append(f"  {what}: {', '.join(names) or 'nothing'}")
        if technique.shadowed_when:
            names = _by_component(known, tuple(technique.shadowed_when))
            parts.append(f"  shadowed of some guests alone: {', '.join(names)}")
    forms = Table("instruction", "what it does", "source", box=None, pad_edge=False)
    for one in known.instructions.values():
        forms.add_row(one.form, one.summary, Text(one.source, "dim"))
    parts += ["", forms, scope_line(scope_of(known))]
    if known.left_open:
        parts += ["", _left_open(known.left_open)]
    if known.notes:
        parts += ["", Text("not modelled", "bold"), *(f"  {note}" for note in known.notes)]
    return Group(*parts)


def _by_component(known: Machine[Any], names: Sequence[str]) -> Iterator[str]:
    """Leaves in a few words: a whole component by its name, most of one by what is left out."""
    wanted = set(names)
    every: dict[str, list[str]] = {}
    for leaf in known.state.leaves:
        every.setdefault(leaf.component, []).append(leaf.name)
    for component, leaves in every.items():
        there = [name for name in leaves if name in wanted]
        left_out = [name for name in leaves if name not in wanted]
        wanted -= {*there}
        if not there:
            continue
        if len(left_out) < len(there):
            without = " ".join(name.removeprefix(component) for name in left_out)
            yield component + (f" but {without}" if without else "")
        else:
            yield component + " ".join(name.removeprefix(component) for name in there)
    yield from (name for name in names if name in wanted)  # memories


def _left_open(every: Sequence[LeftOpen]) -> RenderableType:
    """What the architecture leaves open, and what a verdict makes of it."""
    table = Table(box=None, pad_edge=False)
    for title in ("left open by the architecture", "a verdict is for", "where"):
        table.add_column(title, overflow="fold")
    for one in every:
        table.add_row(one.what, one.how, Text(one.place, "dim"))
    return table


def trial(known: Machine[Any], wrong: Sequence[str], findings: Sequence[TrialFinding]) -> RenderableType:
    """What is wrong or odd, and what was looked at."""
    every = [*(TrialFinding(TrialKind.MISTAKE, "", text) for text in wrong), *findings]
    parts: list[RenderableType] = [Text(f"{known.name}: {_summary(every)}", "bold")]
    parts += [Text.assemble((f"  {one.kind.value:<8}", _STYLES[one.kind]), " ", one.text) for one in every]
    if not any(one.kind is TrialKind.MISTAKE for one in every):
        parts.append(
            f"  tried: {counted(len(known.instructions), 'form')}, each from {STATES} states on numbers; "
            "that they do what the manual says no trial can tell: only an emulator or a table that others wrote"
        )
    return Group(*parts)


def _summary(every: Sequence[TrialFinding]) -> str:
    count = {kind: sum(one.kind is kind for one in every) for kind in TrialKind}
    if count[TrialKind.MISTAKE]:
        return f"{counted(count[TrialKind.MISTAKE], 'mistake')}; nothing can be asked"
    if count[TrialKind.LAW]:
        return f"the law is broken by {counted(count[TrialKind.LAW], 'form')}; do not believe a verdict"
    more = count[TrialKind.ADVICE] + count[TrialKind.LIMIT]
    return f"can be asked about; {counted(more, 'remark')}" if more else "can be asked about"
