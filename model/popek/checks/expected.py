"""A classification beside one that was kept: what has changed, for a build that is to notice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from popek.errors import PopekError

from .survey import CLASSES, PROMISED, Survey

SCHEMA = "popek/classification/1"
ASKED = (*CLASSES, *PROMISED, "components", "remark")
NOT_ASKED = "not-asked"
ANSWERS = ("yes", "no", "unknown", NOT_ASKED)


class ExpectedError(PopekError):
    """A file that is no classification of what was asked about: one line with its name and what was expected."""


@attrs.frozen
class UnexpectedAnswer:
    """One thing that is otherwise than expected.

    Attributes:
        about: a form, or empty for the machine as a whole.
        what: a class, a promise, or the premise of a theorem.
        expected, found: in the words of JSON; empty where there is nothing.
    """

    about: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        about = f"{self.about}: " if self.about else ""
        return f"{about}{self.what}: expected {self.expected or 'nothing'}, found {self.found or 'nothing'}"

    def to_json(self) -> dict[str, str]:
        """For `popek/classification/1`."""
        return attrs.asdict(self)


def read_expected(path: Path) -> dict[str, Any]:
    """What `popek classify --json` printed once.

    Raises:
        ExpectedError: the file cannot be read, or is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExpectedError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise ExpectedError(f"{path}: expected JSON, such as popek classify --json prints") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ExpectedError(f"{path}: schema: expected {SCHEMA}, which popek classify --json prints")
    rows = found.get("instructions")
    if not isinstance(rows, list) or not all(
        isinstance(r, dict) and isinstance(r.get("form"), str) for r in rows
    ):
        raise ExpectedError(f"{path}: instructions: expected a list of objects, each with its form")
    for row in rows:
        wrong = [name for name in CLASSES if row.get(name, "no") not in ANSWERS]
        if wrong:
            raise ExpectedError(f"{path}: {row['form']}: {wrong[0]}: expected one of {', '.join(ANSWERS)}")
    return found


def promises_asked(expected: Mapping[str, Any]) -> bool:
    """Whether a classification that was kept says anything about promises."""
    return any(row.get(name, NOT_ASKED) != NOT_ASKED for row in expected["instructions"] for name in PROMISED)


def differences(
    expected: Mapping[str, Any], found: Survey, source: str = "the file"
) -> list[UnexpectedAnswer]:
    """In what a classification differs from an expected one.

    What only one of them was asked, a promise or a key that an older version did not have, is no difference; an
    instruction that only one of them has is one. Witnesses are not compared: there may be several.

    Raises:
        ExpectedError: the expected one is of another machine, technique or configuration.
    """
    told = found.to_json()
    for key in ("machine", "technique", "configuration"):
        if expected.get(key) != told[key]:
            raise ExpectedError(
                f"{source}: {key}: {_word(expected.get(key))}; asked about {_word(told[key])}"
            )
    return list(_differences(expected, told))


def _differences(expected: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[UnexpectedAnswer]:
    for theorem in ("theorem1", "theorem3"):
        if theorem in expected and expected[theorem] != told[theorem]:
            what = f"premise of Theorem {theorem[-1]}"
            yield UnexpectedAnswer("", what, _word(expected[theorem]), _word(told[theorem]))
    before = {row["form"]: row for row in expected["instructions"]}
    now = {row["form"]: row for row in told["instructions"]}
    for form in dict.fromkeys((*before, *now)):
        if form not in now or form not in before:
            yield UnexpectedAnswer(form, "instruction", *(("there", "") if form in before else ("", "there")))
            continue
        for name in ASKED:
            if name not in before[form] or (name not in now[form] and name != "remark"):
                continue
            if name in PROMISED and NOT_ASKED in (before[form][name], now[form][name]):
                continue
            old, new = _word(before[form][name]), _word(now[form].get(name, ""))
            if old != new:
                yield UnexpectedAnswer(form, name.replace("_", "-"), old, new)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in sorted(value.items())) or "no settings"
    return "none" if value is None else str(value)


__all__ = ["ExpectedError", "UnexpectedAnswer", "differences", "promises_asked", "read_expected"]
