"""Tables for the terminal: requirements, syntheses and judgements of VT-x controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from popek.architectures.vtx.controls import exit_reasons

if TYPE_CHECKING:
    from popek.architectures.vtx.operation.ownership import Profile
    from popek.assistance.vtx_comparison import Comparison, Under
    from popek.assistance.vtx_judgement import Judgement
    from popek.assistance.vtx_requirements import Governed, Row, Witness
    from popek.assistance.vtx_synthesis import Synthesis


def _table(*headings: str, title: str = "") -> Table:
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


MODE_NAMES = {"protected": "protected", "virtual-8086": "virtual-8086", "real": "real-address"}


def short(text: str) -> str:
    """A condition without the names of the control words.

    >>> short("primary.hlt_exiting = 1")
    'hlt_exiting = 1'
    """
    return text.replace("primary.", "").replace("secondary.", "").replace("pin.", "")


# -- requirements --------------------------------------------------------------------------------


def requirements(owned: Profile, rows: Sequence[Row], mode: str = "protected") -> RenderableType:
    """What each instruction asks of the controls, in a mode of the guest."""
    table = _table("instruction", "faithful when", "safe when", "may exit when")
    shown: list[RenderableType] = [_profile_line(owned, mode), table]
    for row in rows:
        r = row.requirement
        cells = [short(r.condition(part)) for part in (r.faithful, r.safe, r.intercepts)]
        if r.undecided & r.sound:
            cells[0] += f" (not modelled: {short(r.condition(r.undecided))})"
        table.add_row(escape(r.form), *cells)
    needs = [(row.requirement.form, need) for row in rows for need in row.needs]
    if needs:
        shown.append(Text("\nWithout it (all else as required; the guest's own machine, then the hardware)"))
    for form, need in needs:
        shown.append(
            Text(f"{form}: {short(need.knob)} = {1 - need.value}: {need.witness.failure}", style="bold")
        )
        shown += _witness(need.witness)
    return Group(*shown)


def requirements_json(owned: Profile, rows: Sequence[Row], mode: str = "protected") -> dict[str, Any]:
    """`popek/vtx-requirements/1`."""
    return {
        "schema": "popek/vtx-requirements/1",
        "owns": sorted(owned.owns),
        "unrestricted": owned.unrestricted,
        "mode": mode,
        "instructions": [
            {
                "form": row.requirement.form,
                "mnemonic": row.requirement.mnemonic,
                "faithful": row.requirement.condition(row.requirement.faithful),
                "safe": row.requirement.condition(row.requirement.safe),
                "exits": row.requirement.condition(row.requirement.intercepts),
                "undecided": row.requirement.condition(row.requirement.undecided),
                "needs": [
                    {"control": need.knob, "value": need.value, "witness": need.witness.to_json()}
                    for need in row.needs
                ],
            }
            for row in rows
        ],
    }


def _profile_line(owned: Profile, mode: str = "protected") -> Text:
    kind = "; an unrestricted guest" if owned.unrestricted else ""
    kind += "" if mode == "protected" else f"; in {MODE_NAMES[mode]} mode"
    return Text(f"The VMM owns: {', '.join(sorted(owned.owns)) or 'nothing but VMX itself'}{kind}\n")


def _witness(witness: Witness) -> Iterable[Text]:
    for title, values in (("guest", witness.guest), ("VMM and controls", witness.vmm)):
        start = ", ".join(f"{name} = {value}" for name, value in values.items())
        yield Text(f"  {title}: {start or 'plain'}")
    yield Text(f"  {witness.assembly}")
    yield Text(f"    guest's own machine: {witness.native}")
    yield Text(f"    hardware: {witness.virtualized}")


# -- exits ------------------------------------------------------------------------------------------


def exits(found: Sequence[Governed]) -> RenderableType:
    """Which control decides about which exit."""
    table = _table("exit reason", "instruction", "decided by")
    names = exit_reasons()
    last: int | None = None
    for item in sorted(found, key=lambda g: (g.reason is None, g.reason)):
        reason = "never exits" if item.reason is None else f"{item.reason} {names[item.reason]}"
        table.add_row(
            "" if item.reason == last and last is not None else reason,
            escape(item.form),
            short(", ".join(item.controls)) or ("" if item.reason is None else "unconditional"),
        )
        last = item.reason
    lines = [Text(f"{heading}: {'; '.join(parts)}") for heading, parts in groupings(found).items()]
    return Group(table, Text(""), *lines)


def groupings(found: Sequence[Governed]) -> dict[str, list[str]]:
    """Where the manual's exit reasons are coarser than the controls, and where the controls are coarser."""
    names = exit_reasons()
    by_reason: dict[int, set[tuple[str, ...]]] = {}
    by_control: dict[str, set[int]] = {}
    for item in found:
        if item.reason is not None:
            by_reason.setdefault(item.reason, set()).add(item.controls)
            for control in item.controls:
                by_control.setdefault(control, set()).add(item.reason)
    several = {reason: sorted(sets) for reason, sets in by_reason.items() if len(sets) > 1}
    return {
        "one exit reason, several controls": [
            f"{reason} {names[reason]} ({' | '.join(short(', '.join(s)) or 'unconditional' for s in sets)})"
            for reason, sets in sorted(several.items())
        ],
        "one control, several exit reasons": [
            f"{short(control)} ({', '.join(map(str, sorted(reasons)))})"
            for control, reasons in by_control.items()
            if len(reasons) > 1
        ],
    }


