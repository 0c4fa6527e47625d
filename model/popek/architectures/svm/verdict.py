"""The verdict on a VMCB: whether VMRUN enters the guest, and because of which checks it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from ..x86.evidence import FailedCheck
from .checks import CHECKS, NotGiven, VmcbCheck, VmcbView
from .vmcb import SvmProcessor, Vmcb, exit_codes

VmrunOutcome = Literal["enters", "vmexit-invalid", "undecided"]

_INVALID = (0xFFFF_FFFF, (1 << 64) - 1)


Failure = FailedCheck
"""A check that fails, or fails on some processors, with the fields that make it fail."""


@attrs.frozen
class UndecidedVmcbCheck:
    """A check that lacks an input: a field id, or something about the processor; or one that nobody is sure of."""

    id: str
    missing: str
    unsure: bool = False


@attrs.frozen
class VmrunVerdict:
    """What becomes of a VMRUN; `warnings` are failures on some processors only."""

    name: str
    outcome: VmrunOutcome
    failed: tuple[Failure, ...]
    undecided: tuple[UndecidedVmcbCheck, ...]
    warnings: tuple[Failure, ...]
    reported: Mapping[str, int]
    explains_report: Literal["yes", "no", "unknown"]

    @property
    def kind(self) -> str:
        """What becomes of VMRUN, in a word."""
        return self.outcome

    @property
    def entered(self) -> bool:
        """Whether the exit code is that of a VM exit, which only a guest that was entered has."""
        return self.reported.get("EXITCODE", _INVALID[0]) not in (*_INVALID, 0)

    def to_json(self) -> dict[str, Any]:
        """The verdict as `popek vmcb check --json` prints it."""
        return {
            "schema": "popek/vmcb-verdict/1",
            "name": self.name,
            "outcome": {"kind": self.outcome},
            "failed": [_failure(item) for item in self.failed],
            "undecided": [{"id": item.id, "missing": [item.missing]} for item in self.undecided],
            "warnings": [_failure(item) for item in self.warnings],
            "reported": {name: hex(value) for name, value in self.reported.items()},
            "explains_report": self.explains_report,
        }


def _failure(item: Failure) -> dict[str, Any]:
    fields = {name: hex(value) for name, value in item.fields.items()}
    return {"id": item.id, "fields": fields, "message": item.message, "section": item.section}


def violated(check: VmcbCheck, view: VmcbView) -> bool:
    """Whether the state violates a check.

    Raises:
        NotGiven: that cannot be decided.
    """
    missing: NotGiven | None = None
    for gate in check.gates:
        try:
            if not gate(view):
                return False
        except NotGiven as error:
            missing = missing or error
    if check.holds(view):
        return False
    if missing is not None:
        raise missing
    return True


def judge(
    vmcb: Vmcb, processor: SvmProcessor | None = None, checks: Mapping[str, VmcbCheck] = CHECKS
) -> VmrunVerdict:
    """Judge a VMCB by the checks of the ledger, or by others.

    >>> judge(Vmcb(fields={"ASID": 0})).failed[0].id
    'SVM-CTL-02'
    """
    view = VmcbView(vmcb.fields, processor or SvmProcessor(), vmcb.memory)
    failed: list[Failure] = []
    warnings: list[Failure] = []
    undecided: list[UndecidedVmcbCheck] = []
    for check in checks.values():
        try:
            if not violated(check, view):
                continue
            if check.certainty == "unsure":
                undecided.append(
                    UndecidedVmcbCheck(check.id, f"what VMRUN does unless {check.statement}", True)
                )
                continue
            (failed if check.certainty == "must" else warnings).append(_described(check, vmcb))
        except NotGiven as error:
            if check.certainty != "unsure":
                undecided.append(UndecidedVmcbCheck(check.id, str(error)))
    waiting = any(checks[item.id].certainty == "must" for item in undecided)
    outcome: VmrunOutcome = "vmexit-invalid" if failed else "undecided" if waiting else "enters"
    code = vmcb.fields.get("EXITCODE")
    reported = {
        name: vmcb.fields[name] for name in ("EXITCODE", "EXITINFO1", "EXITINFO2") if name in vmcb.fields
    }
    explains: Literal["yes", "no", "unknown"] = "unknown"
    if code is not None:
        if (code in _INVALID) == bool(failed):
            explains = "yes" if failed or not waiting else "unknown"
        else:
            explains = "unknown" if waiting or warnings else "no"
    return VmrunVerdict(
        vmcb.name, outcome, tuple(failed), tuple(undecided), tuple(warnings), reported, explains
    )


def _described(check: VmcbCheck, vmcb: Vmcb) -> Failure:
    fields = {name: vmcb.fields[name] for name in check.fields if name in vmcb.fields}
    values = ", ".join(f"{name} = {value:#x}" for name, value in fields.items())
    when = "" if check.gate_text.startswith("always") else f" (where {check.gate_text})"
    return Failure(check.id, fields, f"{check.statement}{when}, but {values}", check.section)


def exit_name(code: int) -> str:
    """An exit code in words."""
    return exit_codes().get(code, "")
