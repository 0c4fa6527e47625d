"""What stands around a dump in a log: prefixes, quoting, mail and HTML encoding, several processors at once.

Every reader of logs goes through this one, so that what a prefix is does not depend on the format behind it. A
prefix is made of pieces that no dump's own lines have; a label of a dump (``DS:``) is never taken for a tag. What
no log that we know writes is learnt from the headings of the dump.
"""

from __future__ import annotations

import html
import itertools
import quopri
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from .enclosures import of_mail, plain, unescaped, unquoted

_QUOTED_PRINTABLE = re.compile(r"=3D\s*(?:0x)?[0-9a-f]|=(?:20|09)?$", re.IGNORECASE | re.MULTILINE)
_SOFT_BREAK = re.compile(r"^.{55,75}[\w:]=$", re.MULTILINE)
"""A line that quoted-printable broke: it ends in `=` near column 76, in the middle of a word."""
_ENCODED_EQUALS = re.compile(r"=3D", re.IGNORECASE)
_ESCAPED = re.compile(r"=([0-9A-F]{2})")
_ANSI = re.compile(
    r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][AB0])|\^\[\[[0-9;?]*[A-Za-z]"
    r"|[\u241b\ufffd]?\[\d{1,3}(?:;\d{1,3}){0,4}m"
)
"""Colours of a console, how `cat -v` shows them, and what is left where the escape itself was lost."""
_PLAIN_EQUALS = re.compile(r"=(?![0-9A-F]{2}|$)", re.MULTILINE)
_MARKUP = re.compile(
    r"\[/?(?:code|quote|pre|noparse|spoiler|font|size|color|b|i)(?:=[^\]\n]*)?\]|\{(?:noformat|code)(?::[^}\n]*)?\}",
    re.IGNORECASE,
)
"""Of forums and of Jira."""
_CONTINUED = re.compile(r"(?<=[\w:=])\\\n\s*(?=\w)")
"""A number or word that a backslash at the end of the line continues."""
_HTML = re.compile(
    r"&(?:nbsp|lt|gt|amp|quot|#\d+|#x[0-9a-f]+);|<br\s*/?>|</?(?:pre|div|p|span|code|td|tr|li|wbr)\b",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<br\s*/?>(?:\r?\n)?|</(?:p|div|tr|pre|li)\s*>(?:\r?\n)?", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:p|div|pre|span|code|td|th|tr|table|tbody|font|b|i|u|a|em|strong|tt|html|head|body|blockquote|ul|ol|li|wbr)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_TAGS: Final = (
    r"(?:kern(?:el)?|qemu[\w.-]*|libvirt\w*|virt(?:[a-z]*d|-[\w-]+)|xen\w*|vmkernel|vmunix|klogd|r?syslogd?|dmesg|netconsole|logger|"
    r"systemd[\w-]*|kvm)"
)
"""Who writes to a log. A tag that is none of these and has no number may be a label of the dump, and stays."""

_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d+)?"
_DATE: Final = rf"""
      [^\W\d_]{{3,9}}\.?\ +\d{{1,2}}\ {_CLOCK}(?:\ \d{{4}})?           # syslog, journal, in any language
    | \d{{1,2}}\.?\ [^\W\d_]{{3,9}}\.?\ (?:\d{{4}}\ )?{_CLOCK}         # day first
    | \d{{1,2}}\u6708\ +\d{{1,2}}\u65e5?\ {_CLOCK}                     # month and day in Chinese and Japanese
    # ISO; journal in full
    | (?:[A-Z][a-z]{{2}}\ )?\d{{4}}-\d\d-\d\d[T\ _]{_CLOCK}(?:\ ?(?:Z|[+-]\d\d:?\d\d|[A-Z]{{3,5}}\b))?
    | \d{{10}}\.\d{{6}}                                                # journal, seconds
    | \d\d-\d\d\ {_CLOCK}                                              # month and day
"""
_AFTER_DATE: Final = rf"""
    (?:
      \ +(?:\d+\ +\d+\ +[VDIWEF]\ +)?                                  # process, thread and level of Android
      (?:[A-Za-z0-9][\w.-]*\ +)?                                       # host
      (?:[\w./()@-]+\[[\d.]+\]|{_TAGS})\ *:(?=\s|$)\s?                # tag
    | \ +(?:cpu\d+:\d+\))                                              # ESXi
    | [\ \t]+
    | $
    )
"""

