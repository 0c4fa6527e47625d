"""What is known of a check of VMRUN, a field or bit of the VMCB, an exit code or a processor, by its name or number."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from popek.errors import PopekError

from .capabilities import explained as processor_explained
from .checks import CHECKS, NOT_MODELLED, ledger
from .control_bits import ControlBits, UncheckedRow, control_bits, readers, unchecked, unchecked_rows
from .exit_codes import ExitCode, codes, find_code, refused
from .vmcb import FIELDS, UnknownVmcbField, find


class UnknownVmcbSubject(PopekError):  # noqa: N818 -- named for what it says to the user
    """Nothing has this name; the message is one line with near matches."""


def explanation(subject: str) -> list[str]:
    """Lines that say what is known.

    Raises:
        UnknownVmcbSubject: nothing has this name.
    """
    wanted = subject.strip().upper()
    code = find_code(subject)
    blocks = [_check(wanted), _exit_code(code) if code else [], _field(subject), _bits(wanted)]
    lines = [line for block in blocks if block for line in ("", *block)][1:]
    if found := lines or processor_explained(subject):
        return found
    names = [
        *ledger(), *unchecked_rows(), *FIELDS, *(bits.name for bits in control_bits()),
        *(item.name for item in codes().values()),
    ]  # fmt: skip
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.6)
    hint = f": did you mean {', '.join(near)}?" if near else ""
    raise UnknownVmcbSubject(f"no check, field, bit or exit code is called {subject.strip()[:60]!r}{hint}")


def of_exit_code(subject: str) -> list[str]:
    """Lines about an exit code alone, by its name or number; none if there is none."""
    code = find_code(subject)
    return _exit_code(code) if code else []


def of_bits(subject: str) -> list[str]:
    """Lines about bits of controls alone."""
    return _bits(subject.strip().upper())


def _check(wanted: str) -> list[str]:
    if (free := unchecked_rows().get(wanted)) is not None:
        names = [
            name if (high, low) == (63, 0) else f"{name}[{high}:{low}]" for name, high, low in free.covers
        ]
        return [
            f"{wanted}  no check of VMRUN",
            f"  fields     {', '.join(names)}",
            f"  why        {free.statement}",
            *([f"  when       {free.gate}"] if free.gate != "always" else []),
            *_confidence(free.confidence),
            f"  source     {free.source}",
        ]
    row = ledger().get(wanted)
    if row is None:
        return []
    lines = [f"{wanted}  check of VMRUN", f"  must hold  {row['statement']}", f"  when       {row['gate']}"]
    if wanted in NOT_MODELLED:
        return [*lines, f"  not modelled: {NOT_MODELLED[wanted]}"]
    otherwise = {
        "must": "VMEXIT_INVALID",
        "may": "VMEXIT_INVALID on some processors",
        "unsure": "not stated: it accuses nobody",
    }[CHECKS[wanted].certainty]
    return [
        *lines,
        f"  otherwise  {otherwise}",
        f"  looks at   {', '.join(CHECKS[wanted].fields)}",
        *_confidence(row["confidence"]),
        f"  source     {row['source']}",
    ]


def _confidence(word: str) -> list[str]:
    return [] if word == "sure" else [f"  confidence {word}"]


_INVALID_CAUSES = (
    "  usual causes: ASID 0, the VMRUN intercept missing, EFER.SVME = 0, reserved bits of CR0, CR3, CR4, DR6,",
    "  DR7 or EFER, CR0.NW without CD, CS.L and CS.D together, an event of a reserved type",
    "  next: load kvm_amd with dump_invalid_vmcb=1, fail again, and give `popek vmcb check` what dmesg prints",
)


def _exit_code(code: ExitCode) -> list[str]:
    signed = code.number - (1 << 64) if refused(code.number) else None
    shown = f"{code.name}  exit code {signed if signed is not None else f'{code.number:#x}'}: {code.title}"
    lines = [shown]
    if signed is None and code.number < 0xF000_0000:
        lines.append("  a VM exit: the VMRUN before it entered the guest")
    if signed == -1:
        lines += [f"  {code.cause}", *_INVALID_CAUSES]
    else:
        lines.append(f"  usual cause: {code.cause}")
    return [*lines, *_confidence(code.confidence), f"  source     {code.source}"]


def _field(subject: str) -> list[str]:
    try:
        field = find(subject)
    except UnknownVmcbField:
        return []
    bits = [
        f"  {_place(bits):>9}  {bits.name}"
        + (f"  {bits.title}" if not bits.title.startswith("intercept ") else "")
        for bits in control_bits()
        if bits.field == field.id
    ]
    found = [check.id for check in readers(field.id)]
    lines = [f"{field.id}  field at {field.offset:03X}H, {field.width} bits", f"  {field.title}"]
    lines += [f"  checks  {', '.join(found)}"] if found else []
    return [*lines, *_free(unchecked(field.id)), *bits]


def _free(found: Iterable[UncheckedRow]) -> list[str]:
    return [f"  no check  {row.id}: {row.statement}" for row in found]


def _bits(wanted: str) -> list[str]:
    bare = wanted.replace(" ", "_").replace("-", "_")
    lines: list[str] = []
    for bits in control_bits():
        if bits.name.upper().replace(" ", "_").replace("-", "_") == bare or _named_place(bits) == bare:
            lines += _one(bits)
    return lines


def _named_place(bits: ControlBits) -> str:
    return f"{bits.field}[{bits.low}]" if bits.low == bits.high else f"{bits.field}[{bits.high}:{bits.low}]"


def _place(bits: ControlBits) -> str:
    return f"bit {bits.low}" if bits.low == bits.high else f"bits {bits.high}:{bits.low}"


def _one(bits: ControlBits) -> list[str]:
    word = re.compile(rf"\b{re.escape(bits.name.replace('_', '-'))}\b|\b{re.escape(bits.name)}\b(?!-)")
    asked = [check.id for check in readers(bits.field) if word.search(f"{check.statement} {check.gate_text}")]
    return [
        f"{bits.name}  {_place(bits)} of {bits.field}: {bits.title}",
        *([f"  does    {bits.effect}"] if bits.effect else []),
        *([f"  checks  {', '.join(asked)}"] if asked else _free(unchecked(bits.field, bits.low))),
        f"  source  {bits.source}",
    ]


__all__ = ["UnknownVmcbSubject", "explanation", "of_bits", "of_exit_code"]
