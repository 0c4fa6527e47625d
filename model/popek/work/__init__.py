"""Work that is a list: each piece by itself, the results in the order of the pieces, whoever does them.

`results` is the one seam between what is asked and who answers: this process, processes beside it, a cluster, or a
part of them elsewhere (`popek.work.shards`).  What comes out is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from .processes import WorkersLostError, on_processes, process_context, processors

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class WorkEngine(Protocol):
    """Somebody else who does the work."""

    def results(
        self, make: Callable[..., Callable[[ItemT], ResultT]], given: Sequence[Any], items: Iterable[ItemT]
    ) -> Iterator[ResultT]:
        """The results, in order."""


_engaged: ContextVar[WorkEngine | None] = ContextVar("popek engine", default=None)


@contextmanager
def engaged(engine: WorkEngine | None) -> Iterator[None]:
    """Have the work done by this engine, where there is one."""
    token = _engaged.set(engine)
    try:
        yield
    finally:
        _engaged.reset(token)


def engaging() -> bool:
    """Whether somebody else does the work."""
    return _engaged.get() is not None


def split() -> bool:
    """Whether the work is done in parts, which have to be cut from the same whole."""
    return bool(getattr(_engaged.get(), "splits", False))


def results(
    make: Callable[..., Callable[[ItemT], ResultT]],
    given: Sequence[Any],
    items: Iterable[ItemT],
    *,
    jobs: int = 1,
    least: int = 2,
) -> Iterator[ResultT]:
    """The results of all pieces, in their order.

    Args:
        make: a function of a module; called once in every process, with `given`; returns what does a piece.
        given: what can be sent to another process.
        items: the pieces, which can be sent, too; taken as they are needed.
        jobs: processes; 0 for one per processor, 1 for this one alone.
        least: for fewer pieces (of a list) no process is begun.

    Raises:
        WorkersLostError: processes ended, again and again, over the same pieces.
    """
    engine = _engaged.get()
    if engine is not None:
        yield from engine.results(make, given, items)
        return
    count = jobs or processors()
    if count == 1 or (isinstance(items, Sequence) and len(items) < least):
        yield from map(make(*given), items)
        return
    yield from on_processes(make, given, items, count)


__all__ = ["WorkEngine", "WorkersLostError", "engaged", "engaging", "process_context", "results", "split"]
