"""What `popek vmcs` and `popek vmcb` have in common: inputs, exit codes, and what was not read of a dump."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from cyclopts import Parameter

from .errors import UserError
from .output import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from popek.architectures.dump import DumpError
    from popek.vmcs.standing import Answers

Keep = Annotated[list[str] | None, Parameter(help="Fields that must not change.", consume_multiple=True)]

ENTERS, FAILS, BAD_INPUT, UNDECIDED = 0, 1, 2, 3
_EXIT_CODES = {"enters": ENTERS, "undecided": UNDECIDED}


def terminal() -> Console:
    """A console that prints text as it is."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def shown_name(name: str) -> str:
    """An input's name as messages have it."""
    from popek.architectures.dump import printable

    return "standard input" if name == "-" else printable(name)


def open_input(name: str) -> BinaryIO:
    """An input, open; `-` is standard input."""
    if name == "-":
        return sys.stdin.buffer
    if not name:
        raise UserError("expected a file, and its name is empty")
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UserError(f"{shown_name(name)}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError:
        raise UserError(f"{name!r}: not a file name") from None


def read_bytes(name: str) -> bytes:
    """The bytes of an input."""
    try:
        with open_input(name) as stream:
            return stream.read()
    except OSError as error:
        raise UserError(f"{shown_name(name)}: {(error.strerror or 'cannot be read').lower()}") from None


def one_clear_line(error: Exception) -> str:
    """A message fit for a terminal."""
    from popek.architectures.dump import printable

    return printable(str(error))


def input_error(name: str, error: DumpError) -> UserError:
    """A mistake in an input, with its place."""
    place = f"{shown_name(name)}:{error.line}" if error.line else shown_name(name)
    return UserError(f"{place}: {error.message}")


def kept_fields(keep: list[str] | None, find: Callable[[str], Any]) -> list[str]:
    """The ids of the fields that `--keep` names, with commas or without."""
    try:
        return [find(name).id for names in keep or [] for name in names.split(",")]
    except ValueError as error:
        raise UserError(f"--keep: {error}") from None


def print_several(answers: Sequence[dict[str, Any]]) -> None:
    """One answer as it is, several as an array."""
    print_json(answers[0] if len(answers) == 1 else list(answers))


def print_rules(answers: Sequence[Answers], *, json: bool, one: bool) -> None:
    """What was asked about rules, as JSON or text; `one` if one processor was named."""
    if json:
        shown = [item.to_json() for item in answers]
        print_json(shown[0] if one else shown)
        return
    from popek.report.vmcs_repair import print_answers

    for item in answers:
        print_answers(terminal(), item)


def exit_code(kinds: Sequence[str]) -> int:
    """The code of several verdicts: a failure outweighs an undecided one."""
    codes = {_EXIT_CODES.get(kind, FAILS) for kind in kinds}
    return next((code for code in (FAILS, UNDECIDED) if code in codes), 0)


def one_line(value: object) -> str:
    """JSON on one line."""
    import json

    return json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"