# One alternative for each piece; stripped again and again until none is left.
_WRAPPER = re.compile(
    rf"""
      >(?!>>\ Domain)(?=[\s>(\[<*+|A-Za-z0-9#-]|$)\s?               # mail quote; '>>> Domain' is Xen's
    | [|\u2502\u2503\u2551]\s?                                      # table, quote of a chat
    | \+(?=[\s\w(\[<*>#])\s?                                        # added line of a patch
    | -(?=[A-Za-z(\[<*>]|0x|\s+[\w(\[<*])\s?                           # removed line of a patch, item of a list
    | \*\ (?=[\w(\[<*])                                             # item of a list, comment
    | (?://|;|%)\s(?=\S)                                            # comment
    | `{{1,3}}(?=\S)                                                # Markdown
    | [\w.@/-]{{1,40}}\s+\|\s                                       # name of a container
    | <\d{{1,3}}>(?:1\s)?                                           # log level
    # facility and level of dmesg -x
    | (?:kern|user|mail|daemon|auth|syslog|cron|lpr|news|ftp|authpriv|local\d)\s*:\w{{3,7}}\s*:\s(?=\S)
    | \[\s*\d+\.\d+(?:\s*<\s*\d+\.\d+\s*>)?\]\s?(?:[A-Za-z0-9][\w.-]*\ kernel:\s)?   # kernel time, dmesg -d, journal
    | \[\s*\+\d+\.\d+\]\s?                                          # dmesg -H
    | \[[A-Z][a-z]{{2}}\ ?\d{{1,2}}\ \d\d:\d\d(?::\d\d)?\]\s?       # dmesg -H, -e
    | \[\s*<\s*\d+\.\d+>\]\s?                                       # dmesg -d, continued
    | \[[^\W\d_]{{2,4}}\.?\ (?:\d+\ )?[^\W\d_]{{3,5}}\.?\ +(?:\d+\ )?{_CLOCK}\ \d{{4}}\]\s?      # dmesg -T
    | \#\#\[\w+\]                                                    # CI, level
    | \[\d{{4}}-\d\d-\d\d[\ T]{_CLOCK}(?:Z|[+-]\d\d:?\d\d)?\]\s?    # Xen's console, CI
    | \[{_CLOCK}\]\s?                                               # CI
    | (?:{_DATE}){_AFTER_DATE}
    # VirtualBox
    | \d\d:\d\d:\d\d\.\d{{6}}\ (?:(?:EMT(?:-\d+)?|main|nspr-\d+)\ +)?(?=HM:|HMR0|VMX|CPUM|VMM|!!|[a-z]|CR|[CDEFGS]S)
    | {_CLOCK}\s+                                                   # CI
    | \(XEN\)\s?
    | kernel:\s?
    | kvm_(?:intel|amd):\ ?
    | SVM:\ (?=VMCB|kvm)
    | kvm(?:\ \[\d+\])?:\ (?!entry)
    | \[NoirVisor\]\s?
    | \d+\t\d+\.\d+\t(?:\[\d+\]\ )?                                 # DebugView
    | HM:\s(?=\s*MSR_)
    """,
    re.VERBOSE,
)
_CALLER = re.compile(r"\[\s*([TC]\d+)\]\s?")
_NUMBERED = re.compile(r"\s*(\d{1,7})(?:[:|.)]\s?|\t|\s{1,2}|$)")
_COMMENTED = re.compile(r"#\s*\w+ ?= ?")
"""A line `NAME = value` behind `#` is one in a style of its own."""
_NUMBER = re.compile(r"\s*(?:0x)?[0-9a-f]{8,16}\s*")
"""What stands behind the number of an MSR in a listing."""
_COLUMN = re.compile(r"\s*(\d{1,10})\t(?!\d+\.\d+\t)")
"""Of a process, in a table."""
_NAMED_AND_NUMBERED = re.compile(r"[\w./-]{1,80}[:-](\d{1,7})[:-]")
_LANDMARK = re.compile(
    r"\*\*\*\s*(?:Guest|Host|Control) State\s*\*\*\*|VMCB (?:Control|State Save) Area:", re.IGNORECASE
)
_BEGINNING = re.compile(
    r"""
      haxm_\w+:\ | Guest\ (?:[CDEFGS]S|Task|LDT|GDTR|IDTR)\ | Dumping\ (?:VMCS|guest's)\ | VMX\ Status:
    | (?:[RE](?:AX|SI|IP)|R8\ |R12)=[0-9a-f]{8} | (?:[CDEFGS]S|LDT|TR)\ ?=[0-9a-f]{4}\ [0-9a-f]{8}
    | [GI]DT=\ +[0-9a-f]{8}
    | CR0=[0-9a-f]{8}\ CR2= | DR[06]=[0-9a-f]{8} | EFER=[0-9a-f]{16}$
    | (?:[cdefgs]s|ldtr|tr)\s*=\{[0-9a-f]{4}\ | [re][ia][px]=[0-9a-f]{8} | [gi]dtr=[0-9a-f]{8} | cr0=[0-9a-f]{8}
    | (?<![\w#])(?:[A-Z]+_)+[A-Z0-9_]+\ ?[=:]\ ?0x[0-9a-f]+$
    | (?<![\w#])(?:ASID|EFER|CR[034]|DR[67]|INTERCEPTS_\d)\ =\ (?:0x)?[0-9a-f]+$
    | (?:RIP|RAX|CR0|EFER):\ 0x[0-9a-f]{16} | CS:\ [0-9a-f]+\ BASE:
    | (?:(?:cr|general1)_intercepts|pause_filter_threshold|exitcode|exitinfo1|asid|tlb_control|iopm_base_pa|cpl)\ =\ \d
    | (?:MSR_)?IA32_VMX_\w+ | (?<!\w)(?:0x)?4[89][0-9a-f][:\s=]\s*(?:0x)?[0-9a-f]{8,16}$
    | (?:base|limit|selector|type_|present|dpl|padding):\ (?:0x)?[0-9a-f]+,$
    | \#\ rdmsr\ | msr\[4[89][0-9a-f]\] | kvm_s?regs\ \{ | CR0:\ actual= | RFLAGS=0x | [CDEFGS]S:\s+sel=
    """,
    re.VERBOSE,
)
"""How lines of the formats without headings begin."""


