"""Which combinations of the VM-execution controls a processor has: its capability MSRs, and every VM-entry check.

What is to be found are the control words; everything else of the VMCS is the plain one of a guest in its mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.kernel.assistance import AssistanceError, Processor
from popek.kernel.words import Word, symbol

from ..baselines import Mode, baseline, has_mode
from ..capabilities import Capabilities, CapabilityView
from ..capability_files import CapabilityError, load_capabilities
from ..controls import decode
from ..entry_checks import CHECKS
from ..fields import FIELDS as VMCS_FIELDS
from ..formulas import Formulas
from ..verdict import judge
from .arrangement import CONTROLS, COVERS
from .ownership import FEATURES
from .settings import FIELDS, bit_numbers

_MAY: Final = {"pin": "pin_may", "primary": "pri_may", "secondary": "sec_may"}
_MSRS: Final = {
    "pin": "IA32_VMX_PINBASED_CTLS",
    "primary": "IA32_VMX_PROCBASED_CTLS",
    "secondary": "IA32_VMX_PROCBASED_CTLS2",
}
ACTIVATE: Final = 31
USUAL: Final = "intel-skylake"


def processor(name: str | None) -> Processor:
    """A processor by a capability preset or file.

    Raises:
        AssistanceError: there is no such preset, or the file is none.
    """
    return _named(name, "32-bit")


def processor_64(name: str | None) -> Processor:
    """The same for a 64-bit guest."""
    return _named(name, "64-bit")


def _named(name: str | None, mode: Mode) -> Processor:
    try:
        capabilities = load_capabilities(name or USUAL)
    except CapabilityError as error:
        raise AssistanceError(str(error)) from None
    if not has_mode(mode, capabilities):
        raise AssistanceError(f"{capabilities.name} cannot run a {mode} guest")
    return of_capabilities(capabilities, mode)


def of_capabilities(capabilities: Capabilities, mode: Mode = "32-bit") -> Processor:
    """A processor with these capabilities, and a guest in this mode."""
    numbers, view = bit_numbers(), CapabilityView(capabilities)
    start = baseline(mode, capabilities)
    known = {name: value for name, value in start.fields.items() if name not in FIELDS.values()}
    known["EXCEPTION_BITMAP"] = 0
    formulas = Formulas(attrs.evolve(start, fields=known), capabilities, FIELDS.values())
    words = {group: formulas.symbols[field] for group, field in FIELDS.items()}
    cover = {name: symbol(f"{name} covers", 1) for name in COVERS}

    def control(name: str) -> Word:
        """Secondary controls as they take effect."""
        group = name.partition(".")[0]
        bit = words[group][numbers[name]]
        return bit & words["primary"][ACTIVATE] if group == "secondary" else bit

    def missing(name: str) -> str:
        if name in COVERS:
            return ""
        group = name.partition(".")[0]
        inactive = group == "secondary" and not view.pri_may >> ACTIVATE & 1
        if getattr(view, _MAY[group]) >> numbers[name] & 1 and not inactive:
            return ""
        return f"{_MSRS[group]}[{32 + numbers[name]}]"

    def fields(owned: Any, setting: Mapping[str, int], number: Callable[[Word], int]) -> Mapping[str, int]:
        found = {field: number(words[group]) & 0xFFFFFFFF for group, field in FIELDS.items()}
        found["CR0_GUEST_HOST_MASK"] = owned.cr0 * setting["cr0_mask"]
        found["CR4_GUEST_HOST_MASK"] = owned.cr4 * setting["cr4_mask"]
        return found

    def outcome(chosen: Mapping[str, int]) -> str:
        verdict = judge(start.with_fields(EXCEPTION_BITMAP=0, **chosen), capabilities)
        if verdict.failed:
            names = ", ".join(item.id for item in verdict.failed)
            raise RuntimeError(f"the synthesized controls do not pass {names} on integers")
        return verdict.outcome.kind

    rules: dict[str, Word] = {}
    for check in CHECKS.values():
        violated = formulas.worst(check) if check.certainty == "must" else None
        if violated is not None and violated.value != 0:
            rules[f"check {check.id}"] = ~violated
    return Processor(
        capabilities.name,
        {**{name: control(name) for name in CONTROLS}, **cover},
        rules,
        (*(words[group][n] for group in FIELDS for n in range(32)), *cover.values()),
        missing,
        frozenset(name for name in FEATURES if missing(name)),
        fields,
        outcome,
        _layout,
    )


def _layout(field: str, value: int) -> tuple[int, Sequence[tuple[int, int, str, str]]]:
    named = decode(field, value) if field in FIELDS.values() else []
    return VMCS_FIELDS[field].width, [(bit.high, bit.low, bit.name, bit.meaning) for bit in named]
