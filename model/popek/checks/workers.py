"""Processes that work through lists side by side and keep what they have found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import TypeVar

from popek.work import process_context
from popek.work.processes import at_work, end

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Workers:
    """The same place of every list goes to the same process, which has what it kept from earlier lists.

    Args:
        jobs: processes; 0 for one per processor, 1 for this one alone.
    """

    def __init__(self, jobs: int = 0) -> None:
        count = jobs or os.cpu_count() or 1
        context = process_context()
        self._pools = [
            ProcessPoolExecutor(1, mp_context=context, initializer=at_work)
            for _ in range(count if count > 1 else 0)
        ]
        for pool in self._pools:
            pool.submit(os.getpid)  # begin now: later there may be threads

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools:
            if error is None:
                pool.shutdown(cancel_futures=True)
            else:
                end(pool)

    def map(self, function: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> Iterator[ResultT]:
        """The results, in order."""
        if not self._pools:
            yield from map(function, items)
            return
        futures = [
            self._pools[number % len(self._pools)].submit(function, item) for number, item in enumerate(items)
        ]
        for future in futures:
            yield future.result()
