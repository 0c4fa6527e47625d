"""What a dump says happened, beside what its fields mean: the last exit, vectored and injected events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import attrs

from popek.architectures.vtx.entry_checks import CHECKS

from ...x86.next_steps import KVM_INTEL, VIRTUALBOX, XEN_INTEL
from ..capabilities import UNKNOWN, Capabilities
from ..controls import EVENT_TYPES, EXCEPTION_TYPES, EXCEPTIONS, INSTRUCTION_ERRORS, exit_reasons
from ..fields import FIELDS
from ..inference import in_ia32e_mode
from ..verdict import Failure, Undecided, VmEntryVerdict, reported_outcome
from ..vmcs import Launch, Vmcs
from .causes import NearMiss, OneAway, could_cause, near_misses, one_away, questions
from .model import Dump
from .processors import ProcessorJudgement, ReportedProcessor, judge_any

DiagnosisKind = Literal[
    "entry-failure", "instruction-error", "no-entry-failure", "an-earlier-exit", "nothing"
]

_VALID = 1 << 31
_ENTRY_FAILURE = 1 << 31

_FAILURES = {33: "invalid guest state", 34: "MSR loading", 41: "machine check during VM entry"}
_QUALIFICATIONS = {
    2: "PDPTE loading",
    3: "NMI injection while blocked by STI",
    4: "invalid VMCS link pointer",
}
_TYPES: Final = {**EVENT_TYPES, 1: "reserved type 1"}


@attrs.frozen
class Happening:
    """What a dump says happened: its kind, and sentences in order of importance."""

    kind: DiagnosisKind
    sentences: tuple[str, ...]


@attrs.frozen
class Diagnosis:
    """A dump with its verdict.

    Attributes:
        label: the outcome in a word or two.
        summary: the outcome in one sentence.
        agreement: whether the verdict explains what the dump says, in one sentence; empty if it says nothing.
        suspects: undecided checks that fail on a plain processor.
        relevant: how many undecided checks could cause what the dump reports; 0 if it reports no failure.
        fields_asked: fields that the relevant checks (or all undecided ones) lack, with the number of checks
            that wait for each; what decides most comes first.
        others_asked: the same for capabilities, CPUID leaves and memory.
        inferred: what the dump shows of the processor, in words.
        against: why the dump is not from the processor that was asked for, in words; empty if it may be.
        near_misses: undecided checks that fail if they apply; see `popek.architectures.vtx.dumps.causes`.
        one_away: of the checks that could cause a reported failure, those that one more fact decides.
        unsure: values of the processor that nobody is sure of and that undecided checks wait for.
        next_step: how to get the VMCS where only an error line or registers were given; else empty.
    """

    dump: Dump
    capabilities: Capabilities
    verdict: VmEntryVerdict
    happening: Happening
    label: str
    summary: str
    agreement: str
    suspects: tuple[Failure, ...]
    relevant: int
    fields_asked: tuple[tuple[str, int], ...]
    others_asked: tuple[tuple[str, int], ...]
    inferred: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    next_step: str = ""
    near_misses: tuple[NearMiss, ...] = ()
    one_away: tuple[OneAway, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """What the dump shows of the processor, and that it is not the one that was asked for."""
        return (*self.against, *self.inferred)


def vmcs_of(dump: Dump) -> Vmcs:
    """Return the VMCS that a dump describes."""
    vmcs = Vmcs(
        name=dump.name,
        fields=dump.fields,
        memory=dump.memory,
        default=dump.default,
        printed=dump.format not in ("JSON", "NAME = value"),
        entered=dump.entered,
        areas=dump.areas,
    )
    if dump.launch is not None:
        return attrs.evolve(vmcs, launch=dump.launch)
    mode = in_ia32e_mode(dump.fields)
    return vmcs if mode else attrs.evolve(vmcs, launch=_FROM_32_BIT if mode is False else _FROM_EITHER)


_FROM_32_BIT, _FROM_EITHER = Launch(efer_lma=False), Launch(efer_lma=None)


def diagnose(dump: Dump, capabilities: Capabilities = UNKNOWN) -> Diagnosis:
    """Judge a dump and put the verdict beside what the dump says happened."""
    vmcs = vmcs_of(dump)
    judgement = judge_any(vmcs, ReportedProcessor(capabilities))
    verdict = judgement.verdict
    happened = happening(dump)
    if verdict.failed and happened.kind == "no-entry-failure":
        happened = _of_another_state(dump, happened)
    report = reported_outcome(vmcs)
    relevant = [item for item in verdict.undecided if report is not None and could_cause(item.id, report)]
    known = judgement.processor.sure
    # Where checks fail, what might fail besides is no news; where no failure is reported, nothing is missed.
    quiet = bool(verdict.failed) or (report is not None and not relevant)
    quiet |= report is None and "kvm_internal_error" in dump.reported
    open_ = relevant or verdict.undecided
    near = () if quiet else near_misses(vmcs, known, open_)
    away = () if quiet or not relevant else one_away(vmcs, known, relevant, {item.id for item in near})
    asked = questions(open_, near, away)
    return Diagnosis(
        dump,
        capabilities,
        verdict,
        happened,
        label=_label(judgement, happened.kind),
        summary=_summary(judgement, happened.kind),
        agreement=_agreement(judgement, happened.kind),
        suspects=judgement.suspects,
        relevant=len(relevant),
        fields_asked=tuple(item for item in asked if item[0] in FIELDS),
        others_asked=tuple(item for item in asked if item[0] not in FIELDS),
        inferred=judgement.inferred,
        against=judgement.against,
        unsure=_unsure(judgement.processor.known, verdict.undecided),
        next_step=next_step(dump),
        near_misses=near,
        one_away=away,
    )


def _of_another_state(dump: Dump, happened: Happening) -> Happening:
    """What a dump says happened, where the VM entry that it speaks of had another state than the dump has."""
    reason = dump.fields["EXIT_REASON"]
    first = f"exit reason {reason & 0xFFFF} ({reason_name(reason)}) is that of a VM exit"
    return Happening(happened.kind, (first, *happened.sentences[1:]))


def _unsure(known: Capabilities, undecided: Iterable[Undecided]) -> tuple[str, ...]:
    """The values that a processor is not sure of, as far as checks wait for them."""
    asked = {what for item in undecided for what in item.missing}
    names = [name if not name.startswith("0x") else f"({name[2:].upper()}H)" for name in known.unsure]
    return tuple(sorted(what for what in asked if any(name in what for name in names)))


def _label(judgement: ProcessorJudgement, kind: DiagnosisKind) -> str:
    match judgement.verdict.outcome.kind:
        case "enters":
            return "ENTERS"
        case "undecided":
            if judgement.suspects:
                return "SUSPECT"
            return "NO ENTRY FAILURE" if kind == "no-entry-failure" else "UNDECIDED"
    return "FAILS"


def _summary(judgement: ProcessorJudgement, kind: DiagnosisKind) -> str:
    verdict = judgement.verdict
    outcome = verdict.outcome
    match outcome.kind:
        case "enters":
            open_ = len(verdict.undecided)
            passes = (
                "every check passes"
                if not open_
                else f"{_passed(verdict)}, and no other can fail it everywhere"
            )
            return f"the VM entry succeeds: {passes}"
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
    count = len(verdict.undecided)
    lacking = f"{_passed(verdict)}, {count} check{'s lack' if count != 1 else ' lacks'} inputs"
    if judgement.suspects:
        names = ", ".join(item.id for item in judgement.suspects)
        return f"{names} would fail on many processors; {lacking}"
    if kind == "no-entry-failure":
        return f"the dump reports none, and no check fails on what is known; {lacking}"
    return f"no check fails on what is known; {lacking}"


def _passed(verdict: VmEntryVerdict) -> str:
    """How many checks were decided, of a verdict without failed ones."""
    count = len(CHECKS) - len(verdict.undecided)
    return f"{count} check{'s pass' if count != 1 else ' passes'}"


def _agreement(judgement: ProcessorJudgement, kind: DiagnosisKind) -> str:
    verdict = judgement.verdict
    if kind == "nothing":
        return ""
    if kind == "an-earlier-exit":
        if verdict.outcome.kind == "entry-failure":
            return "With this state an entry fails and sets bit 31 of the exit reason: none was tried since."
        if verdict.failed:
            return "The failed checks end in VMfail, which leaves the exit reason: they fit this."
        return ""
    if kind == "no-entry-failure":
        if verdict.failed:
            return "That exit came after another state than this: it was changed since, or read from somewhere else."
        return "No check contradicts this."
    if verdict.explains_report == "yes" and verdict.failed:
        return "The failed checks explain this."
    if judgement.suspects_explain:
        return "The suspects would explain this."
    if verdict.explains_report == "no":
        if verdict.failed:
            return "The failed checks do not explain this: the cause is elsewhere."
        open_ = len(verdict.undecided)
        rest = f"; none of the {open_} that lack inputs ends so" if open_ else ""
        return f"The verdict does not explain this: {_passed(verdict)} on the state that is printed{rest}."
    if verdict.failed:
        return "The failed checks do not explain this; an undecided one may."
    return "The cause is not in what the dump prints: an undecided check may explain it."


_NEXT: Mapping[str, str] = {
    "Xen": XEN_INTEL,
    "VirtualBox": VIRTUALBOX,
    "Jailhouse": "print the control fields by VMREAD beside this text, as NAME = value lines",
    "NoirVisor": "print the control fields by VMREAD beside this text, as NAME = value lines",
}


def next_step(dump: Dump) -> str:
    """How to get the VMCS, in one line, where a dump has none of its control fields."""
    if dump.format == "JSON" or any(name.endswith("_CONTROLS") for name in dump.fields):
        return ""
    if "kvm_internal_error" in dump.reported:
        return ""
    if "hardware_error" in dump.reported or dump.format == "QEMU registers":
        return KVM_INTEL
    return (
        _NEXT.get(dump.format, "") if happening(dump).kind in ("entry-failure", "instruction-error") else ""
    )


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
    name = f" #{EXCEPTIONS[vector]}" if kind in EXCEPTION_TYPES and vector in EXCEPTIONS else ""
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
    kind: DiagnosisKind = "nothing"
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
    elif reason is not None and reported_outcome(vmcs_of(dump)) is None:
        kind = "an-earlier-exit"
        sentences.append(
            f"exit reason {reason & 0xFFFF} ({reason_name(reason)}) is that of the last VM exit; whether an entry "
            "failed after it the fields do not say: VMfail leaves the exit reason, and no VM-instruction error is "
            "given"
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


_INTERNAL_ERRORS: Mapping[str, str] = {
    "0x1": "KVM could not emulate an instruction of the guest",
    "0x2": "two exceptions at once that KVM could not combine",
    "0x3": "a VM exit while an event was being delivered",
    "0x4": "a VM exit that KVM does not handle",
}


def _reported_words(dump: Dump, kind: DiagnosisKind) -> list[str]:
    sentences = []
    if said := dump.reported.get("event"):
        sentences.append(f"the log says: {said}")
    if dump.reported.get("hardware_error") == "0x0" and kind != "entry-failure":
        sentences.append("hardware error 0x0: KVM flagged a failure that the processor did not report")
    if said := dump.reported.get("kvm_internal_error"):
        what = _INTERNAL_ERRORS.get(said, "see linux/kvm.h")
        sentences.append(f"KVM internal error {int(said, 16)} ({what}): no VM entry failed for this")
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
