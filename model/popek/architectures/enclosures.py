"""What a whole text is put into: JSON of collectors, mail, source code, Markdown; and how its bytes are text."""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Final

_QUOTED_LINE = re.compile(r"""\s*(?P<quote>["'])(?P<text>.*?)(?:\\r)?(?:\\n)?(?P=quote)[,;]?\s*""")
_LOGFMT = re.compile(r"""(?<!\S)(?:msg|message|log)="(?P<text>(?:[^"\\]|\\.)*)"(?=\s|$)""")
"""A field of a line of ``key=value`` pairs."""
_QUOTED_BEHIND = re.compile(
    r"""(?P<before>[^"']*)(?P<quote>["'])(?P<text>.*?)(?:\\r)?(?:\\n)?(?P=quote)[\s\])},;]*"""
)
"""A line of CSV, YAML or ``msg="…"``: something, and a quoted text to the end."""
_MESSAGES: Final = ("log", "MESSAGE", "message", "msg", "text", "textPayload", "line")
"""Keys under which collectors of logs keep a line."""
_EVENT = re.compile(r"^data: ?", re.MULTILINE)
"""Of server-sent events."""
_MARK_READ_AS_LATIN: Final = "\ufeff".encode().decode("latin-1").encode()
"""The mark of UTF-8, read as Latin-1 and written as UTF-8 again."""
_BINARY = re.compile(r"[\x01-\x06\x0e-\x1a\x7f]")
_MOST_OF_ESCAPES = 3
_ESCAPED_IN_MARKDOWN = re.compile(r"\\([*_|<>\[\]#`~=&-])")
_BASE64_BODY = re.compile(
    r"^Content-Transfer-Encoding:\s*base64\s*$(?:\n\S.*$)*\n\n(?P<body>(?:[A-Za-z0-9+/=]+\n?)+)",
    re.IGNORECASE | re.MULTILINE,
)
_SMALL_LETTERS: Final = str.maketrans({"\u2217": "*", "\u00d7": "x"})
_INVISIBLE: Final = dict.fromkeys(
    map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff")
)


