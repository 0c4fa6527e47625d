"""What is known of a check of VMRUN, a field of the VMCB or an exit code, looked up by its name or number."""

from __future__ import annotations

import difflib

from popek.errors import PopekError

from .checks import CHECKS, NOT_MODELLED, ledger
from .vmcb import FIELDS, UnknownVmcbField, exit_codes, find, intercepts


class UnknownVmcbSubject(PopekError):  # noqa: N818 -- named for what it says to the user
    """Nothing has this name; the message is one line with near matches."""


_INVALID = (0xFFFF_FFFF, (1 << 64) - 1)


def explanation(subject: str) -> list[str]:
    """Lines that say what is known.

    Raises:
        UnknownVmcbSubject: nothing has this name.
    """
    wanted = subject.strip().upper()
    lines = [*_check(wanted), *_exit_code(wanted), *_field(subject)]
    if lines:
        return lines
    names = [*ledger(), *FIELDS, *exit_codes().values()]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.6)
    hint = f": did you mean {', '.join(near)}?" if near else ""
    raise UnknownVmcbSubject(f"no check, field or exit code is called {subject.strip()[:60]!r}{hint}")


def _check(wanted: str) -> list[str]:
    row = ledger().get(wanted)
    if row is None:
        return []
    lines = [f"{wanted}  check of VMRUN", f"  must hold  {row['statement']}", f"  when       {row['gate']}"]
    if wanted in NOT_MODELLED:
        return [*lines, f"  not modelled: {NOT_MODELLED[wanted]}"]
    otherwise = (
        "VMEXIT_INVALID" if CHECKS[wanted].certainty == "must" else "VMEXIT_INVALID on some processors"
    )
    return [*lines, f"  otherwise  {otherwise}", f"  source     {row['source']}"]


def _exit_code(wanted: str) -> list[str]:
    try:
        code = int(wanted, 0)
    except ValueError:
        code = {"VMEXIT_INVALID": _INVALID[1], "-1": _INVALID[1]}.get(wanted, -1)
    if code == -1:
        code = _INVALID[1] if wanted == "-1" else -1
    if code in _INVALID:
        return [
            "VMEXIT_INVALID  exit code -1",
            "  VMRUN did not enter the guest: a consistency check of the VMCB failed; there is no qualification",
            "  usual causes: ASID 0, the VMRUN intercept missing, EFER.SVME = 0, reserved bits of CR0, CR3, CR4, DR6,",
            "  DR7 or EFER, CR0.NW without CD, CS.L and CS.D together, an event of a reserved type",
            "  next: load kvm_amd with dump_invalid_vmcb=1, fail again, and give `popek vmcb check` what dmesg prints",
        ]
    name = exit_codes().get(code, "")
    if not name:
        return []
    return [f"{code:#x}  exit code: {name}", "  a VM exit: the VMRUN before it entered the guest"]


def _field(subject: str) -> list[str]:
    try:
        field = find(subject)
    except UnknownVmcbField:
        return []
    bits = [f"  bit {bit:2}  {name}" for (owner, bit), name in intercepts().items() if owner == field.id]
    readers = [check.id for check in CHECKS.values() if field.id in check.fields]
    lines = [f"{field.id}  field at {field.offset:03X}H, {field.width} bits", f"  {field.title}"]
    return [*lines, *([f"  checks  {', '.join(readers)}"] if readers else []), *bits]


__all__ = ["UnknownVmcbSubject", "explanation"]
