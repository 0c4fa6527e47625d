"""Answers as plain rows, which `pandas.DataFrame` and `polars.DataFrame` take as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Plain = str | int | None


def rows(answer: Any) -> list[dict[str, Plain]]:
    """The table of an answer: a dictionary per row, with the same keys in each and plain values.

    Args:
        answer: what `classify`, `explain`, `critical_when`, `rewrite`, `check`, `problems`, `diagnose` or `scan_file`
            returned.

    Raises:
        TypeError: something else.

    >>> import popek
    >>> table = popek.rows(popek.classify("pg74", "MOVE", "LPSW"))
    >>> [(row["form"], row["critical"], row["faithful"]) for row in table]
    [('MOVE a, b', 'no', 'yes'), ('LPSW a', 'no', 'yes')]
    """
    told = answer.to_json() if hasattr(answer, "to_json") else {}
    make = _TABLES.get(str(told.get("schema")))
    if make is None:
        raise TypeError(f"rows: expected an answer with a table, not a {type(answer).__name__}")
    made = [{key: _plain(value) for key, value in row.items()} for row in make(told)]
    keys = dict.fromkeys(key for row in made for key in row)
    return [{key: row.get(key) for key in keys} for row in made]


def _plain(value: Any) -> Plain:
    if isinstance(value, list):
        return ", ".join(str(_plain(one)) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    return value if value is None or isinstance(value, int) else str(value)


def _without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names}


def _classification(told: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for row in told["instructions"]:
        yield _without(row, "witness", "by_the_letter", "ladder")


def _explanation(told: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for form in told["forms"]:
        yield _without(form, "witness", "witnesses", "evidence", "ladder") | {
            "witnesses": list(form["witnesses"])
        }


def _claims(told: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for claim in told["claims"]:
        for row in claim["rows"]:
            yield {
                "claim": claim["id"],
                "claim_verdict": claim["verdict"],
                **_without(row, "ladder", "witness"),
            }


def _problems(told: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for problem in told["problems"]:
        yield {k: v for k, v in problem.items() if not isinstance(v, list | dict)}


def _verdict(told: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for kind in ("failed", "undecided"):
        for check in told[kind]:
            yield {"kind": kind, **check}


_TABLES: dict[str, Callable[[dict[str, Any]], Iterable[dict[str, Any]]]] = {
    "popek/classification/1": _classification,
    "popek/explanation/1": _explanation,
    "popek/conditions/1": lambda told: told["instructions"],
    "popek/rewriting/1": lambda told: [_without(one, "witness", "evidence") for one in told["forms"]],
    "popek/claims/1": _claims,
    "popek/problems/1": _problems,
    "popek/vmcs-verdict/1": _verdict,
    "popek/scan/1": lambda told: [
        _without(one, "places") | {"places": len(one["places"])} for one in told["findings"]
    ],
}

__all__ = ["rows"]
