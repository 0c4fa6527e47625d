"""The safety of a machine under a technique as text."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from popek.checks.verdict import Truth
from popek_proofs.safety import Dropped, Safety

from . import classification
from .witnesses import Named

_WORDS = {
    Truth.YES: "nobody escapes",
    Truth.NO: "a way out",
    Truth.UNKNOWN: "unknown",
    Truth.NOT_ASKED: "not asked",
}
_STYLES = {
    Truth.YES: "bold green",
    Truth.NO: "bold red",
    Truth.UNKNOWN: "bold yellow",
    Truth.NOT_ASKED: "dim",
}


def safety(found: Safety) -> RenderableType:
    """With every hypothesis, and without each."""
    settings = ", ".join(f"{k}={v}" for k, v in found.configuration.settings.items())
    heading = Text.assemble((found.machine, "bold"), " under ", (found.technique, "bold"))
    heading.append(f" with {settings}" if settings else "")
    parts: list[RenderableType] = [heading, ""]
    summaries = {h.name: h.summary for h in found.hypotheses}
    if not summaries:
        parts.append(Text("the technique names no hypotheses", "dim"))
    if found.held is not None:
        parts += _search("with all that the VMM sees to", found.held)
    if found.shows is not None:
        count = len(found.shows)
        text = f"  {count} forms show something of the VMM's: {', '.join(found.shows)}"
        parts.append(Text(text if count else "  and nothing of the VMM's shows"))
    if found.unknown_shows:
        parts.append(Text(f"  undecided, what shows: {', '.join(found.unknown_shows)}", "yellow"))
    for one in found.dropped:
        title = "without " + " and ".join(f"{name} ({summaries[name]})" for name in one.names)
        parts += ["", *_search(title, one)]
    return Group(*parts)


def _search(title: str, found: Dropped) -> list[RenderableType]:
    parts: list[RenderableType] = [Text.assemble((_WORDS[found.safe], _STYLES[found.safe]), f"  {title}")]
    if found.undecided:
        parts.append(Text(f"  undecided: {', '.join(found.undecided)}", "yellow"))
    if found.escape is not None:
        escape = found.escape
        parts.append(Padding(Text(f"{escape.form} {escape.how}"), (0, 0, 0, 2)))
        if escape.witness is not None:
            parts.append(classification.counterexample(escape.witness.to_json(), 2))
    return parts


def named(found: Safety) -> list[Named]:
    """The witnesses, with the hypotheses they do without."""
    searches = [*([] if found.held is None else [found.held]), *found.dropped]
    return [
        Named(
            one.escape.witness.assembly,
            "without " + (" and ".join(one.names) or "nothing"),
            one.escape.witness,
        )
        for one in searches
        if one.escape is not None and one.escape.witness is not None
    ]
