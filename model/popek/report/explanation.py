"""Everything about one instruction as text."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from popek.checks.explanation import Explanation, FormExplanation

from . import classification
from .wording import evidence


def explanation(found: Explanation) -> RenderableType:
    """Each form: what it is, why, and what was asked."""
    settings = ", ".join(f"{k}={v}" for k, v in found.configuration.items())
    heading = Text.assemble((found.machine, "bold"), " under ", (found.technique, "bold"))
    heading.append(f" with {settings}" if settings else "")
    parts: list[RenderableType] = [heading]
    told: set[str] = set()
    for form in found.forms:
        parts += ["", *_form(form, told)]
    return Group(*parts, "", evidence(found.ladder()))


def _form(form: FormExplanation, told: set[str]) -> list[RenderableType]:
    parts: list[RenderableType] = [classification.row(form.row)]
    if form.summary:
        parts.insert(0, Text(form.summary, "italic"))
    if form.disagreement:
        parts.append(Padding(Text(form.disagreement), (0, 0, 0, 2)))
    for name, witness in form.witnesses.items():
        key = f"{form.row.mnemonic} {name}"
        if key in told:
            continue  # another form of the same instruction has shown it
        told.add(key)
        parts += [Text(f"  {name.replace('_', '-')}", "bold"), classification.counterexample(witness, 4)]
    return parts
