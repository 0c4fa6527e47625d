"""The command line: `popek COMMAND`.  No logic of its own.

Exit codes: 0 as expected, 1 some claim or check turned out otherwise, 2 usage or bad input, 3 unknown
somewhere, 130 interrupted.

What every call pays for is little: the commands are a table, and a command is imported when it is called.
"""

from __future__ import annotations

import os
import signal
import sys
from errno import EDQUOT, EIO, ENOSPC
from typing import TYPE_CHECKING, Any, Final, NoReturn

from popek import __version__
from popek.errors import PopekError

from .errors import BAD_INPUT, INTERRUPTED, UNEXPECTED, UserError

if TYPE_CHECKING:
    from .application import app

HELP: Final = "Can a machine host a virtual machine monitor?  Derived from semantics, with witnesses."

COMMANDS: Final = (
    (
        "assist",
        "assist:app",
        "Hardware assistance: what its controls must be, the best choice, what real ones come to.",
    ),
    (
        "atlas",
        "atlas:atlas",
        (
            "Show machines, techniques and configurations side by side: verdicts, critical instructions, "
            "efficiency."
        ),
    ),
    (
        "bench",
        "bench:bench",
        "Measure speed in one run: of classifying beside the solver's, and rates of the rest.",
    ),
    (
        "cache",
        "kept:app",
        "What was found and is kept for the next time.",
    ),
    (
        "check",
        "check:check",
        "Check published claims, or those of a file of your own, against the semantics.",
    ),
    (
        "classify",
        "classify:classify",
        "Classify every instruction of a machine, with a witness for every critical one.",
    ),
    (
        "devices",
        "devices:app",
        "What a guest's own device can do to the monitor; fault lines of remapping units explained.",
    ),
    (
        "difftest",
        "difftest:app",
        "Compare the models with emulators.",
    ),
    (
        "explain",
        "explain:explain",
        "Say why an instruction is in its classes, and which promises it breaks, with witnesses.",
    ),
    (
        "explore",
        "explore:explore",
        (
            "Explore a machine in the browser: flip settings, open witnesses, rewrite an instruction, "
            "paste a dump."
        ),
    ),
    (
        "machines",
        "machines:machines",
        "List the machines, or show some: state, instructions, techniques, settings, what is left out.",
    ),
    (
        "merge",
        "merge:merge",
        "Put together what a command found in parts, with --shard: prints what the whole command prints.",
    ),
    (
        "notebooks",
        "notebooks:notebooks",
        "List the notebooks, or copy them to a folder to work in.",
    ),
    (
        "problems",
        "problems:problems",
        (
            "Ask which of the eight problems of ring deprivileging (Uhlig et al. 2005) a technique has, "
            "with witnesses."
        ),
    ),
    (
        "prove",
        "prove:prove",
        "Prove the theorems for any machine, or discharge their premises for concrete ones.",
    ),
    (
        "rewrite",
        "rewrite:rewrite",
        "Find the least set of forms that must be rewritten in the guest's kernel mode, with witnesses.",
    ),
    (
        "safety",
        "safety:safety",
        (
            "Say whether a guest can get out: with all that the VMM sees to, and without each of it, with "
            "witnesses."
        ),
    ),
    (
        "scan",
        "scan:scan",
        "Find the instructions of a program that are critical, unfaithful or unsafe under a technique.",
    ),
    (
        "verify",
        "verify:verify",
        (
            "Verify what was found impossible: other solvers are asked, and a proof is made and checked "
            "by a small checker."
        ),
    ),
    (
        "vmcb",
        "vmcb_questions:app",
        "Judge, decode, explain, repair AMD's VMCBs.",
    ),
    (
        "vmcs",
        "vmcs_questions:app",
        "Judge, decode, explain, compare, repair and generate VMCSs.",
    ),
)
"""Every command: its name, the module of this package and the name therein, and what it is for."""

_OPTIONS: Final = (
    ("--help (-h)", "Display this message and exit."),
    ("--install-completion", "Install shell completion for this application."),
    ("--version", "Display application version."),
)


def main() -> NoReturn:
    """Run a command and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        code = _answered(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where an error is still met
    except UserError as error:
        _fail(" ".join(str(error).split()))
    except BrokenPipeError:  # `| head` has read enough
        _drop_output()
        sys.exit(0)
    except KeyboardInterrupt:
        print("popek: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if isinstance(error, PopekError):
            _fail(" ".join(str(error).split()))
        if type(error).__name__ == "SolversDisagreeError":
            print(f"popek: {error}", file=sys.stderr)
            sys.exit(UNEXPECTED)
        where = _in_file_of_the_user(error)
        if where is not None:
            _fail(f"{where}: {type(error).__name__}: {error}")
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EIO):
            _drop_output()
            _fail(f"cannot write: {error.strerror}")
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _answered(arguments: list[str]) -> object:
    """What a command returns; what nothing needs to be imported for is said here."""
    _assert_solver_known()
    if arguments in ([], ["--help"], ["-h"]):
        print(overview())
        return 0
    if arguments == ["--version"]:
        print(__version__)
        return 0
    from .application import run

    try:
        return run(arguments)
    except Exception as done:
        if type(done).__name__ == "ShardDone":
            from .merge import print_shard

            return print_shard(arguments, done)
        raise


def _assert_solver_known() -> None:
    if os.environ.get("POPEK_SOLVER"):
        from popek.solving.choice import chosen_solver

        try:
            chosen_solver()
        except ValueError as error:
            _fail(str(error))


def overview() -> str:
    """What `popek --help` says: as wide as the terminal, laid out as the commands' own help is."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.__stdout__.fileno()).columns)  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        columns = 80
    width = max(columns, 60)
    rows = [(name, purpose) for name, _, purpose in COMMANDS] + list(_OPTIONS)
    left = max(len(name) for name, _ in rows)
    lines = ["Usage: popek COMMAND", "", *_wrapped(HELP, width), "", f"╭─ Commands {'─' * (width - 13)}╮"]
    for name, purpose in rows:
        for number, line in enumerate(_wrapped(purpose, width - left - 6)):
            lines.append(f"│ {'' if number else name:{left}}  {line:{width - left - 6}} │")
    return "\n".join((*lines, f"╰{'─' * (width - 2)}╯"))


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words; the module that the library has for it takes longer to import than all this."""
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) + 1 > width and lines[-1]:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _interrupt(*_: object) -> NoReturn:
    """Stop, without a word about objects that were interrupted while they were made."""
    sys.unraisablehook = lambda _: None
    raise KeyboardInterrupt


def _drop_output() -> None:
    """Let go of what nobody takes, so that the interpreter does not try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> NoReturn:
    print(f"popek: {message}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _in_file_of_the_user(error: Exception) -> str | None:
    """File and line, where semantics in a Python file that the command names went wrong."""
    from pathlib import Path
    from traceback import extract_tb

    given = {str(Path(argument)) for argument in sys.argv if argument.endswith(".py")}
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename in given]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def __getattr__(name: str) -> Any:
    if name == "app":
        from .application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["COMMANDS", "app", "main", "overview"]
