"""Whose a printed word is that the guest part and the host part share, when the heading between them may be lost.

Both parts are printed in a fixed order. What stands between two headings is therefore some of the guest's words in
their order, and then some of the host's in theirs; a word is placed if every such reading gives it to the same part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final, Literal

import attrs

from .layouts import GUEST, HOST

Part = Literal["guest", "host"]
_FRONT, _RSP, _RIP, _FLAGS, _SYSENTER, _SEGMENTS, _EFER, _PAT, _REST = range(9)

_GUEST_ORDER: Final = MappingProxyType(
    dict.fromkeys(GUEST, _REST)
    | {word: _FRONT for word in GUEST if word == "CR3" or word.startswith("PDPT")}
    | {"RSP": _RSP, "RIP": _RIP, "RFLAGS": _FLAGS, "DR7": _FLAGS, "Sysenter": _SYSENTER}
    | {"segment": _SEGMENTS, "EFER": _EFER, "PAT": _PAT, "EFER(VMCS)": _EFER, "CR0:": _FRONT, "CR4:": _FRONT}
)
"""How far down the guest part a word stands; equal numbers may come in any order."""
_HOST_ORDER: Final = MappingProxyType(
    dict.fromkeys(HOST, 8)
    | dict.fromkeys(("CS", "SS", "DS", "ES", "FS", "GS", "TR"), 2)
    | dict.fromkeys((word for word in HOST if word.endswith("Base")), 3)
    | {"RIP": 0, "RSP": 1, "CR0": 4, "CR3": 4, "CR4": 4, "Sysenter": 5, "EFER": 6, "PAT": 7}
)
"""The same of the host part."""


@attrs.frozen
class PrintedWord:
    """A printed word.

    Attributes:
        name: by which the orders know it.
        line: of the log.
        key: as it is printed.
        text: of its value.
        only: whose it is alone; None if it may be either's.
        read: takes the value for a part, when it is decided whose a shared word is.
    """

    name: str
    line: int
    key: str = ""
    text: str = ""
    only: Part | None = None
    read: Callable[[Part], None] | None = None


@attrs.define
class HeadedWords:
    """The words between two headings; `part` is what the heading above them says, or empty."""

    part: str = ""
    words: list[PrintedWord] = attrs.field(factory=list)

    def add(self, word: PrintedWord) -> None:
        """Note one more word."""
        self.words.append(word)

    def parts(self, following: str) -> list[Part | None]:
        """Whose each word is, None where nothing tells; `following` is the heading below, "end" for none."""
        words = self.words
        if following == "host" and self.part != "host":
            return _between_headings(words)
        parts: tuple[Part, Part] = ("host", "guest") if self.part == "host" else ("guest", "host")
        before, behind = _fitting(words, parts[0]), _fitting(words[::-1], parts[1], backwards=True)[::-1]
        # Behind the guest's heading comes the host's, unless the text ends; behind the host's, anything.
        if before[-1] and (self.part == "host" or (self.part == "guest" and following == "end")):
            return [parts[0]] * len(words)
        splits = [
            place
            for place in range(len(words) + 1)
            if before[place] and behind[place] and not self._in_a_pair(place)
        ]
        found: list[Part | None] = [None] * len(words)
        if splits:
            found[: splits[0]] = [parts[0]] * splits[0]
            found[splits[-1] :] = [parts[1]] * (len(words) - splits[-1])
        return self._with_neighbours(found)

    def _in_a_pair(self, place: int) -> bool:
        """Whether a place is between RSP and RIP of one line, which are one part's."""
        if not 0 < place < len(self.words):
            return False
        left, right = self.words[place - 1], self.words[place]
        return {left.name, right.name} == {"RSP", "RIP"} and left.line == right.line

    def _with_neighbours(self, found: list[Part | None]) -> list[Part | None]:
        """The line `Sysenter` of an excerpt is the guest's if it follows RFLAGS and DR7.

        Of no other word the neighbour is enough: were lines lost, a wrong one could accuse.
        """
        for place, word in enumerate(self.words):
            above = self.words[place - 1] if place else None
            if word.name != "Sysenter" or above is None or self.part != "guest":
                continue
            if above.name in ("RFLAGS", "DR7", "Sysenter"):
                found[place] = found[place] or (found[place - 1] if above.name == "Sysenter" else "guest")
        return found


def _rank(word: PrintedWord, part: Part) -> int | None:
    if word.only is not None and word.only != part:
        return None
    return (_GUEST_ORDER if part == "guest" else _HOST_ORDER)[word.name]


def _fitting(words: Sequence[PrintedWord], part: Part, *, backwards: bool = False) -> list[bool]:
    """For every place, whether all words before it may be one part, in its order; a part says a word once."""
    found, last = [True], 99 if backwards else 0
    seen: dict[tuple[str, str], str] = {}
    for word in words:
        key = word.name, word.key
        if word.only is None and seen.get(key) == word.text:
            found.append(found[-1])  # the same line once more
            continue
        rank = _rank(word, part)
        good = rank is not None and (rank <= last if backwards else rank >= last)
        good = good and (word.only is not None or seen.setdefault(key, word.text) == word.text)
        last = last if rank is None else min(last, rank) if backwards else max(last, rank)
        found.append(found[-1] and good)
    return found


def _between_headings(words: Sequence[PrintedWord]) -> list[Part | None]:
    """All above the host's heading are the guest's, but what stands behind words that the guest's part has later."""
    found: list[Part | None] = []
    highest = 0
    for word in words:
        rank = _rank(word, "guest")
        if rank is None:
            return [None] * len(words)  # the headings stand elsewhere
        found.append("guest" if word.only == "guest" or rank >= highest else None)
        highest = max(highest, rank) if word.only == "guest" else highest
    return found


__all__ = ["HeadedWords", "Part", "PrintedWord"]