@attrs.frozen
class LogLine:
    """A line of a text without its wrappers; `number` counts from 1 in the original text, `width` is its own there."""

    number: int
    text: str
    caller: str = ""
    width: int = 0


def _unwrap(text: str) -> tuple[str, str]:
    """Return the text behind all wrappers, and the printk caller (`T123`, `C3`) if one was among them."""
    caller = ""
    text = text.lstrip()
    while text:
        if match := _CALLER.match(text):
            caller = match[1]
        elif text.startswith(">>> Domain"):
            break
        else:
            match = _WRAPPER.match(text)
        if match is None or match.end() == 0:
            break
        text = text[match.end() :].lstrip()
    return text.rstrip("`| \t"), caller


def _decode_quoted_printable(raw: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Undo quoted-printable: `=3D` is `=`, and a `=` at the end of a line joins it with the next."""
    lines: list[tuple[int, str]] = []
    start, pending = 0, ""
    for place, (number, text) in enumerate(raw, 1):
        start = start or number
        pending += text.rstrip() if text.rstrip().endswith("=") else text
        if pending.endswith("=") and place < len(raw):
            pending = pending[:-1]
            continue
        lines.append((start, _without_escapes(pending)))
        start, pending = 0, ""
    return lines


def _without_escapes(text: str) -> str:
    """A line without its escapes; `reason=80000021` of another part of the log has none, though it looks so."""
    if _PLAIN_EQUALS.search(text):
        return _ENCODED_EQUALS.sub("=", text)
    found = quopri.decodestring(text.encode())
    try:
        plain_text = found.decode()
    except UnicodeDecodeError:
        return _ENCODED_EQUALS.sub("=", text)
    return _ENCODED_EQUALS.sub("=", text) if re.search(r"[\0-\x08\x0e-\x1f]", plain_text) else plain_text


_MOST_ENCODINGS: Final = 3
_LONGEST: Final = 2000


def _is_encoded(text: str) -> bool:
    """Whether a text is quoted-printable: it has `=3D` where the numbers of a dump would follow, or soft breaks."""
    encoded = _ENCODED_EQUALS.search(text) is not None and _QUOTED_PRINTABLE.search(text) is not None
    if encoded and 2 * len(_ENCODED_EQUALS.findall(text)) < len(_PLAIN_EQUALS.findall(text)):
        return False  # a line of something else; `reason=80000021` of this text is no escape
    return encoded or (_SOFT_BREAK.search(text) is not None and _PLAIN_EQUALS.search(text) is None)


def _encoded_line(text: str) -> str:
    """A line of a mail within a text that is none."""
    return text if _PLAIN_EQUALS.search(text) else _ENCODED_EQUALS.sub("=", text)


def unwrap(text: str) -> list[list[LogLine]]:
    """Split a text into lines and strip log prefixes, mail quotes, encodings of mail and HTML, console colours.

    Returns one list of lines, or one for each printk caller when several print at once.
    """
    text = of_mail(text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))
    text = plain(text)
    if "m" in text and _ANSI.search(text):
        text = _ANSI.sub("", text)
    if "\\\n" in text:
        text = _CONTINUED.sub("", text)
    if "[/" in text or "{" in text:
        text = _MARKUP.sub("", text)
    if "\\" in text or "$\n" in text:
        text = unescaped(text)
    if "\\n" in text or "'" in text or '"' in text:
        text = unquoted(text)
    if ("<" in text or "&" in text) and _HTML.search(text):
        text = plain(html.unescape(_TAG.sub("", _BREAK.sub("\n", text))))
    numbered = list(enumerate(text.split("\n"), 1))
    for _ in range(_MOST_ENCODINGS):  # a mail that quotes another one is encoded again
        if not _is_encoded("\n".join(part for _, part in numbered)):
            break
        numbered = _decode_quoted_printable(numbered)
    if "=3" in text:
        numbered = [(number, _encoded_line(part)) for number, part in numbered]
    numbered = _without_line_numbers(numbered)
    lines = [LogLine(number, *_unwrap(part), len(part)) for number, part in numbered]
    return _by_caller(_without_unknown_prefix(lines))


def _without_line_numbers(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Without the numbers in front of the lines, if there are such: they count up by one, or all are the same."""
    same = {match[1] if (match := _COLUMN.match(text)) else "" for _, text in lines if text.strip()}
    if len(same) == 1 and same != {""} and len(lines) >= 3:
        return [(number, _COLUMN.sub("", text, count=1)) for number, text in lines]
    for pattern in (_NUMBERED, _NAMED_AND_NUMBERED):
        filled = sum(bool(text.strip()) for _, text in lines)
        numbered = [
            (match, text) for _, text in lines if text.strip() and (match := pattern.match(text)) is not None
        ]
        found = [int(match[1]) for match, _ in numbered]
        rising = sum(later == number + 1 for number, later in itertools.pairwise(found))
        if (
            len(found) >= 3
            and rising >= 2
            and rising * 10 >= 8 * (len(found) - 1)
            and len(found) * 2 >= filled
            and not all(_NUMBER.fullmatch(text[match.end() :]) for match, text in numbered)
        ):
            return [(number, pattern.sub("", text, count=1)) for number, text in lines]
    return lines


def _without_unknown_prefix(lines: list[LogLine]) -> list[LogLine]:
    """Without a prefix that no log we know has: what stands before a section's heading, in front of each line.

    Where there are no headings it is learnt from the beginnings of lines, if most of these have the same before them.
    """
    for line in lines:
        match = _LANDMARK.search(line.text)
        if match is not None:
            return _without(lines, _shape(line.text[: match.start()])) if match.start() else lines
    found = [
        line.text[: match.start()]
        for line in lines
        if len(line.text) <= _LONGEST
        and (match := _BEGINNING.search(line.text)) is not None
        and not _COMMENTED.match(line.text)
    ]
    if not any(found):
        return lines
    (pattern, count), *_ = Counter(_shape(before).pattern for before in found if before).most_common(1)
    return _without(lines, re.compile(pattern)) if count >= 2 and 2 * count > len(found) else lines


def _without(lines: list[LogLine], prefix: re.Pattern[str]) -> list[LogLine]:
    return [
        attrs.evolve(other, text=other.text[found.end() :].lstrip())
        if (found := prefix.match(other.text))
        else other
        for other in lines
    ]


def _shape(prefix: str) -> re.Pattern[str]:
    """What a prefix looks like on the other lines: its numbers and blanks may be others."""
    pieces: Iterable[str] = re.findall(r"\d+|\s+|[^\d\s]+", prefix.rstrip())
    shape = "".join(
        r"\d+" if piece[0].isdigit() else r"\s+" if piece[0].isspace() else re.escape(piece)
        for piece in pieces
    )
    return re.compile(shape + r"(?:\s+|$)" if prefix[-1:].isspace() else shape)


def _by_caller(lines: list[LogLine]) -> list[list[LogLine]]:
    """Bring lines of the same printk caller together when several callers print at once."""
    callers = list(dict.fromkeys(line.caller for line in lines if line.caller))
    if len(callers) < 2:
        return [lines]
    groups: dict[str, list[LogLine]] = {caller: [] for caller in callers}
    current = callers[0]
    for line in lines:
        current = line.caller or current
        groups[current].append(line)
    return list(groups.values())


def rejoined(lines: list[LogLine], straddles: Callable[[str, str], bool]) -> list[LogLine]:
    """Bring together numbers and words that a terminal broke at its last column.

    Args:
        lines: of a log.
        straddles: whether the end of one text and the beginning of the next are one number or one word.
    """
    found: list[LogLine] = []
    for line in lines:
        if found and straddles(found[-1].text, line.text):
            found[-1] = attrs.evolve(found[-1], text=found[-1].text + line.text)
        else:
            found.append(line)
    return found


__all__ = ["LogLine", "rejoined", "unwrap"]