def exits_json(found: Sequence[Governed]) -> dict[str, Any]:
    """`popek/vtx-exits/1`."""
    return {
        "schema": "popek/vtx-exits/1",
        **{name.replace(",", "").replace(" ", "_"): parts for name, parts in groupings(found).items()},
        "instructions": [
            {"form": g.form, "mnemonic": g.mnemonic, "exit_reason": g.reason, "controls": list(g.controls)}
            for g in found
        ],
    }


# -- synthesis ---------------------------------------------------------------------------------------


def synthesis(found: Synthesis, processor: str) -> RenderableType:
    """The control words and what they do, or why there are none."""
    lines: list[RenderableType] = [_profile_line(found.owned)]
    if found.verdict is None:
        lines.append(
            Text(f"{processor}: no setting of the controls is faithful and safe and enters", style="bold")
        )
        for item in found.missing:
            by = ", ".join(item.needed_by)
            lines.append(
                Text(f"  missing: {short(item.control)} ({item.msr}[{item.bit}] is 0), needed by {by}")
            )
        lines.append(Text(f"  these contradict one another: {'; '.join(found.core)}"))
        return Group(*lines)
    table = _table("field", "value", title=f"{processor}: VM entry succeeds")
    for name, value in found.fields.items():
        table.add_row(name, f"{value:#010x}")
    lines += [table, Text("")]
    on = [short(name) for name, value in found.controls.items() if value]
    lines.append(Text(f"on: {', '.join(on)}"))
    for name, value in found.covers.items():
        if value and name.endswith("bitmap"):
            lines.append(Text(f"{name.replace('_', ' ')}: 1 for whatever the VMM owns, 0 elsewhere"))
    if found.owned.unknown_mnemonics:
        lines.append(Text(f"hidden from the guest: {', '.join(sorted(found.owned.unknown_mnemonics))}"))
    lines.append(Text(f"may exit: {', '.join(found.exits)}"))
    lines.append(Text(f"never exit, although a control could make them: {', '.join(found.native)}"))
    return Group(*lines)


# -- judgements --------------------------------------------------------------------------------------


def judgement(found: Judgement) -> RenderableType:
    """One VMM's controls, instruction by instruction."""
    settings = found.settings
    lines: list[RenderableType] = [
        Text(f"{settings.name} ({settings.source})", style="bold"),
        Text("on: " + short(", ".join(name for name, value in settings.controls.items() if value))),
        *(Text(f"note: {note}") for note in settings.notes),
        Text(f"a VMM with these controls can own: {', '.join(found.kept) or 'nothing'}"),
        *(Text(f"lacking: {short(item.control)}: {item.why}") for item in found.lacking),
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
    """A line per hypervisor."""
    table = _table("hypervisor", "can own", "harmed by", "needless exits", "lacking")
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


# -- before and after --------------------------------------------------------------------------------


def comparison(found: Comparison) -> RenderableType:
    """Ring deprivileging, VT-x of 2005, VT-x synthesized."""
    table = _table(
        "instruction", "ring deprivileging", "VT-x 2005", "VT-x synthesized", "problem (Uhlig et al. 2005)"
    )
    for row in found.rows:
        critical = {"yes": "critical", "no": "·"}.get(row.critical.value, row.critical.value)
        table.add_row(escape(row.form), critical, _under(row.first), _under(row.best), row.problem)
    failing = [row.form for row in found.rows if row.first.failure or row.best.failure]
    return Group(
        table,
        Text(f"\ncritical under ring deprivileging: {', '.join(found.critical)}"),
        Text(f"unfaithful or unsafe under VT-x: {', '.join(failing) or 'none'}"),
    )


def _under(under: Under) -> str:
    exits = {"always": "exits", "sometimes": "exits or as it should", "never": "as it should"}[under.exits]
    return under.failure or exits
