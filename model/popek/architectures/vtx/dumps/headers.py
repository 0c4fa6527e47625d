"""Header lines of Linux KVM and Xen dumps: what failed, where, and with which error."""

from __future__ import annotations

import re

from .kinds import LineKind, ignore, number
from .model import DumpBuilder


def _kvm_header(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = "Linux KVM"
    builder.report("vmcs_pointer", match["pointer"])
    builder.report("cpu", match["cpu"])


def _kvm_parameter(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.remark(line, "the kernel printed no dump: load kvm_intel with dump_invalid_vmcs=1 and fail again")


def _hardware_error(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    value = number(match["value"])
    if rest := match.string[match.end() :].strip():
        builder.unrecognise(line, rest)
    builder.report("hardware_error", value)
    if value in _VMEXIT_INVALID:
        builder.amd = builder.amd or line
        return
    if value >> 31:
        builder.imply("EXIT_REASON", value & 0xFFFF_FFFF, line)
    elif value > _LAST_ERROR:
        builder.remark(
            line, f"hardware error {match['value']}: neither an exit reason nor an instruction error"
        )
    elif value == _BEGINNING and (line == builder.open_line or line in builder.doubtful):
        builder.remark(line, f"hardware error {match['value']}, where the text ends: it may go on: not read")
    elif not builder.may_go_on(match["value"], line):
        builder.imply("VM_INSTRUCTION_ERROR", value, line)


_BEGINNING = 8
"""An instruction error that is also the first digit of the exit reasons of failed entries."""
_LAST_ERROR = 28
"""The greatest VM-instruction error."""


def _error_line(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    """What other programs print: an exit reason, with or without bit 31, or extended by its sign."""
    value = 1 << 31 | int(match["value"], 16)
    builder.report("hardware_error" if match["kvm"] else "error_line", value)
    builder.imply("EXIT_REASON", value, line)


def _error_by_number(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.report("instruction", match["instruction"])
    if not builder.may_go_on(match["value"], line):
        builder.imply("VM_INSTRUCTION_ERROR", int(match["value"]), line)


def _error_in_words(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.report("error_line", match["what"])
    builder.imply("VM_INSTRUCTION_ERROR", 7 if match["what"] == "control" else 8, line)


def _internal_error(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.report("kvm_internal_error", int(match["value"]))


def _xen_failure(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = "Xen"
    if match["vcpu"]:
        builder.report("vcpu", match["vcpu"])
    builder.imply("EXIT_REASON", number(match["reason"]), line)
    builder.report("failure", match["text"].strip(" ."))
    if index := re.search(r"\(entry (\d+)\)", match["text"]):
        builder.imply("EXIT_QUALIFICATION", int(index[1]) + 1, line)
    elif qualification := re.search(r"\(((?:0x)?[0-9a-f]+)\)", match["text"]):
        builder.imply("EXIT_QUALIFICATION", number(qualification[1]), line)


def _xen_instruction_error(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = "Xen"
    if match["vcpu"]:
        builder.report("vcpu", match["vcpu"])
    builder.report("instruction", match["instruction"])
    if not builder.may_go_on(match["value"], line):
        builder.imply("VM_INSTRUCTION_ERROR", number(match["value"]), line)


def _xen_place(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = builder.format or "Xen"
    builder.report(match["what"].lower(), match["number"])


def _xen_request(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    # The debug key prints the VMCSs of virtual processors that run; a failed entry has another heading.
    builder.format = builder.format or "Xen"
    builder.entered = True


def _xen_msr(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.report(
        "failed_msr_load",
        f"{number(match['msr']):#x}={number(match['value']):#x} ({match['rest'].strip('() ')})",
    )


def _event(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.report("event", match["text"].strip())


_VMEXIT_INVALID = (0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)


def _svm(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.amd = builder.amd or line


SVM = LineKind(
    r"(?i).{0,200}?(?:VMC[SB] .*VMRUN|VMCB (?:Control|State Save) Area:|kvm_amd\.dump_invalid_vmcb"
    r"|Dumping guest's current state at|Size of VMCB = )",
    _svm,
)
"""The beginning of a VMCB, whose registers are no VMCS'."""
KINDS = (
    LineKind(r"VMCS (?P<pointer>\S+), last attempted VM-entry on CPU (?P<cpu>\d+)", _kvm_header, starts=True),
    LineKind(r".*[Ss]et kvm_intel\.dump_invalid_vmcs=1", _kvm_parameter),
    LineKind(r".*KVM: entry failed, hardware error (?P<value>0[xX][0-9a-fA-F]+)", _hardware_error),
    LineKind(
        r".{0,120}?(?:(?P<kvm>unhandled exit|fail entry|hardware_entry_failure_reason)|VM-entry failure exit reason)"
        r"[\s:=]{1,4}(?:0x)?(?:f{8})?(?P<value>[08]00000(?:21|22|29))\b",
        _error_line,
    ),
    LineKind(
        r".{0,80}?(?P<instruction>VMLAUNCH|VMRESUME) failed\W{1,3}Instruction error\W{1,4}(?P<value>\d{1,2})\b",
        _error_by_number,
    ),
    LineKind(
        r".{0,80}?vm.instruction.error\W{1,4}VM entry with invalid (?P<what>control|host-state) field",
        _error_in_words,
    ),
    LineKind(r".{0,80}?KVM internal error\. Suberror: (?P<value>\d+)", _internal_error),
    LineKind(
        r"(?:.{0,80}?(?P<vcpu>d\d+v\d+).{0,80}?)?vmentry failure \(reason (?P<reason>0x[0-9a-f]+) ?\): "
        r"(?P<text>.*)",
        _xen_failure,
        starts=True,
    ),
    LineKind(
        r"(?P<vcpu>)Failed vm entry \(exit reason (?P<reason>0x[0-9a-f]+)\) caused by (?P<text>.*)",
        _xen_failure,
        starts=True,
    ),
    LineKind(
        r"(?P<vcpu>d\d+v\d+)? *(?P<instruction>VMLAUNCH|VMRESUME) error: (?P<value>0x[0-9a-f]+)",
        _xen_instruction_error,
        starts=True,
    ),
    LineKind(r">>> (?P<what>Domain) (?P<number>\d+) <<<$", _xen_place),
    LineKind(r"\s*(?P<what>VCPU) (?P<number>\d+)$", _xen_place, starts=True),
    LineKind(r"\s*msr (?P<msr>[0-9a-f]{8}) val (?P<value>[0-9a-f]{16})(?P<rest>.*)", _xen_msr),
    LineKind(r"(?P<text>domain_crash called from .*)", _event),
    LineKind(r"\s*\*{4,} VMCS Areas \*{4,}$", _xen_request),
    LineKind(r"\s*\*{4,}(?: VMCS Areas?(?: \*{4,})?)?$", ignore),
    LineKind(r"\s*sel\s+attr\s+limit\s+base$", ignore),
    SVM,
)
