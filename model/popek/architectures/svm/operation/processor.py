"""Which combinations of the controls a processor has: its features, and what VMRUN checks of the control area."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from popek.kernel.assistance import AssistanceError, Processor
from popek.kernel.words import TRUE, Word, symbol
from popek_specs.svm import table

from ..checks import CHECKS, NotGiven, VmcbView
from ..vmcb import FIELDS
from ..vmcb import SvmProcessor as Checked
from .arrangement import CONTROLS, COVERS
from .settings import bits

USUAL: Final = "zen"
OPTIONAL: Final = (
    "enables.nested_paging", "enables.vgif", "enables.virtual_vmload_vmsave", "vector4.rdpru", "vector4.efer_write",
    "cr_write_trap", "vector5",
)  # fmt: skip
"""Controls, or words of them, that not every processor with SVM has."""


@functools.cache
def processors() -> Mapping[str, Mapping[str, Any]]:
    """The rows of ``processors.toml`` by name."""
    return {row["name"]: row for row in table("processors.toml")["processor"]}


def processor(name: str | None) -> Processor:
    """A processor by name.

    Raises:
        AssistanceError: there is none of this name.
    """
    if (name or USUAL) not in processors():
        raise AssistanceError(f"no processor is called {name!r}; known: {', '.join(processors())}")
    row = processors()[name or USUAL]
    has = frozenset(row["has"])
    fields = tuple(dict.fromkeys(field for field, _ in bits().values()))
    words = {field: symbol(field, FIELDS[field].width) for field in fields}
    cover = {cover: symbol(f"{cover} covers", 1) for cover in COVERS}

    def missing(control: str) -> str:
        word = control.partition(".")[0]
        optional = control in OPTIONAL or word in OPTIONAL
        return "CPUID" if optional and control not in has and word not in has else ""

    def chosen(profile: Any, setting: Mapping[str, int], number: Callable[[Word], int]) -> Mapping[str, int]:
        return {field: number(words[field]) for field in fields}

    return Processor(
        row["name"],
        {**{name: words[field][bit] for name, (field, bit) in bits().items()}, **cover},
        {
            **_rules(words, row["physical_address_bits"]),
            **{
                f"{name} is there": ~words[field][bit]
                for name, (field, bit) in bits().items()
                if missing(name)
            },
        },
        (*(word[n] for word in words.values() for n in range(word.width)), *cover.values()),
        missing,
        fields=chosen,
        layout=_layout,
    )


def _rules(words: Mapping[str, Word], physical_address_bits: int) -> Mapping[str, Word]:
    """What VMRUN checks of these fields, whatever the others hold."""
    wide = {field: word.zero_extend(64) for field, word in words.items()}
    view = VmcbView(wide, Checked(maxphyaddr=physical_address_bits, flush_by_asid=True))
    found = {}
    for check in CHECKS.values():
        if check.certainty != "must" or not set(check.fields) <= set(words):
            continue
        try:
            holds = _condition(check.holds(view))
            for gate in check.gates:
                holds = holds | ~_condition(gate(view))
        except NotGiven:
            continue
        if holds.value != 1:
            found[f"check {check.id}"] = holds
    return found


def _condition(answer: Any) -> Word:
    return answer if isinstance(answer, Word) else TRUE if answer else ~TRUE


def _layout(field: str, value: int) -> tuple[int, Sequence[tuple[int, int, str, str]]]:
    named = [
        (bit, bit, name.partition(".")[2], name) for name, (where, bit) in bits().items()
        if where == field and value >> bit & 1 and name in CONTROLS
    ]  # fmt: skip
    return FIELDS[field].width, sorted(named, reverse=True)
