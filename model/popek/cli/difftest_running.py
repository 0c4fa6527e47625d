"""What the commands of `popek difftest` share: running on an emulator, and printing what was found."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import UserError
from .options import assert_cases, assert_one_of
from .output import console, print_json, progress

if TYPE_CHECKING:
    from rich.console import RenderableType

UNEXPECTED = 1
T = TypeVar("T")


class FoundDifferences(Protocol):
    """What a comparison found."""

    @property
    def unexplained(self) -> int:
        """How many differences nothing explains."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""


F = TypeVar("F", bound=FoundDifferences)


def on_emulator(compare: Callable[[Any], T]) -> T:
    """What a comparison that takes a progress function finds; without its emulator, one clear line."""
    from popek.emulators.bochs.simulator import BochsError
    from popek.emulators.differential import EmulatorError
    from popek.emulators.x86.unicorn import UnicornError
    from popek.kernel.machine import UnknownNameError

    try:
        with progress("comparing") as show:
            return compare(show)
    except (BochsError, EmulatorError, UnicornError, UnknownNameError) as error:
        raise UserError(str(error)) from None


def instructions_on_emulator(compare: Callable[[Callable[[int], None] | None], F], cases: int) -> F:
    """The same for so many cases, of which the comparison tells how many are done."""
    return on_emulator(lambda show: compare(None if show is None else lambda done: show(done, cases)))


def print_found(found: F, schema: str, text: Callable[[F], RenderableType], json: bool) -> int:
    """Print what was found, and give the exit code."""
    if json:
        print_json({"schema": schema, **found.to_json()})
    else:
        console().print(text(found))
    return UNEXPECTED if found.unexplained else 0


def assert_known(cases: int, model: str, models: Collection[str]) -> None:
    """Refuse a number of cases that is none, and a CPU model that Bochs does not have."""
    assert_cases(cases)
    assert_one_of("--model", model, models)


def print_entries(answer: dict[str, Any], entries: str, json: bool) -> int:
    """Print what was found of entries into a guest, and give the exit code."""
    from popek.report import difftest as report

    if json:
        print_json(answer)
    else:
        console().print(report.entries(answer, entries))
    return UNEXPECTED if answer["unexplained"] else 0


__all__ = [
    "assert_known",
    "instructions_on_emulator",
    "on_emulator",
    "print_entries",
    "print_found",
]
