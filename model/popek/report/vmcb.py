"""How the terminal talks about VMCBs: verdicts, and names of their checks and bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from popek.architectures.svm.checks import CHECKS
from popek.architectures.svm.diagnosis import VmrunDiagnosis, diagnose
from popek.architectures.svm.verdict import VmrunVerdict
from popek.architectures.svm.vmcb import SvmProcessor, VmcbDump, intercepts
from popek.architectures.vtx import controls
from popek.architectures.vtx.controls import Bit

from .vmcs_repair import Words, names_of

_GUEST_REGISTERS: Final = {
    "CR0": "GUEST_CR0",
    "CR4": "GUEST_CR4",
    "EFER": "GUEST_IA32_EFER",
    "RFLAGS": "GUEST_RFLAGS",
    "G_PAT": "GUEST_IA32_PAT",
    "S_CET": "GUEST_IA32_S_CET",
}
"""Registers that have the same bits in a VMCB and in a VMCS."""


def decode(field_id: str, value: int) -> list[Bit]:
    """The named bits of a field; none if it is a plain number."""
    if field_id in _GUEST_REGISTERS:
        return controls.decode(_GUEST_REGISTERS[field_id], value)
    return [
        Bit(bit, bit, name, value >> bit & 1, f"intercept {name}")
        for (owner, bit), name in sorted(intercepts().items())
        if owner == field_id
    ]


def _names(field_id: str, differing: int) -> list[str]:
    if field_id in _GUEST_REGISTERS:
        return names_of(_GUEST_REGISTERS[field_id], differing)
    return [f"{bit.name}[{bit.low}]" for bit in decode(field_id, differing) if bit.value]


def _statement(check_id: str) -> str:
    return CHECKS[check_id].statement if check_id in CHECKS else ""


WORDS: Final = Words(_statement, _names, "VMRUN enters the guest.")
"""For `print_repair`."""

_MOST_SHOWN: Final = 6


def text_of(dump: VmcbDump, processor: SvmProcessor, verdict: VmrunVerdict) -> str:
    """What `popek vmcb check` prints of a VMCB."""
    found = diagnose(dump.vmcb, processor, verdict)
    count = len(dump.vmcb.fields)
    name = processor.named or ("unknown" if processor == SvmProcessor() else "as given")
    lines = [f"{dump.vmcb.name}: {count} field{'s' * (count != 1)}, processor: "]
    lines[0] += f"unknown, not {name}" if verdict.against else name
    lines.append(f"{found.label}  {found.summary}")
    lines += [f"  {item.id}  {item.message}  [{item.section}]" for item in verdict.failed]
    if verdict.against:
        lines.append(f"This VMCB is not from {name}, whose values are left aside; there would fail:")
        lines += [f"  {sentence}" for sentence in verdict.against]
    if verdict.warnings:
        lines.append("These fail on some processors:")
        lines += [f"  {item.id}  {item.message}" for item in verdict.warnings]
    if found.said:
        lines.append(f"The dump reports {found.said[0]}")
        lines += [f"  {sentence}" for sentence in found.said[1:]]
    if found.agreement:
        lines.append(f"  {found.agreement}")
    lines += _near(found)
    lines += _asked(verdict, found)
    lines += [f"line {item.line}: {item.text}" for item in dump.remarks]
    if dump.unrecognised:
        count = len(dump.unrecognised)
        lines.append(f"{count} piece{'s' * (count != 1)} of text not recognised:")
        lines += _most(f"  line {item.line}: {item.text[:200]}" for item in dump.unrecognised)
    return "\n".join(lines) + "\n"


def _near(found: VmrunDiagnosis) -> Iterator[str]:
    if found.near_misses:
        yield "Near misses: each fails if one thing more holds"
        yield from _most(
            f"  {near.id}  {near.message}; fails if {near.condition}: give {', '.join(near.missing)}"
            for near in found.near_misses
        )


def _asked(verdict: VmrunVerdict, found: VmrunDiagnosis) -> Iterator[str]:
    waiting = sum(not item.unsure for item in verdict.undecided)
    if waiting:
        asked = ", ".join(f"{what} ({count})" for what, count in found.asked)
        yield f"{waiting} check{'s' * (waiting != 1)} cannot be decided; needed: {asked}"
    if found.unsure:
        yield "No manual that was read says what these come to:"
        yield from (f"  {sentence}" for sentence in found.unsure)


def _most(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    rest = len(every) - _MOST_SHOWN
    return every if rest <= 0 else [*every[:_MOST_SHOWN], f"  and {rest} more"]


__all__ = ["WORDS", "decode", "text_of"]
