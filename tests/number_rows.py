"""Tables of numbers against rules: a TOML file of states, each a line of words, and what each rule says of them.

For every rule of a file: `fails`, `passes` and the like are lists of states; `bits` and `heals` are states with a field
and ranges of bits behind a semicolon: exactly these bits of the field, each changed alone, make a state that passes
fail when set, or one that fails pass. `twins` stand for `@` one after the other, in the order of `ids`.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs

Says = Literal["fails", "passes", "doubts", "tolerates", "unknown"]
"""Of a rule: the state fails it; passes it; fails it on some processors; fails it, and may enter on some; the
processor is not known well enough to say."""

SAYS: Final[tuple[Says, ...]] = ("fails", "passes", "doubts", "tolerates", "unknown")
TOKEN: Final = re.compile(r"(?P<name>[A-Za-z_0-9.x/]+?)(?P<how>[=+-])(?P<value>\S+)")


@attrs.frozen
class Row:
    """A state, and what one rule says of it; `also` are the other rules that fail."""

    check: str
    says: Says
    text: str
    also: frozenset[str] = frozenset()
    exact: bool = True
    """Whether the other rules are told too."""
    bit: tuple[str, int] | None = None
    """A bit of a field that differs from what the text says."""


@functools.cache
def document(path: Path) -> dict[str, Any]:
    """The file."""
    return tomllib.loads(path.read_text("utf-8"))


def rules(path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Ids, what the file says of them, and what stands for `@` there."""
    for name, told in document(path).items():
        if name != "processors":
            twins = told.get("twins", [""])
            for check_id, twin in zip(told.get("ids") or [name] * len(twins), twins, strict=True):
                yield check_id, told, twin


def rows(path: Path, read: Callable[[str, str], tuple[int, int]], start: tuple[str, ...]) -> tuple[Row, ...]:
    """All rows of a file.

    Args:
        path: of the file.
        read: a field's value in a state, and its width in bits.
        start: states that every rule passes.
    """
    found: list[Row] = []
    for check_id in dict.fromkeys(check_id for check_id, _, _ in rules(path)):
        found += [Row(check_id, "passes", text) for text in start]
    for check_id, told, twin in rules(path):
        for says in SAYS:
            for text in told.get(says, ()):
                line = text.replace("@", twin).replace("#", _number_of(twin))
                also = frozenset(word[1:] for word in line.split() if word.startswith("!"))
                found.append(Row(check_id, says, line, also))
        for key, flipped, others in (("bits", "fails", "passes"), ("heals", "passes", "fails")):
            for text in told.get(key, ()):
                state, _, wanted = text.replace("@", twin).partition(";")
                field, *ranges = wanted.split()
                named = {bit for one in ranges for bit in bits(one.lstrip("?"))}
                unsure = {bit for one in ranges if one.startswith("?") for bit in bits(one[1:])}
                before, width = read(state, field)
                if key == "heals":
                    found.append(Row(check_id, "fails", state, exact=False))
                for bit in range(width):
                    if key == "heals" or not before >> bit & 1:  # `?15`: some processors refuse this bit
                        says_: Any = "doubts" if bit in unsure else flipped if bit in named else others
                        found.append(Row(check_id, says_, state, exact=False, bit=(field, bit)))
    return tuple(found)


def _number_of(segment: str) -> str:
    """The number that the manual's lists give a segment register."""
    order = ("", "CS", "SS", "DS", "ES", "FS", "GS")
    return f"{order.index(segment):02}" if segment in order else ""


def bits(text: str) -> range:
    """`11:8` or `3` as bit numbers."""
    high, _, low = text.partition(":")
    return range(int(low or high), int(high) + 1)


@functools.cache
def number(text: str) -> Any:
    """An expression of numbers, in a file of ours."""
    return eval(text, {"__builtins__": {}}, {})


def changed(before: int, how: str, value: str) -> int:
    """What `=`, `+` or `-` makes of a number."""
    if how == "=":
        became: int = number(value)
        return became
    for bit in value.split(","):
        before = before | 1 << int(bit) if how == "+" else before & ~(1 << int(bit))
    return before


def words(text: str) -> Iterator[tuple[str, str, str]]:
    """The changes of a state: name, how, value.

    Raises:
        ValueError: a word is none.
    """
    for word in text.split():
        if word.startswith(("!", "entry:")):
            continue
        match = TOKEN.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} in {text!r} is no change of a state")
        yield match["name"], match["how"], match["value"]


def flipped(fields: Mapping[str, int], bit: tuple[str, int]) -> dict[str, int]:
    """The fields with one bit changed."""
    name, place = bit
    return {**fields, name: fields[name] ^ 1 << place}
