"""What the reference says is taken from the package: modules from docstrings, machines from their declarations."""

from __future__ import annotations

import importlib
import io
import pkgutil
import re
from collections.abc import Iterable
from typing import Any

from cyclopts import App
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from rich.console import Console
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from popek.cli import app
from popek.kernel.machine import Machine
from popek.machines import makers
from popek_proofs.claims import shipped

HELP_WIDTH = 88  # of what is shown of `--help`, in characters


class Modules(SphinxDirective):
    """`.. popek-modules:: PACKAGE …`: every module of packages, each with its docstrings.

    `:but:` leaves modules out by the beginning of their names; with `:own:` the package alone is shown.
    """

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"but": directives.unchanged, "own": directives.flag}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """A section per module."""
        packages = self.arguments[0].split()
        if "own" in self.options:
            return [self._section(package) for package in packages]
        left_out = tuple(self.options.get("but", "-").split())
        names = [name for package in packages for name in _modules(package)]
        return [self._section(name) for name in names if not name.startswith(left_out)]

    def _section(self, name: str) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(name)], names=[name])
        section += nodes.title("", "", nodes.literal("", name))
        # What a package passes on from its modules is described there.
        lines = StringList([f".. automodule:: {name}", "   :ignore-module-all:"])
        self.state.nested_parse(lines, 0, section, match_titles=False)
        return section


def _modules(package: str) -> Iterable[str]:
    module = importlib.import_module(package)
    if module.__doc__:
        yield package
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        name = f"{package}.{found.name}"
        if found.ispkg:
            yield from _modules(name)
        elif not found.name.startswith("_"):
            yield name


class Commands(SphinxDirective):
    """`.. popek-commands::`: what `--help` says of every command."""

    def run(self) -> list[nodes.Node]:
        """A section per command, in alphabetical order."""
        return [_command(app, list(path)) for path in sorted(_commands(app))]


def _commands(group: App, path: tuple[str, ...] = ()) -> Iterable[tuple[str, ...]]:
    yield path
    for name in group:
        if not name.startswith("-"):
            yield from _commands(group[name], (*path, name))


def _command(group: App, path: list[str]) -> nodes.section:
    written = io.StringIO()
    group.help_print(path, console=Console(file=written, width=HELP_WIDTH, color_system=None))
    name = " ".join(("popek", *path))
    section = nodes.section(ids=[nodes.make_id(name)], names=[name])
    section += nodes.title("", name)
    text = "\n".join(line.rstrip() for line in written.getvalue().strip().splitlines())
    section += nodes.literal_block(text, text, language="none")
    return section


class Machines(SphinxDirective):
    """`.. popek-machines::`: every machine with its techniques, settings, gaps and instruction forms."""

    def run(self) -> list[nodes.Node]:
        """A section per machine."""
        return [_machine(make()) for make in makers().values()]


def _machine(machine: Machine[Any]) -> nodes.section:
    section = nodes.section(ids=[nodes.make_id(machine.name)], names=[machine.name])
    section += nodes.title("", machine.name)
    section += nodes.paragraph("", f"{machine.title}. Source: {machine.source}.")
    section += _table(
        ("technique", "what it is"), [(one.name, one.title) for one in machine.techniques.values()]
    )
    section += _table(
        ("setting", "what it is", "values (default first)"),
        [
            (
                setting.name,
                setting.summary,
                ", ".join(
                    f"{value} {setting.labels.get(value, '')}".strip()
                    for value in sorted(setting.values, key=lambda v: v != setting.default)
                ),
            )
            for setting in machine.settings
        ],
    )
    if machine.notes:
        section += nodes.paragraph("", "Not modelled:")
        section += nodes.bullet_list(
            "", *(nodes.list_item("", nodes.paragraph("", note)) for note in machine.notes)
        )
    section += _table(
        ("instruction", "what it does", "source"),
        [(one.form, one.summary, one.source) for one in machine.instructions.values()],
    )
    return section


class Claims(SphinxDirective):
    """`.. popek-claims::`: what the claims that come with popek note about what publications say."""

    def run(self) -> list[nodes.Node]:
        """A table with a row per note."""
        rows = [
            (row.subject, row.statement, row.note, claim.id)
            for claim in shipped().values()
            for row in claim.rows
            if row.note
        ]
        return _table(("subject", "we derive", "note", "claim"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[nodes.Node]:
    """A table whose first column holds names; nothing where there are no rows."""
    if not rows:
        return []
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    group += nodes.thead("", nodes.row("", *(_cell(nodes.Text(title)) for title in head)))
    group += nodes.tbody(
        "",
        *(
            nodes.row("", _cell(nodes.literal("", row[0])), *(_cell(nodes.Text(text)) for text in row[1:]))
            for row in rows
        ),
    )
    return [nodes.table("", group, classes=["popek-table"])]


def _cell(content: nodes.Node) -> nodes.entry:
    return nodes.entry("", nodes.paragraph("", "", content))


def plain_docstring(site: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Our docstrings hold Markdown: tables, indented examples, `code`s with an ending; make reStructuredText of it."""
    made: list[str] = []
    in_table = False
    for line in lines:
        if line.startswith("    ") and made[-1:] == [""] and made[-2:-1] and made[-2][:1].strip():
            made += ["::", ""]
        if not line.startswith("|"):
            made += [""] if in_table else []
            made.append(re.sub(r"(`[^`]+`)(?=[a-z])", r"\1\\ ", line))
        elif set(line) > set("|-"):
            made += [] if in_table else ["", ".. list-table::", "   :header-rows: 1", ""]
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            made += [f"   {' ' if column else '*'} - {cell}" for column, cell in enumerate(cells)]
        in_table = line.startswith("|")
    lines[:] = made


def outward_links(site: Sphinx, page: str, source: list[str]) -> None:
    """Links to files beside `docs`, which work on a forge, become the names of these files."""
    source[0] = re.sub(
        r"\[([^\]]+)\]\((?:\.\./)+((?:README|CONTRIBUTING|notebooks)[^)]*)\)", r"\1 (`\2`)", source[0]
    )


def setup(site: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    site.add_directive("popek-commands", Commands)
    site.add_directive("popek-modules", Modules)
    site.add_directive("popek-machines", Machines)
    site.add_directive("popek-claims", Claims)
    site.connect("source-read", outward_links)
    site.connect("autodoc-process-docstring", plain_docstring, priority=400)
    return {"parallel_read_safe": True}
