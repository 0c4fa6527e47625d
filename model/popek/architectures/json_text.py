"""JSON of dumps: decoded with every mistake named, whatever the document is about."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from popek.errors import PopekError


class JsonError(PopekError):
    """A text that is no JSON, or says one thing twice.

    Attributes:
        message: one line.
        line: where, counted from 1; 0 if nowhere in particular.
        extra: whether something follows a complete value, as in JSON Lines.
    """

    def __init__(self, message: str, line: int, *, extra: bool = False) -> None:
        """Say what is wrong."""
        self.message, self.line, self.extra = message, line, extra
        super().__init__(message)


def decode(text: str) -> Any:
    """Decode a text.

    Raises:
        JsonError: it is not JSON, or gives a key twice with different values.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(
            f"not JSON: {error.msg} (column {error.colno})", error.lineno, extra=error.msg == "Extra data"
        ) from None
    except JsonError:
        raise
    except (RecursionError, ValueError) as error:
        raise JsonError(f"not JSON that can be read: {str(error)[:80]}", 0) from None


def documents(text: str) -> list[tuple[int, Any]]:
    """Every document of a text, with its line: one object, an array of them, or one a line.

    Raises:
        JsonError: as `decode`; the array is empty.
    """
    try:
        value = decode(text)
    except JsonError as error:
        lines = text.splitlines()
        first = [line.lstrip()[:1] for line in lines if line.strip()][:2]
        if not (error.extra and first == ["{", "{"]):
            raise
        return [(number, _of_line(line, number)) for number, line in enumerate(lines, 1) if line.strip()]
    if value == []:
        raise JsonError("the JSON array is empty", 0)
    return [(1, item) for item in value] if isinstance(value, list) else [(1, value)]


def _of_line(line: str, number: int) -> Any:
    try:
        return decode(line)
    except JsonError as error:
        raise JsonError(error.message, number) from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: dict[str, Any] = {}
        for key, item in pairs:
            if key in seen and seen[key] != item:
                raise JsonError(f"{key!r} is given twice, as {show(seen[key])} and as {show(item)}", 0)
            seen[key] = item
    return value


def _constant(text: str) -> Any:
    raise JsonError(f"{text} is not JSON", 0)


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def show(value: object) -> str:
    """A value as a message quotes it."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def unknown_key(key: str, place: str, known: Iterable[str]) -> str:
    """A message for a key that nothing has: a near one, or all that are known."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(known)}"
    return f"{place}unknown key {show(key)}: {hint}"


def without_fields(value: dict[str, Any], keys: Iterable[str], fields: Iterable[str], example: str) -> str:
    """A message for an object that lacks its fields: a key of it that is one, or is near to one, is named.

    Args:
        value: the object.
        keys: that an object may have.
        fields: names of fields.
        example: of an object of fields.
    """
    keys, fields = list(keys), list(fields)
    wanted = f'expected an object such as {{"fields": {example}}}'
    for key in value:
        if key in keys:
            continue
        name = key.strip().upper().replace("-", "_").replace(" ", "_")
        if name in fields:
            return f"no key 'fields', and {show(key)} is a field: {wanted}"
        if near := difflib.get_close_matches(key, keys, n=1, cutoff=0.75):
            return f"no key 'fields', and {show(key)} is unknown: did you mean {near[0]!r}?"
        if near := difflib.get_close_matches(name, fields, n=3, cutoff=0.6):
            return f"no key 'fields', and {show(key)} is unknown: near: {', '.join(near)}; {wanted}"
    unknown = next((f", and {show(key)} is unknown" for key in value if key not in keys), "")
    return f"no key 'fields'{unknown}: {wanted}"


__all__ = ["JsonError", "decode", "documents", "show", "unknown_key", "without_fields"]
