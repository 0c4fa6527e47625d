"""What was found about a machine, sent from one process to another: semantics are functions, which do not travel.

A machine, its instructions and its states are named, and found again where the same subject is at hand.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.state import State

from .subject import Subject

PieceT = TypeVar("PieceT")


def packing(subject: Subject[Any], work: Callable[[PieceT], object]) -> Callable[[PieceT], bytes | None]:
    """Work of which the results are packed; None for one that cannot be: it holds a function."""

    def packed(piece: PieceT) -> bytes | None:
        stream = io.BytesIO()
        found = work(piece)
        try:
            _Packer(subject, stream).dump(found)
        except (AttributeError, TypeError, pickle.PicklingError):
            return None
        return stream.getvalue()

    return packed


def unpacked(
    subject: Subject[Any],
    pieces: Sequence[PieceT],
    sent: Iterable[bytes | None],
    make: Callable[[], Callable[[PieceT], Any]],
) -> Iterator[Any]:
    """What was found of each piece, as it was before it was packed.

    Args:
        make: makes the work, for what could not be packed: that is done again here.
    """
    work: Callable[[PieceT], Any] | None = None
    for piece, one in zip(pieces, sent, strict=True):
        if one is None:
            work = make() if work is None else work
            yield work(piece)
        else:
            yield _Unpacker(subject, one).load()


class _Packer(pickle.Pickler):
    def __init__(self, subject: Subject[Any], stream: io.BytesIO) -> None:
        super().__init__(stream)
        self._machine = subject.machine

    def persistent_id(self, found: object) -> object:
        """A name for what does not travel."""
        if isinstance(found, Instruction) and self._machine.instructions.get(found.form) is found:
            return "instruction", found.form
        if isinstance(found, State) and type(found) is self._machine.state:
            return "state", dict(found.words()), dict(found.memories())
        return ("machine",) if found is self._machine else None


class _Unpacker(pickle.Unpickler):
    def __init__(self, subject: Subject[Any], sent: bytes) -> None:
        super().__init__(io.BytesIO(sent))
        self._machine: Machine[Any] = subject.machine

    def persistent_load(self, pid: Any) -> Any:
        """What has that name."""
        kind, *rest = pid
        if kind == "instruction":
            return self._machine.instructions[rest[0]]
        return self._machine if kind == "machine" else self._machine.state._new(*rest)


__all__ = ["packing", "unpacked"]
