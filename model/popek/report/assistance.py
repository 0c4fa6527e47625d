"""Tables for the terminal: what a kind of hardware assistance asks, chooses, comes to, and gains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from popek.kernel.assistance import Assistance

if TYPE_CHECKING:
    from popek.assistance.exits import Governed
    from popek.assistance.gain import Gain, Under
    from popek.assistance.judgement import Checked, Judgement
    from popek.assistance.merging import Merged
    from popek.assistance.needs import NeedRow
    from popek.assistance.synthesis import Synthesis
    from popek.assistance.witness import Witness
    from popek_proofs.assistance.comparison import Table as Comparison


def _table(*headings: str, title: str = "") -> Table:
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def short(assistance: Assistance[Any], text: str) -> str:
    """A text about controls without the names of the registers that hold them, where that leaves no doubt."""
    plain = [c.name.rpartition(".")[2] for c in assistance.controls]
    for control in assistance.controls:
        _, dot, name = control.name.rpartition(".")
        if dot and plain.count(name) == 1:
            text = text.replace(control.name, name)
    return text


class Owner:
    """What the VMM owns, in words and as data.

    Args:
        names: of what it owns; `assume` holds besides.
    """

    def __init__(
        self, assistance: Assistance[Any], names: Iterable[str], assume: Mapping[str, int], mode: str = ""
    ) -> None:
        self.assistance, self.names, self.assume = assistance, sorted(names), dict(assume)
        modes = assistance.modes
        self.mode = mode or next(iter(modes))

    def line(self) -> Text:
        """For the terminal."""
        told = "".join(
            f"; {name.lower()}" + ("" if value == 1 else f" = {value}") for name, value in self.assume.items()
        )
        title = self.assistance.modes[self.mode].title
        told += f"; in {title} mode" if title else ""
        return Text(f"The VMM owns: {', '.join(self.names) or 'nothing but the assistance itself'}{told}\n")

    def to_json(self) -> dict[str, Any]:
        """The keys of every document about one VMM."""
        return {
            "assistance": self.assistance.name,
            "owns": self.names,
            "assume": self.assume,
            "mode": self.mode,
        }


# -- requirements --------------------------------------------------------------------------------


def requirements(owner: Owner, rows: Sequence[NeedRow]) -> RenderableType:
    """What each instruction asks of the controls."""
    assistance = owner.assistance
    table = _table("instruction", "faithful when", "safe when", "may exit when")
    shown: list[RenderableType] = [owner.line(), table]
    for row in rows:
        r = row.requirement
        cells = [short(assistance, r.condition(part)) for part in (r.faithful, r.safe, r.exits)]
        if r.undecided & r.sound:
            cells[0] += f" (not modelled: {short(assistance, r.condition(r.undecided))})"
        table.add_row(escape(r.form), *cells)
    needs = [(row.requirement.form, need) for row in rows for need in row.needs]
    if needs:
        shown.append(Text("\nWithout it (all else as required; the guest's own machine, then the hardware)"))
    for form, need in needs:
        knob = short(assistance, need.knob)
        shown.append(Text(f"{form}: {knob} = {1 - need.value}: {need.witness.failure}", style="bold"))
        shown += _witness(need.witness)
    return Group(*shown)


def requirements_json(owner: Owner, rows: Sequence[NeedRow]) -> dict[str, Any]:
    """`popek/assistance-requirements/1`."""
    return {
        "schema": "popek/assistance-requirements/1",
        **owner.to_json(),
        "instructions": [
            {
                "form": row.requirement.form,
                "mnemonic": row.requirement.mnemonic,
                "faithful": row.requirement.condition(row.requirement.faithful),
                "safe": row.requirement.condition(row.requirement.safe),
                "exits": row.requirement.condition(row.requirement.exits),
                "undecided": row.requirement.condition(row.requirement.undecided),
                "needs": [
                    {"control": need.knob, "value": need.value, "witness": need.witness.to_json()}
                    for need in row.needs
                ],
            }
            for row in rows
        ],
    }


def _witness(witness: Witness) -> Iterable[Text]:
    for title, values in (("guest", witness.guest), ("VMM and controls", witness.vmm)):
        start = ", ".join(f"{name} = {value}" for name, value in values.items())
        yield Text(f"  {title}: {start or 'plain'}")
    yield Text(f"  {witness.assembly}")
    yield Text(f"    guest's own machine: {witness.native}")
    yield Text(f"    hardware: {witness.virtualized}")


# -- a hypervisor inside a hypervisor ------------------------------------------------------------------


def merges(
    assistance: Assistance[Any], rules: Mapping[str, str], found: Sequence[Merged], shown: int
) -> RenderableType:
    """How each control is merged, and for which settings of the two VMMs that loses an exit or adds one."""
    ways: dict[str, list[str]] = {}
    for name, rule in rules.items():
        ways.setdefault(rule, []).append(short(assistance, name))
    lines = [Text(f"merged by {rule}: {', '.join(names)}") for rule, names in sorted(ways.items())]
    table = _table("instruction", "what", "the outer VMM's and the inner one's")
    for item in found:
        for what, cases in (("an exit is lost", item.lost), ("a needless exit", item.needless)):
            for case in cases[:shown]:
                texts = (f"{short(assistance, n)} {a} {b}" for n, (a, b) in case.items())
                table.add_row(escape(item.form), what, ", ".join(texts))
            if len(cases) > shown:
                table.add_row("", "", f"and {len(cases) - shown} more")
    total = Text(f"{sum(bool(item.lost) for item in found)} of {len(found)} forms lose an exit")
    return Group(*lines, *([table] if table.row_count else []), total)


# -- exits ------------------------------------------------------------------------------------------


def exits(assistance: Assistance[Any], found: Sequence[Governed]) -> RenderableType:
    """Which control decides about which exit."""
    table = _table("exit reason", "instruction", "decided by")
    last: int | None = None
    for item in sorted(found, key=lambda g: (g.reason is None, g.reason)):
        reason = "never exits" if item.reason is None else f"{item.reason} {item.title}"
        table.add_row(
            "" if item.reason == last and last is not None else reason,
            escape(item.form),
            short(assistance, ", ".join(item.controls)) or ("" if item.reason is None else "unconditional"),
        )
        last = item.reason
    grouped = groupings(assistance, found)
    lines = [Text(f"{heading}: {'; '.join(parts)}") for heading, parts in grouped.items() if parts]
    return Group(table, Text(""), *lines)


def groupings(assistance: Assistance[Any], found: Sequence[Governed]) -> dict[str, list[str]]:
    """Where the reasons are coarser than the controls, and where the controls are coarser, in words."""
    from popek.assistance import exits as derived

    joined = {"one exit reason, several controls": " | ", "one control, several exit reasons": ", "}
    return {
        heading: [short(assistance, f"{name} ({joined[heading].join(parts)})") for name, parts in grouped]
        for heading, grouped in derived.groupings(found).items()
    }


def exits_json(assistance: Assistance[Any], found: Sequence[Governed]) -> dict[str, Any]:
    """`popek/assistance-exits/1`."""
    return {
        "schema": "popek/assistance-exits/1",
        "assistance": assistance.name,
        **{n.replace(",", "").replace(" ", "_"): parts for n, parts in groupings(assistance, found).items()},
        "instructions": [
            {
                "form": g.form,
                "mnemonic": g.mnemonic,
                "exit_reason": g.reason,
                "title": g.title,
                "controls": list(g.controls),
            }
            for g in found
        ],
    }


# -- synthesis ---------------------------------------------------------------------------------------


def synthesis(owner: Owner, found: Synthesis) -> RenderableType:
    """The controls and what they do, or why there are none."""
    assistance = owner.assistance
    lines: list[RenderableType] = [owner.line()]
    if not found.controls:
        lines.append(
            Text(
                f"{found.processor}: no setting of the controls is faithful and safe and exists", style="bold"
            )
        )
        for item in found.missing:
            by = ", ".join(item.needed_by)
            name = short(assistance, item.control)
            lines.append(Text(f"  missing: {name} ({item.where} is 0), needed by {by}"))
        lines.append(Text(f"  these contradict one another: {'; '.join(found.core)}"))
        return Group(*lines)
    if found.fields:
        title = f"{found.processor}: {found.outcome or 'every rule is kept'}"
        table = _table("field", "value", title=title)
        for name, value in found.fields.items():
            table.add_row(name, f"{value:#010x}")
        lines += [table, Text("")]
    on = [short(assistance, name) for name in found.on if name not in assistance.cover]
    lines.append(Text(f"on: {', '.join(on) or 'nothing'}"))
    for name in assistance.cover:
        if found.controls.get(name):
            lines.append(Text(f"{name.replace('_', ' ')}: 1 for whatever the VMM owns, 0 elsewhere"))
    hidden = hidden_from(assistance, found.profile)
    if hidden:
        lines.append(Text(f"hidden from the guest: {', '.join(hidden)}"))
    lines.append(Text(f"may exit: {', '.join(found.exits) or 'none'}"))
    lines.append(
        Text(f"never exit, although a control decides about them: {', '.join(found.native) or 'none'}")
    )
    if assistance.leaves_open:
        lines.append(Text(f"left open whatever the controls: {', '.join(found.open) or 'none'}"))
    if found.cautious:
        forms = ", ".join(found.cautious)
        lines.append(Text(f"exit because it is not decided whether they may run: {forms}", style="yellow"))
    if found.undecided:
        lines.append(Text(f"not decided under this setting: {', '.join(found.undecided)}", style="yellow"))
    return Group(*lines)


def hidden_from(assistance: Assistance[Any], profile: Any) -> list[str]:
    """The mnemonics that a guest is told it does not have."""
    words = {c.name: c.symbol for c in assistance.controls if c.holds is None}
    return sorted(assistance.arrange(profile, words, {}).lacks)


def synthesis_json(owner: Owner, found: Synthesis) -> dict[str, Any]:
    """`popek/assistance-synthesis/1`."""
    return {
        "schema": "popek/assistance-synthesis/1",
        **owner.to_json(),
        "hidden": hidden_from(owner.assistance, found.profile),
        **found.to_json(),
    }


# -- judgements --------------------------------------------------------------------------------------


def judgement(found: Judgement) -> RenderableType:
    """One VMM's controls, instruction by instruction."""
    settings, assistance = found.settings, found.assistance
    lines: list[RenderableType] = [
        Text(f"{settings.name} ({settings.source})", style="bold"),
        Text("on: " + short(assistance, ", ".join(found.on))),
        *(Text(f"note: {note}") for note in settings.notes),
        Text(f"a VMM with these controls can own: {', '.join(found.kept) or 'nothing'}"),
        *(Text(f"lacking: {short(assistance, item.control)}: {item.why}") for item in found.lacking),
        Text(""),
    ]
    table = _table("instruction", "exits", "harms a VMM that owns", "harmless for", "needless exit")
    for row in found.rows:
        if row.exits == "never" or row.harms or row.needless:
            harms = ", ".join(f"{harm.owner or 'anything'} ({harm.failure})" for harm in row.harms)
            needless = "yes" if row.needless else ""
            table.add_row(escape(row.form), row.exits, harms, ", ".join(row.harmless), needless)
    lines.append(table)
    shown = [(row.form, harm) for row in found.rows for harm in row.harms if harm.witness is not None]
    if shown:
        lines.append(Text("\nWitnesses"))
    for form, harm in shown:
        assert harm.witness is not None
        lines.append(Text(f"{form} ({harm.owner or 'whatever it owns'}): {harm.failure}", style="bold"))
        lines += _witness(harm.witness)
    return Group(*lines)


