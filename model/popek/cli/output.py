"""Where answers and progress go: answers to standard output, everything else to standard error."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def print_json(answer: object) -> None:
    """Print JSON as every command does: sorted keys, indented."""
    print(json.dumps(answer, indent=2, sort_keys=True, ensure_ascii=False))


def console() -> Console:
    """Where answers for people go."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # A pipe has no width of its own; tables must not be cut to that of a small terminal.
        file: Any = _WithoutPadding(console.file)
        console = Console(highlight=False, markup=False, emoji=False, width=160, file=file)
    return console


class _WithoutPadding:
    """A file for lines that are not filled up with blanks."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write whole lines."""
        return self._file.write(re.sub(r"[ \t]+(?=\n)", "", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error, where there is somebody to look at it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        *(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        ),
        *(TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn()),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
    task = bar.add_task(what, total=None, rate="")
    begin = time.monotonic()

    def update(done: int, total: int) -> None:
        bar.start()  # only now: worker processes were forked before
        rate = f"{done / max(time.monotonic() - begin, 0.001):.1f}/s"
        bar.update(task, completed=done, total=total, rate=rate, refresh=True)

    try:
        yield update
    finally:
        bar.stop()


@contextmanager
def working(what: str) -> Iterator[None]:
    """A sign of life and the time passed on standard error, for work whose length nobody knows."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield


__all__ = ["console", "print_json", "progress", "working"]
