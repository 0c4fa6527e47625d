"""The words of `dump_vmcs` as they are looked for, and where a terminal broke one of them or its number."""

from __future__ import annotations

import re

from .layouts import CONTROL, GROUPS, GUEST, HOST, SEGMENT_REGISTERS, TABLE_REGISTERS


def alternatives(words: set[str]) -> str:
    """A pattern of words, the longest first, with any blanks."""
    ordered = sorted(words, key=lambda word: (-len(word), word))
    return "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in ordered)


HEADINGS = {heading: words for heading, (_, words) in GROUPS.items()}
HEADED = {key for words in HEADINGS.values() for key in words}
KEYS = (
    set(GUEST)
    | set(HOST)
    | set(CONTROL)
    | HEADED
    | {"sel", "attr", "limit", "base", "CS:RIP", "SVI|RVI", "EFER(MSR LL)"}
)

_WIDTHS = {key: word.digits for words in (CONTROL, HOST, GUEST) for key, word in words.items()} | {
    key: word.digits for _, words in GROUPS.values() for key, word in words.items()
}
_WIDTHS |= {"sel": 4, "attr": 5, "limit": 8, "base": 16}
_CUT_VALUE = re.compile(
    rf"(?<![\w.:|-])(?P<key>{alternatives(set(_WIDTHS))})\s*=\s*(?:0x)?(?P<digits>[0-9a-f]*)\Z"
)
_CUT_ADDRESS = re.compile(r"CS:RIP\s*=\s*(?P<selector>[0-9a-f]*)(?P<address>:[0-9a-f]*)?\Z")
_CUT_ROW = re.compile(
    rf"(?<!\w)(?P<register>{'|'.join((*SEGMENT_REGISTERS, *TABLE_REGISTERS))}):(?P<numbers>(?:\s+[0-9a-f]+)+)\Z"
)
_CUT_WORD = re.compile(r"[A-Za-z_-]+\Z")
_HEAD = re.compile(r"[0-9a-f]+(?!\w)")
_HEAD_WORD = re.compile(r"[A-Za-z_-]+")
_ALL_WORDS = frozenset(word for key in (*KEYS, *HEADINGS) for word in re.split(r"[^A-Za-z_-]+", key) if word)


def straddles(before: str, after: str) -> bool:
    """Whether the end of a line and the beginning of the next are one number or one word."""
    if not before or not after:
        return False
    if re.search(r"=\s*0\Z", before[-10:]) and re.match(r"x[0-9a-f]{2}", after):
        return True
    head = _HEAD.match(after)
    if head and (cut := _CUT_ADDRESS.search(before[-60:])):
        digits, wanted = (cut["address"][1:], 16) if cut["address"] else (cut["selector"], 4)
        rest = head[0] if cut["address"] else head[0][: after.find(":")]
        return len(digits) < wanted == len(digits) + len(rest)
    if head and (cut := _CUT_VALUE.search(before[-60:])) and not before.endswith("="):
        wanted = _WIDTHS[" ".join(cut["key"].split())]
        return len(cut["digits"]) < wanted == len(cut["digits"]) + len(head[0])
    if head and (row := _CUT_ROW.search(before)):
        numbers = row["numbers"].split()
        widths = (8, 16) if row["register"] in TABLE_REGISTERS else (4, 5, 8, 16)
        if len(numbers) <= len(widths):
            return len(numbers[-1]) < widths[len(numbers) - 1] == len(numbers[-1]) + len(head[0])
    tail, word = _CUT_WORD.search(before), _HEAD_WORD.match(after)
    if tail and word:
        return tail[0] + word[0] in _ALL_WORDS and not (tail[0] in _ALL_WORDS or len(tail[0]) == len(before))
    return False


__all__ = ["HEADED", "HEADINGS", "KEYS", "alternatives", "straddles"]