def judgements(found: Sequence[Judgement]) -> RenderableType:
    """A line per configuration."""
    table = _table("configuration", "can own", "harmed by", "needless exits", "lacking")
    for one in found:
        harmed: dict[str, list[str]] = {}
        for row in one.rows:
            for harm in row.harms:
                harmed.setdefault(harm.owner or "anything", []).append(row.mnemonic)
        harms = "\n".join(f"{o}: {', '.join(dict.fromkeys(names))}" for o, names in harmed.items())
        table.add_row(
            one.settings.name,
            ", ".join(one.kept) or "nothing",
            harms,
            ", ".join(row.mnemonic for row in one.rows if row.needless),
            ", ".join(item.name for item in one.lacking),
        )
    return table


def checked(found: Checked) -> RenderableType:
    """A configuration for one VMM: rules that are broken, and instructions that fail."""
    lines = [Text(f"{found.settings.name}: {found.outcome}", style="bold")]
    for rule in found.broken:
        lines.append(
            Text(f"  {rule.id} broken ({rule.consequence}, confidence {rule.confidence}): {rule.text}")
        )
        lines.append(Text(f"     {rule.why}; {rule.source}", style="dim"))
    undecided = [rule.id for rule in found.settings.rules if rule.kept is None]
    if undecided:
        lines.append(Text(f"  not decided by what is given: {', '.join(undecided)}"))
    lines += [Text(f"  lacking: {item.control} = 1: {item.why}") for item in found.lacking]
    for row in found.rows:
        if row.governed:
            lines.append(Text(f"  {row.form}: {row.verdict}"))
            if row.witness is not None:
                lines += [Text("   " + str(line)) for line in _witness(row.witness)]
    left = [row.form for row in found.rows if not row.governed]
    if left:
        lines.append(Text(f"  whatever the controls, not faithful: {', '.join(left)}"))
    return Group(*lines)


