"""What `popek difftest vm-entry` and `vmrun` share: entries into a guest on Bochs, judged by the checks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from .errors import UserError
from .options import assert_cases, assert_one_of
from .output import console, print_json, progress

Compared = TypeVar("Compared")


def assert_known(cases: int, model: str, models: Collection[str]) -> None:
    """Refuse a number of cases that is none, and a CPU model that Bochs does not have."""
    assert_cases(cases)
    assert_one_of("--model", model, models)


def on_bochs(compare: Callable[[Callable[[int, int], None] | None], list[Compared]]) -> list[Compared]:
    """What a comparison that takes a progress function finds; without Bochs, one clear line."""
    from popek.emulators.bochs.simulator import BochsError

    try:
        with progress("comparing") as show:
            return compare(show)
    except BochsError as error:
        raise UserError(str(error)) from None


def print_entries(answer: dict[str, Any], entries: str, json: bool) -> int:
    """Print what was found, and give the exit code."""
    from popek.report import difftest as report

    if json:
        print_json(answer)
    else:
        console().print(report.entries(answer, entries))
    return 1 if answer["unexplained"] else 0


__all__ = ["assert_known", "on_bochs", "print_entries"]
