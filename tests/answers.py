"""What no answer about a VM entry says together, of a VMCS or of a VMCB: a checker over the printed text."""

from __future__ import annotations

import re

FAILED = re.compile(r"\bFAILS\b|\bVMEXIT_INVALID  |\bchecks? fails?\b(?! of)|\bfailed checks explain\b")
"""That an entry with this state fails."""
ENTERED = re.compile(
    r"\bentered\b|\benters the guest\b|\bENTERS\b|\bsucceed(?:s|ed)\b|\bNO ENTRY FAILURE\b|\bno entry failure\b"
    r"|\breports none\b|No check contradicts"
)
"""That an entry with this state succeeded."""
DECIDED = re.compile(r"\bevery check passes\b")
UNDECIDED = re.compile(
    r"\b\d+ checks? (?:are not decidable|is not decidable|cannot be decided|lacks? inputs)"
)
DOUBTED = re.compile(r"These fail on some processors|Warnings \(no entry failures by themselves\)")


def contradictions_of(text: str) -> list[str]:
    """What two sentences of an answer say against each other."""
    flat = re.sub(r"no check fails", "", text)
    wrong = []
    if FAILED.search(flat) and (found := ENTERED.search(flat)):
        wrong.append(f"fails, and {found[0]!r}")
    if DECIDED.search(flat) and (found := UNDECIDED.search(flat)):
        wrong.append(f"every check passes, and {found[0]!r}")
    if DECIDED.search(flat) and (found := DOUBTED.search(flat)):
        wrong.append(f"every check passes, and {found[0]!r}")
    if re.search(r"\b1 checks\b|\b1 fields\b|\(\(|\)\)", flat):
        wrong.append("grammar")
    return wrong


def repair_contradicts(text: str, reported: bool) -> list[str]:
    """What a repair says against a reported failure, or against itself."""
    wrong = []
    if reported and "Nothing has to change" in text:
        wrong.append("nothing has to change, and a failure is reported")
    if "every check passes" in text and UNDECIDED.search(text):
        wrong.append("every check passes, and some cannot be decided")
    return wrong
