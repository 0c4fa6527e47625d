"""`popek merge`, and what `--shard` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import UserError
from .output import print_json


def merge(*files: str) -> Any:
    """Put together what a command found in parts, with --shard: prints what the whole command prints.

    Shards hold Python objects of popek's: merge those that you or your batch queue made.

    Args:
        files: the output of the same command with --shard 1/N to N/N, in any order.
    """
    from popek.work import engaged
    from popek.work.shards import read_shards

    from .application import run

    if not files:
        raise UserError("popek merge: expected the files of all shards of a command")
    whole = read_shards(files)
    with engaged(whole):
        return run(whole.command)


def print_shard(arguments: Sequence[str], done: Any) -> int:
    """The part of the work that a command has done, as JSON."""
    from popek.work.shards import WorkPart

    words, part = [], ""
    rest = iter(arguments)
    for word in rest:
        if word == "--shard":
            part = next(rest)
        elif word.startswith("--shard="):
            part = word.removeprefix("--shard=")
        else:
            words.append(word)
    print_json(WorkPart.read(part).document(words, done))
    return 0


__all__ = ["merge", "print_shard"]
