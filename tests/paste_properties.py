"""What may happen to a text on its way into a paste, as strategies, and what none of it may do to the answer."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final

import attrs
from hypothesis import settings
from hypothesis import strategies as st

from paste_formats import FOREIGN
from pastes import MANGLED, PREFIXES, Mangle
from pastes_more import _PREFIXES as MORE_PREFIXES
from pastes_more import MORE
from popek.architectures.dump import DumpError

_EXAMPLES = os.environ.get("PASTE_EXAMPLES", "")
few: Final = settings(
    deadline=None, max_examples=int(_EXAMPLES or 25), derandomize=not _EXAMPLES, print_blob=False
)
"""For the suite, the same ones each time; PASTE_EXAMPLES=5000 asks more, and others."""

ALL_PREFIXES: Final[Sequence[str]] = (*PREFIXES.values(), *MORE_PREFIXES.values())
UNPADDED: Final = frozenset({"HAXM", "NoirVisor", "Jailhouse", "names", "Xen VMCB"})
"""Formats that print a number with as many digits as it has: one that was cut may look like a shorter one."""
_OF_DIGITS: Final = frozenset({"letters lost", "read by a machine"})
_OF_THE_SAME_GUEST: Final = frozenset({"QEMU before", "QEMU behind"})
"""What is known of the guest from elsewhere fills the gaps of a dump; that is no mangling."""
_EVERY: Final[Mapping[str, Mangle]] = {**MANGLED, **MORE}


@attrs.frozen
class Answer:
    """What a text was read as: the fields of each dump, the checks that fail, and whether anything was named."""

    fields: Sequence[Mapping[str, int]]
    failed: Set[str]
    named: bool

    def lost(self, whole: Answer) -> set[str]:
        """The fields that only the whole text has."""
        return set(whole.fields[0]) - {name for dump in self.fields for name in dump}


Read = Callable[[bytes], Answer]


def nothing_new(whole: Answer, read: Read, data: str | bytes, *, told: bool = True) -> Answer | None:
    """Assert that a text says nothing that the whole does not; None if it is refused as a whole.

    Args:
        whole: the answer to the text as it was.
        read: the reader.
        data: the text as it is now.
        told: whether what is lost must be named, since its lines are still there.
    """
    try:
        found = read(data.encode() if isinstance(data, str) else data)
    except DumpError:
        return None
    for dump in found.fields:
        assert dump.items() <= whole.fields[0].items()
    assert found.failed <= whole.failed
    assert found.named or not told or not found.lost(whole)
    return found


@st.composite
def truncated(draw: st.DrawFn, text: str) -> str:
    """A part of a text, cut anywhere, behind some prefix; of a single line nobody could tell."""
    prefix = draw(st.sampled_from(["", "> ", "[ 1.000000] ", "Nov 30 18:01:02 host kernel: "]))
    whole = "".join(f"{prefix}{line}\n" for line in text.splitlines())
    if not whole or draw(st.booleans()):
        return whole[draw(st.integers(0, len(whole))) :]
    return whole[: draw(st.integers(whole.index("\n") + len(prefix) + 2, len(whole)))]


@st.composite
def without_headings(draw: st.DrawFn, text: str) -> str:
    """A text of which some headings are gone, or are others."""
    others = st.sampled_from(
        [
            "",
            "---",
            "Host State",
            "*** host state",
            "=== state ===",
            "***",
            "*** Hos",
            "*** State ***",
            "VMCB Save:",
        ]
    )
    lines = text.splitlines()
    for place, line in enumerate(lines):
        if ("***" in line or "Area" in line) and draw(st.booleans()):
            lines[place] = draw(others)
    return "\n".join(lines) + "\n"


@st.composite
def with_foreign_lines(draw: st.DrawFn, text: str) -> str:
    """A text with lines of other parts of a log between its own."""
    lines = text.splitlines()
    for place, line in draw(st.lists(st.tuples(st.integers(0, 99), st.sampled_from(FOREIGN)), max_size=5)):
        lines.insert(place % (len(lines) + 1), line)
    return "\n".join(lines) + "\n"


@st.composite
def with_lines_lost(draw: st.DrawFn, text: str) -> str:
    """A text without some of its lines, or without a block of them."""
    lines = text.splitlines()
    if draw(st.booleans()):
        low, high = sorted(draw(st.tuples(st.integers(0, len(lines)), st.integers(0, len(lines)))))
        return "\n".join(lines[:low] + lines[high:]) + "\n"
    keep = draw(st.lists(st.booleans(), min_size=len(lines), max_size=len(lines)))
    return "".join(f"{line}\n" for line, kept in zip(lines, keep, strict=True) if kept)


@st.composite
def wrapped(draw: st.DrawFn, text: str) -> str:
    """A text whose lines a terminal or a mailer broke."""
    prefix = draw(
        st.sampled_from(["", "> ", "[ 7058.291757] ", "| ", "    ", "kern  :err   : [ 7058.291757] "])
    )
    width = draw(st.integers(24 + len(prefix), 110))
    lines = [prefix + line for line in text.splitlines()]
    if draw(st.booleans()):
        return "\n".join(part for line in lines for part in textwrap.wrap(line, width) or [""]) + "\n"
    return (
        "\n".join(line[at : at + width] for line in lines for at in range(0, max(len(line), 1), width)) + "\n"
    )


@st.composite
def cut_at_a_column(draw: st.DrawFn, text: str, *, unpadded: bool) -> str:
    """A text whose lines end at a column.

    That a single line was cut in a number of no known width, nothing shows: then more are cut.
    """
    widths = sorted(map(len, text.splitlines()))
    limit = widths[-7] if unpadded and len(widths) > 8 else widths[-1]
    width = draw(st.integers(10, max(limit, 11)))
    return "".join(f"{line[:width]}\n" for line in text.splitlines())


def manglings(name: str) -> st.SearchStrategy[str]:
    """The names of the manglings that a format can be asked about."""
    left_out = (_OF_DIGITS if name in UNPADDED else frozenset()) | (
        frozenset() if name in ("KVM", "older KVM", "Xen", "KVM VMCB", "Xen VMCB") else _OF_THE_SAME_GUEST
    )
    return st.sampled_from([mangling for mangling in _EVERY if mangling not in left_out])


def mangled(name: str, text: str) -> str | bytes:
    """A text, mangled."""
    return _EVERY[name](text.rstrip("\n").split("\n"))


ENCODINGS: Final = (*("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),)
