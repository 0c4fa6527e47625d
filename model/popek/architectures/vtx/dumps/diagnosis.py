"""What a dump says happened, beside what its fields mean: the last exit, vectored and injected events."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal

import attrs

from popek_specs.vtx import rows

from ..capabilities import UNKNOWN, Capabilities
from ..fields import FIELDS
from ..verdict import Verdict, judge
from ..vmcs import Vmcs
from .model import Dump

Kind = Literal["entry-failure", "instruction-error", "no-entry-failure", "nothing"]

_VALID = 1 << 31
_ENTRY_FAILURE = 1 << 31

INSTRUCTION_ERRORS: Mapping[int, str] = {
    1: "VMCALL executed in VMX root operation",
    2: "VMCLEAR with an invalid physical address",
    3: "VMCLEAR with the VMXON pointer",
    4: "VMLAUNCH with a VMCS that is not clear",
    5: "VMRESUME with a VMCS that is not launched",
    6: "VMRESUME after VMXOFF and VMXON",
    7: "VM entry with invalid control fields",
    8: "VM entry with invalid host-state fields",
    9: "VMPTRLD with an invalid physical address",
    10: "VMPTRLD with the VMXON pointer",
    11: "VMPTRLD with a wrong VMCS revision identifier",
    12: "VMREAD or VMWRITE of an unsupported VMCS component",
    13: "VMWRITE to a read-only VMCS component",
    15: "VMXON executed in VMX root operation",
    16: "VM entry with an invalid executive-VMCS pointer",
    17: "VM entry with an executive VMCS that is not launched",
    18: "VM entry with an executive-VMCS pointer that is not the VMXON pointer",
    19: "VMCALL with a VMCS that is not clear",
    20: "VMCALL with invalid VM-exit control fields",
    22: "VMCALL with a wrong MSEG revision identifier",
    23: "VMXOFF under dual-monitor treatment of SMIs and SMM",
    24: "VMCALL with invalid SMM-monitor features",
    25: "VM entry with invalid VM-execution control fields in the executive VMCS",
    26: "VM entry with events blocked by MOV SS",
    28: "invalid operand of INVEPT or INVVPID",
}
"""VM-instruction error numbers (Intel SDM vol. 3C, 'VM instruction error numbers')."""

_FAILURES = {33: "invalid guest state", 34: "MSR loading", 41: "machine check during VM entry"}
_QUALIFICATIONS = {
    2: "PDPTE loading",
    3: "NMI injection while blocked by STI",
    4: "invalid VMCS link pointer",
}
_TYPES = {
    0: "external interrupt",
    1: "reserved type 1",
    2: "NMI",
    3: "hardware exception",
    4: "software interrupt",
    5: "privileged software exception",
    6: "software exception",
    7: "other event",
}
_EXCEPTIONS = ["#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "-", "#TS", "#NP", "#SS", "#GP", "#PF", "-", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP"]
"""Exceptions by vector (Intel SDM vol. 3A, table 6-1)."""


@attrs.frozen
class Happening:
    """What a dump says happened: its kind, and sentences in order of importance."""

    kind: Kind
    sentences: tuple[str, ...]


@attrs.frozen
class Diagnosis:
    """A dump with its verdict.

    Attributes:
        summary: the outcome in one sentence.
        agreement: whether the verdict explains what the dump says, in one sentence; empty if it says nothing.
        fields_asked: fields to add to the dump, with the number of checks that wait for each; most first.
        others_asked: the same for capabilities, CPUID leaves and memory.
        waiting_for_others: the number of checks that wait for something beside fields.
    """

    dump: Dump
    capabilities: Capabilities
    verdict: Verdict
    happening: Happening
    fields_asked: tuple[tuple[str, int], ...]
    others_asked: tuple[tuple[str, int], ...]
    waiting_for_others: int
    summary: str
    agreement: str


def vmcs_of(dump: Dump) -> Vmcs:
    """Return the VMCS that a dump describes."""
    return Vmcs(name=dump.name, fields=dump.fields, memory=dump.memory, default=dump.default)


def diagnose(dump: Dump, capabilities: Capabilities = UNKNOWN) -> Diagnosis:
    """Judge a dump and put the verdict beside what the dump says happened."""
    verdict = judge(vmcs_of(dump), capabilities)
    waiting: dict[str, int] = {}
    for item in verdict.undecided:
        for what in item.missing:
            waiting[what] = waiting.get(what, 0) + 1
    happened = happening(dump)
    asked = tuple(sorted(waiting.items(), key=lambda item: (-item[1], item[0])))
    return Diagnosis(
        dump,
        capabilities,
        verdict,
        happened,
        fields_asked=tuple(item for item in asked if item[0] in FIELDS),
        others_asked=tuple(item for item in asked if item[0] not in FIELDS),
        waiting_for_others=sum(
            any(what not in FIELDS for what in item.missing) for item in verdict.undecided
        ),
        summary=summary(verdict, happened.kind),
        agreement=_agreement(verdict, happened.kind),
    )


def summary(verdict: Verdict, kind: Kind = "nothing") -> str:
    """Return the outcome of a verdict in one sentence; `kind` is what the dump says happened."""
    outcome = verdict.outcome
    match outcome.kind:
        case "enters":
            return "the VM entry succeeds: every check passes"
        case "vmfail-invalid":
            return "VMfailInvalid: there is no current VMCS"
        case "vmfail-valid":
            errors = " or ".join(_error(number) for number in outcome.errors)
            return f"VMfailValid, {errors}" + (
                " (the order of these checks is open)" * (len(outcome.errors) > 1)
            )
        case "entry-failure":
            return _failure(outcome.reason or 0, outcome.qualification)
        case "fault":
            return "the instruction itself faults"
    text = f"no check fails on what is known; {len(verdict.undecided)} checks lack inputs"
    return f"no entry failure is reported, and {text}" if kind == "no-entry-failure" else text


def _agreement(verdict: Verdict, kind: Kind) -> str:
    if kind == "nothing":
        return ""
    match verdict.explains_report:
        case "yes":
            return "The failed checks explain this." if verdict.failed else "The verdict agrees with this."
        case "no":
            return (
                "The verdict does not explain this: look for what the dump does not show, or shows too late."
            )
    return "Whether the verdict explains this cannot be decided from this dump."


@cache
def exit_reasons() -> Mapping[int, str]:
    """Return the names of the basic exit reasons, by number."""
    return {int(row["number"]): row["name"] for row in rows("exit-reasons.csv")}


def reason_name(reason: int) -> str:
    """Return a basic exit reason as people write it, such as ``EPT violation``."""
    name = exit_reasons().get(reason & 0xFFFF)
    if reason & 0xFFFF in _FAILURES:
        return _FAILURES[reason & 0xFFFF]
    return name.replace("_", " ").lower().replace("ept ", "EPT ") if name else "unknown reason"


def event(info: int, error_code: int | None = None) -> str:
    """Return an interruption-information field in words.

    >>> event(0x80000B0D, 0xF000)
    'hardware exception #GP (vector 13) with error code 0xf000'
    """
    vector, kind = info & 0xFF, info >> 8 & 7
    name = f" {_EXCEPTIONS[vector]}" if kind in {3, 5, 6} and vector < len(_EXCEPTIONS) else ""
    if kind == 7 and vector == 0:
        name = " (pending MTF VM exit)"
    text = f"{_TYPES[kind]}{name} (vector {vector if name else hex(vector)})"
    if not info >> 11 & 1:
        return text if kind != 3 else f"{text} without error code"
    return f"{text} with error code" + (f" {error_code:#x}" if error_code is not None else "")


def happening(dump: Dump) -> Happening:
    """Return what a dump says happened."""
    fields = dump.fields
    reason, error = fields.get("EXIT_REASON"), fields.get("VM_INSTRUCTION_ERROR") or None
    sentences: list[str] = []
    kind: Kind = "nothing"
    if reason is not None and reason & _ENTRY_FAILURE:
        kind = "entry-failure"
        sentences.append(_failure(reason, fields.get("EXIT_QUALIFICATION")))
        if error:
            sentences.append(f"{_error(error)}; only one of the two is from the last entry")
    elif error:
        kind = "instruction-error"
        sentences.append(_error(error))
        if reason is not None:
            sentences.append(
                f"exit reason {reason & 0xFFFF} ({reason_name(reason)}) is left from an earlier VM exit: "
                "a VM-instruction error does not write it"
            )
    elif reason is not None:
        kind = "no-entry-failure"
        sentences.append(
            f"no entry failure: the last VM entry succeeded and ended with exit reason {reason & 0xFFFF} "
            f"({reason_name(reason)})"
        )
    sentences += _reported_words(dump, kind)
    sentences += _events(fields)
    return Happening(kind, tuple(sentences))


def _failure(reason: int, qualification: int | None) -> str:
    text = f"VM-entry failure: exit reason {reason & 0xFFFF} ({reason_name(reason)})"
    if qualification is None:
        return text
    if reason & 0xFFFF == 34:
        return f"{text}, qualification {qualification}: entry {qualification} of the VM-entry MSR-load area"
    meaning = _QUALIFICATIONS.get(qualification) if reason & 0xFFFF == 33 else None
    return f"{text}, qualification {qualification}" + (f" ({meaning})" if meaning else "")


def _error(number: int) -> str:
    return f"VM-instruction error {number}: {INSTRUCTION_ERRORS.get(number, 'not defined')}"


def _reported_words(dump: Dump, kind: Kind) -> list[str]:
    sentences = []
    if said := dump.reported.get("event"):
        sentences.append(f"the log says: {said}")
    if dump.reported.get("hardware_error") == "0x0" and kind != "entry-failure":
        sentences.append("hardware error 0x0: KVM flagged a failure that the processor did not report")
    if msr := dump.reported.get("failed_msr_load"):
        sentences.append(f"the MSR that was not loaded: {msr}")
    return sentences


def _events(fields: Mapping[str, int]) -> list[str]:
    sentences = []
    vectored, injected = fields.get("IDT_VECTORING_INFO", 0), fields.get("ENTRY_INTR_INFO", 0)
    if vectored & _VALID:
        text = event(vectored, fields.get("IDT_VECTORING_ERROR_CODE"))
        sentences.append(f"the last VM exit interrupted the delivery of: {text}")
    exit_info = fields.get("EXIT_INTR_INFO", 0)
    if exit_info & _VALID:
        sentences.append(
            f"the last VM exit was due to: {event(exit_info, fields.get('EXIT_INTR_ERROR_CODE'))}"
        )
    if injected & _VALID:
        text = event(injected, fields.get("ENTRY_EXCEPTION_ERROR_CODE"))
        sentences.append(f"the VM entry injects: {text}")
        same_event = (vectored ^ injected) & 0x7FF == 0
        if vectored & _VALID and same_event and vectored >> 11 & 1 and not injected >> 11 & 1:
            sentences.append("the injected event is the interrupted one, but without its error code")
    return sentences