def _of_one_byte(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no UTF-8 are Windows' or Latin-1's letters."""
    assert isinstance(error, UnicodeDecodeError)
    found = error.object[error.start : error.end]
    return found.decode("latin-1"), error.end


codecs.register_error("popek-one-byte", _of_one_byte)


def decoded(data: bytes) -> str:
    """The text of bytes in UTF-8, UTF-16 or UTF-32 with or without a mark, or else Latin-1 for what is none.

    Zero bytes that a console or a memory of the firmware left in a text are dropped.
    """
    data = data.removeprefix(_MARK_READ_AS_LATIN)
    if data[:4] in {b"\xff\xfe\0\0", b"\0\0\xfe\xff"}:
        return data.decode("utf-32", errors="replace")
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return data.decode("utf-16", errors="replace")
    sample = data[:4096]
    if b"\0" in sample:
        for place, name in ((0, "utf-32-le"), (3, "utf-32-be")):
            others = [sample[other::4] for other in range(4) if other != place]
            if len(sample) >= 8 and all(len(other) == other.count(0) for other in others):
                return data.decode(name, errors="replace")
        even, odd = sample[::2].count(0), sample[1::2].count(0)
        if odd > len(sample) // 4 and not even:
            return data.decode("utf-16-le", errors="replace")
        if even > len(sample) // 4 and not odd:
            return data.decode("utf-16-be", errors="replace")
    text = data.decode("utf-8", errors="popek-one-byte")
    if "\0" in text and not _BINARY.search(text) and text.count("\0") * 4 <= len(text):
        text = text.replace("\0", "")
    return text


def plain(text: str) -> str:
    """Without what cannot be seen, and with plain letters for those of other widths (``\uff1d`` is ``=``)."""
    if text.isascii():
        return text
    lines = text.translate(_INVISIBLE).translate(_SMALL_LETTERS).split("\n")
    return "\n".join(line if line.isascii() else unicodedata.normalize("NFKC", line) for line in lines)


def looks_like_json(text: str) -> bool:
    """Whether a text is meant as JSON: `{noformat}` and `[ 12.3] ...` are none."""
    return re.match(r"[\ufeff\s]*(?:\{(?!noformat|code[:}]|\{)|\[\s*(?:[\{\[\]\"]|\Z))", text) is not None


def is_json(text: str) -> bool:
    """Whether a text is JSON: a value, or several one behind the other."""
    try:
        return len(list(_values(text))) > 0
    except (ValueError, RecursionError):
        return False


def unpacked(text: str) -> str | None:
    """The log inside JSON, as Docker, journalctl and collectors of logs write it; None if there is none."""
    text = _EVENT.sub("", text) if text.startswith("data:") else text
    if not looks_like_json(text):
        return None
    try:
        items = list(_values(text))
    except (ValueError, RecursionError):
        return None
    if len(items) == 1 and isinstance(items[0], list):
        items = items[0]
    lines = [_message(item) for item in items]
    return (
        "\n".join(line.removesuffix("\n") for line in lines if line is not None)
        if lines and all(lines)
        else None
    )


def _values(text: str) -> Iterator[Any]:
    """The values of JSON that stand one behind the other, on a line each or on several.

    Raises:
        ValueError: something is no JSON.
    """
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):
        if text[position] in " \t\n\r\ufeff":
            position += 1
            continue
        value, position = decoder.raw_decode(text, position)
        yield value


def _message(item: Any) -> str | None:
    if isinstance(item, str):
        return item or " "
    if not isinstance(item, dict) or "fields" in item:
        return None
    found = next((item[key] for key in _MESSAGES if key in item), None)
    if isinstance(found, list) and all(type(number) is int and 0 <= number < 256 for number in found):
        return bytes(found).decode("utf-8", errors="replace") or " "  # how journalctl shows what is not plain
    return found or " " if isinstance(found, str) else None


def unquoted(text: str) -> str:
    """Without the quotes and the escapes of source code, if most lines, or the ends of most, have such."""
    lines = text.split("\n")
    matches = [_QUOTED_LINE.fullmatch(line) for line in lines if line.strip()]
    found = [match for match in matches if match is not None]
    if len(found) >= 3 and len(found) * 4 >= 3 * len(matches):
        return "\n".join(match["text"] if (match := _QUOTED_LINE.fullmatch(line)) else line for line in lines)
    fields = [_LOGFMT.search(line) for line in lines if line.strip()]
    if len(fields) >= 3 and sum(match is not None for match in fields) * 4 >= 3 * len(fields):
        found_in = ((_LOGFMT.search(line), line) for line in lines)
        return "\n".join(line if match is None else match["text"] for match, line in found_in)
    behind = [_QUOTED_BEHIND.fullmatch(line) for line in lines if line.strip()]
    if len(behind) >= 3 and sum(match is not None for match in behind) * 4 >= 3 * len(behind):
        texts = ((_QUOTED_BEHIND.fullmatch(line), line) for line in lines)
        return "\n".join(line if match is None else match["text"] for match, line in texts)
    escaped = text.count("\\n")
    return re.sub(r"(?:\\r)?\\n", "\n", text) if escaped >= 3 and escaped >= len(lines) else text


def unescaped(text: str) -> str:
    """Without the backslashes in front of what Markdown would read, and the ``$`` of ``cat -A`` behind each line."""
    if len(_ESCAPED_IN_MARKDOWN.findall(text)) >= _MOST_OF_ESCAPES:
        text = _ESCAPED_IN_MARKDOWN.sub(r"\1", text)
    ends = [line.endswith("$") for line in text.split("\n") if line.strip()]
    if len(ends) >= 3 and sum(ends) * 10 >= 9 * len(ends):
        text = re.sub(r"(?:\^M)?\$$", "", text, flags=re.MULTILINE).replace("^I", "\t")
    return text


def of_mail(text: str) -> str:
    """With the bodies of a mail in Base64 decoded."""

    def body(match: re.Match[str]) -> str:
        try:
            return decoded(base64.b64decode("".join(match["body"].split()), validate=True)) + "\n"
        except (binascii.Error, ValueError):
            return match[0]

    return _BASE64_BODY.sub(body, text)


__all__ = ["decoded", "is_json", "looks_like_json", "of_mail", "plain", "unescaped", "unpacked", "unquoted"]
