"""Processes that do pieces of work side by side; those of one that ends are done again."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Final, TypeVar

from popek.errors import PopekError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

TRIES: Final = 3
AHEAD: Final = 32
"""Pieces per process that may be under way, so that a long one does not keep the others waiting."""


class WorkersLostError(PopekError):
    """The processes that did the work ended, again and again, over the same pieces."""


def processors() -> int:
    """How many processors there are for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_context() -> multiprocessing.context.BaseContext:
    """How to begin a process: forking is quick, but not safe beside threads."""
    alone = sys.platform == "linux" and threading.active_count() == 1
    return multiprocessing.get_context("fork" if alone else "spawn")


def on_processes(
    make: Callable[..., Callable[[ItemT], ResultT]], given: Sequence[Any], items: Iterable[ItemT], jobs: int
) -> Iterator[ResultT]:
    """The results, in order; see `popek.work.results`."""
    source = iter(items)
    waiting: deque[tuple[ItemT, Future[ResultT]]] = deque()
    pool = _pool(make, given, jobs)
    lost = 0
    try:
        while True:
            waiting.extend(
                (item, pool.submit(_done, item)) for item in islice(source, jobs * AHEAD - len(waiting))
            )
            if not waiting:
                break
            try:
                found = waiting[0][1].result()
            except BrokenProcessPool:
                lost += 1
                if lost == TRIES:
                    raise WorkersLostError(
                        f"a process ended {TRIES} times before its work was done: is there memory enough?"
                    ) from None
                end(pool)
                pool = _pool(make, given, jobs)
                waiting = deque(
                    (item, future if _is_done(future) else pool.submit(_done, item))
                    for item, future in waiting
                )
                continue
            waiting.popleft()
            lost = 0
            yield found
    except BaseException:  # interrupted, or nobody wants the rest
        end(pool)
        raise
    pool.shutdown()


def _pool(make: Callable[..., Any], given: Sequence[Any], jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=process_context(), initializer=_begin, initargs=(make, given))


def end(pool: ProcessPoolExecutor) -> None:
    """End the processes, whatever they do."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(cancel_futures=True)


def _is_done(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def at_work() -> None:
    """What every process that works for another begins with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who began this process ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.disable()  # terms form no cycles; looking for some takes a tenth of the time


_making: tuple[Callable[..., Any], Sequence[Any]]  # of a worker process
_work: Callable[[Any], Any] | None = None


def _begin(make: Callable[..., Any], given: Sequence[Any]) -> None:
    global _making, _work
    at_work()
    _making, _work = (make, given), None


def _done(item: Any) -> Any:
    global _work
    if _work is None:  # not before: what it raises is for somebody who waits for a result
        make, given = _making
        _work = make(*given)
    return _work(item)


__all__ = ["WorkersLostError", "at_work", "end", "on_processes", "process_context", "processors"]
