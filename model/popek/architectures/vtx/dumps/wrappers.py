"""What stands around a dump: log prefixes, mail quoting and encoding, several processors in one log."""

from __future__ import annotations

import re

import attrs

_QUOTED_PRINTABLE = re.compile(r"=3D\s*(?:0x)?[0-9a-f]", re.IGNORECASE)
_ESCAPED = re.compile(r"=([0-9A-F]{2})")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

# One alternative for each wrapper; stripped again and again until none is left.
_WRAPPER = re.compile(
    r"""
      >(?!>>\ Domain)(?=[\s>(\[<*A-Za-z0-9]|$)\s?                   # mail quote; '>>> Domain' is Xen's
    | <\d{1,2}>                                                     # log level
    | \[\s*\d+\.\d+\]\s?                                            # kernel time
    | \[[A-Z][a-z]{2}\ [A-Z][a-z]{2}\ +\d+\ [\d:]+\ \d{4}\]\s?      # dmesg -T
    | \[\d{4}-\d\d-\d\d[\ T][\d:.]+\]\s?                            # Xen console time
    | [A-Z][a-z]{2}\ +\d{1,2}\ \d\d:\d\d:\d\d(?:\.\d+)?\ \S+\ [\w.()/-]+(?:\[\d+\])?:\s?    # syslog, journal
    | \d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\d\S*\ \S+\ [\w.()/-]+(?:\[\d+\])?:\s?               # syslog, ISO time
    | \(XEN\)\s?
    | kvm_intel:\ ?
    | kvm(?:\ \[\d+\])?:\ (?!entry)
    | \[NoirVisor\]\s?
    | \d+\t\d+\.\d+\t(?:\[\d+\]\ )?                                 # DebugView
    | \d\d:\d\d:\d\d\.\d{6}\ (?:\S+\ +)??(?=HM:|HMR0|VMX|CPUM)      # VirtualBox
    | HM:\s(?=\s*MSR_)
    """,
    re.VERBOSE,
)
_CALLER = re.compile(r"\[\s*([TC]\d+)\]\s?")


@attrs.frozen
class Line:
    """A line of a text without its wrappers; `number` counts from 1 in the original text."""

    number: int
    text: str
    caller: str = ""


def _unwrap(text: str) -> tuple[str, str]:
    """Return the text behind all wrappers, and the printk caller (`T123`, `C3`) if one was among them."""
    caller = ""
    while text:
        if match := _CALLER.match(text):
            caller = match[1]
        elif text.startswith(">>> Domain"):
            break
        else:
            match = _WRAPPER.match(text)
        if match is None or match.end() == 0:
            break
        text = text[match.end() :]
        if text[:1] == " " and text.lstrip()[:1] in {">", "[", "<", "("}:
            text = text.lstrip()
    return text.rstrip(), caller


def _decode_quoted_printable(raw: list[str]) -> list[tuple[int, str]]:
    """Undo quoted-printable: `=3D` is `=`, and a `=` at the end of a line joins it with the next."""
    lines: list[tuple[int, str]] = []
    start, pending = 0, ""
    for number, text in enumerate(raw, 1):
        start = start or number
        pending += text
        if pending.endswith("=") and number < len(raw):
            pending = pending[:-1]
            continue
        lines.append((start, _ESCAPED.sub(lambda match: chr(int(match[1], 16)), pending)))
        start, pending = 0, ""
    return lines


def unwrap(text: str) -> list[list[Line]]:
    """Split a text into lines and strip log prefixes, mail quotes, quoted-printable and console colours.

    Returns one list of lines, or one for each printk caller when several print at once.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    raw = text.split("\n")
    encoded = _QUOTED_PRINTABLE.search(text) is not None
    numbered = _decode_quoted_printable(raw) if encoded else list(enumerate(raw, 1))
    lines = [Line(number, *_unwrap(part)) for number, part in numbered]
    return _by_caller(lines)


def _by_caller(lines: list[Line]) -> list[list[Line]]:
    """Bring lines of the same printk caller together when several callers print at once."""
    callers = list(dict.fromkeys(line.caller for line in lines if line.caller))
    if len(callers) < 2:
        return [lines]
    groups: dict[str, list[Line]] = {caller: [] for caller in callers}
    current = callers[0]
    for line in lines:
        current = line.caller or current
        groups[current].append(line)
    return list(groups.values())
