"""What the lines of a text tell of each other: which formats it has, and where a number may have been cut.

A dump has the words of its format. The same words in another style, among the lines of a format that has none of
them, are another program's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Final

import attrs

from popek.architectures.cuts import cut_lines, unended_lines
from popek.architectures.logs import LogLine

from ..fields import FIELDS

_OF_DUMP_VMCS = re.compile(
    r"""
      \*{1,3}\s*(?:Guest|Host|Control)\s+State | ^\W*(?:Guest|Host|Control)\s+State\W*$ | CR[04]:\s+actual=
    | \bsel=0x | (?:PinBased|CPUBased|SecondaryExec|EntryControls|ExitControls|ExceptionBitmap)\s*=
    | (?:VMEntry|VMExit):\s+intr_info | IDTVectoring:\s+info | Sysenter\s+RSP\s*=
    | \b[CDEFGS]S:\s+[0-9a-f]{4}\s+[0-9a-f]{5}\s
    | (?:Interruptibility|ActivityState|DebugCtl|EPT\ pointer|TSC\ Offset|Virtual\ processor\ ID|PDPT[RE]0)\s*=
    | \bRFLAGS=0x[0-9a-f]{8}\s+(?:\(|DR7)
    """,
    re.VERBOSE | re.MULTILINE,
)
"""What nothing but KVM's and Xen's `dump_vmcs` prints."""
_MAJORITY: Final = 3
_LONGEST_LINE: Final = 2000


@attrs.frozen
class Style:
    """How a line `NAME = value` is written: behind `#`, with `=` or `:`, and the kind of its name."""

    hashed: bool
    sign: str
    name: str

    @classmethod
    def of(cls, match: re.Match[str]) -> Style:
        """The style of a line."""
        name = match["name"]
        kind = "number" if name[:2].lower() == "0x" else "exact" if name in FIELDS else "other"
        kind = "small" if kind == "other" and name == name.lower() else kind
        return cls(match[0].startswith("#"), "=" if "=" in match[0] else ":", kind)


@attrs.frozen
class Surroundings:
    """What is known of a text before its lines are read.

    Attributes:
        foreign_words: the words of `dump_vmcs` are not the dump's: it has another format, and nothing of that one.
        styles: of the lines `NAME = value` that are read; None if all are.
        unended: lines whose last number may go on behind the end of the text, or in the next line.
        doubtful: these, and lines that end at the column where others were cut.
    """

    foreign_words: bool = False
    styles: Container[Style] | None = None
    unended: frozenset[int] = frozenset()
    doubtful: frozenset[int] = frozenset()


def surroundings(
    lines: Sequence[LogLine],
    kind_of: Callable[[str], re.Match[str] | str | None],
    open_end: int,
    *,
    others: bool = False,
) -> Surroundings:
    """Look at all lines of a log.

    Args:
        lines: of the log.
        kind_of: the match if a text is a line `NAME = value`, the name of another format that has it, or None.
        open_end: the line of a number that the text ends in, or 0.
        others: whether something of another format was found that is no line.
    """
    found = [kind_of(line.text) if line.text and len(line.text) <= _LONGEST_LINE else "" for line in lines]
    headed = any(_OF_DUMP_VMCS.search(line.text) for line in lines)
    others = others or any(isinstance(item, str) and item for item in found)
    styles = Counter(Style.of(item) for item in found if isinstance(item, re.Match))
    wanted: Container[Style] | None = None
    exact = {Style(False, sign, kind) for sign in "=:" for kind in ("exact", "number")}
    if headed or others:
        wanted = exact
    elif styles and styles.most_common(1)[0][1] >= _MAJORITY:
        main = styles.most_common(1)[0][0]
        alike = {style for style in styles if (style.hashed, style.sign) == (main.hashed, main.sign)}
        wanted = {style for style in alike if "small" not in (style.name,) or main.name == "small"} | exact
    unknown = [item is None for item in found]
    unended = unended_lines(lines, unknown, open_end)
    return Surroundings(
        not headed and (others or sum(styles.values()) >= _MAJORITY),
        wanted,
        unended,
        unended | cut_lines(lines, unknown),
    )


__all__ = ["Style", "Surroundings", "surroundings"]