# -- before and after, and side by side -------------------------------------------------------------


def gain(found: Gain) -> RenderableType:
    """The technique that the assistance replaces, then each choice of its controls."""
    problems = any(row.problem for row in found.rows)
    headings = ["instruction", found.before, *found.titles.values()]
    table = _table(*headings, *(["problem (Uhlig et al. 2005)"] if problems else []))
    for row in found.rows:
        critical = {"yes": "critical", "no": "·"}.get(row.critical.value, row.critical.value)
        cells = [critical, *(_under(under) for under in row.after.values())]
        table.add_row(escape(row.form), *cells, *([row.problem] if problems else []))
    failing = [row.form for row in found.rows if row.failing]
    return Group(
        table,
        Text(f"\ncritical under {found.before}: {', '.join(found.critical) or 'none'}"),
        Text(f"unfaithful or unsafe with the assistance: {', '.join(failing) or 'none'}"),
    )


def _under(under: Under) -> str:
    exits = {"always": "exits", "sometimes": "exits or as it should", "never": "as it should"}[under.exits]
    return under.failure or exits


def table(found: Comparison) -> Table:
    """One row for each question, one column for each kind of assistance."""
    drawn = Table(title=" beside ".join(item.title for item in found.assistances), show_lines=True)
    drawn.add_column("", style="bold")
    for item in found.assistances:
        drawn.add_column(item.title)
    for query, cells in found.rows:
        drawn.add_row(Text(query.title), *(Text(cell.text) for cell in cells))
    return drawn
