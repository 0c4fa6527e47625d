"""The same reports in a notebook: Rich tables and text as HTML that is readable on light and dark pages."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# Colors are those of the page where possible; these are for what is marked.
LIGHT = "--popek-red:#b42318;--popek-green:#1a7f37;--popek-yellow:#8a5a00;--popek-blue:#0550ae"
DARK = "--popek-red:#ff8f85;--popek-green:#56d364;--popek-yellow:#e3b341;--popek-blue:#79c0ff"
STYLE = (
    f".popek{{{LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{.popek{{{DARK}}}}}"
    # A notebook's own theme outweighs that of the desktop.
    f'[data-jp-theme-light="true"] .popek,.vscode-light .popek{{{LIGHT}}}'
    f'[data-jp-theme-light="false"] .popek,.vscode-dark .popek{{{DARK}}}'
    ".popek{color:inherit;line-height:1.45;max-width:100%;overflow-x:auto}"
    ".popek table{border-collapse:collapse;margin:.4em 0;font-size:.92em}"
    # The name twice: a notebook's own rules for tables outweigh one class.
    ".popek.popek td,.popek.popek th{text-align:left;vertical-align:top;padding:.15em .8em .15em 0;background:none;"
    "color:inherit;white-space:pre-wrap}"
    ".popek thead th{border-bottom:1px solid currentColor;white-space:nowrap}"
    ".popek.popek tbody tr{background:none}"
    ".popek.popek tbody tr:hover{background:rgba(128,128,128,.16)}"
    ".popek.popek td.right,.popek.popek th.right{text-align:right}"
    ".popek pre{margin:.4em 0;padding:0;background:none;color:inherit;font-size:.9em;line-height:1.4;"
    "font-family:ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono',monospace;overflow-x:auto}"
    ".popek p{margin:.25em 0;white-space:pre-wrap}.popek .indented{margin-left:1.2em}"
    ".popek .bold{font-weight:600}.popek .dim{opacity:.72}.popek .italic{font-style:italic}"
    ".popek .red{color:var(--popek-red)}.popek .green{color:var(--popek-green)}"
    ".popek .yellow{color:var(--popek-yellow)}.popek .cyan{color:var(--popek-blue)}"
)
_ANSI = {"color(1)": "red", "color(2)": "green", "color(3)": "yellow", "color(6)": "cyan"}
_KNOWN = frozenset({"bold", "dim", "italic", "red", "green", "yellow", "cyan"})


def page(renderable: RenderableType) -> str:
    """A report as one HTML fragment with its style."""
    return f'<style>{STYLE}</style><div class="popek">{fragment(renderable)}</div>'


def plain(renderable: RenderableType, width: int = 110) -> str:
    """A report as text without colors, `width` columns wide."""
    console = Console(
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        highlight=False,
        markup=False,
    )
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().split("\n"))


def printed(print_it: Callable[[Console, Any], None], answer: Any, width: int = 104) -> Text:
    """What a report prints on a console, as text that keeps its styles."""
    console = Console(
        width=width,
        color_system="standard",
        force_terminal=True,
        force_jupyter=False,
        highlight=False,
        markup=False,
    )
    with console.capture() as captured:
        print_it(console, answer)
    found = Text.from_ansi(captured.get().rstrip())
    text = Text(found.plain)
    for span in found.spans:
        style = " ".join(_ANSI.get(word, word) for word in str(span.style).split())
        text.stylize(style, span.start, span.end)
    return text


def fragment(renderable: RenderableType) -> str:
    """A report as HTML without its style."""
    match renderable:
        case Group():
            return "".join(fragment(part) for part in renderable.renderables)
        case Padding():
            return f'<div class="indented">{fragment(renderable.renderable)}</div>'
        case Table():
            return _table(renderable)
        case str() | Text():
            inline = _inline(renderable)
            tag = "pre" if "\n" in str(renderable) else "p"  # lines that belong together may be columns
            return f"<{tag}>{inline}</{tag}>" if inline else ""
    raise TypeError(f"cannot show a {type(renderable).__name__} in a notebook")


def _table(table: Table) -> str:
    kinds = ["right" if column.justify == "right" else "" for column in table.columns]
    head = ""
    if table.show_header:
        cells = (_cell("th", column.header, kinds[n]) for n, column in enumerate(table.columns))
        head = f"<thead><tr>{''.join(cells)}</tr></thead>"
    columns = [list(column.cells) for column in table.columns]
    styles = [str(column.style) for column in table.columns]
    body = "".join(
        "<tr>" + "".join(_cell("td", cell, kinds[n], styles[n]) for n, cell in enumerate(row)) + "</tr>"
        for row in zip(*columns, strict=True)
    )
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _cell(tag: str, content: RenderableType, kind: str, style: str = "") -> str:
    classes = " ".join(filter(None, (kind, _classes(style))))
    inside = _inline(content) if isinstance(content, str | Text) else fragment(content)
    return f'<{tag} class="{classes}">{inside}</{tag}>' if classes else f"<{tag}>{inside}</{tag}>"


def _inline(content: str | Text) -> str:
    """Text with its styles as spans."""
    if isinstance(content, str):
        return html.escape(content)
    edges = sorted({0, len(content), *(e for span in content.spans for e in (span.start, span.end))})
    parts = []
    for start, end in itertools.pairwise(edges):
        piece = html.escape(content.plain[start:end])
        styles = [str(span.style) for span in content.spans if span.start <= start and end <= span.end]
        classes = _classes(" ".join([str(content.style), *styles]))
        parts.append(f'<span class="{classes}">{piece}</span>' if classes else piece)
    return "".join(parts)


def _classes(style: str) -> str:
    return " ".join(_in_order(word for word in style.split() if word in _KNOWN))


def _in_order(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
