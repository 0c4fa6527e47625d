"""Work on a cluster of Dask's: one of this machine, or the one whose scheduler has an address."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import uuid4

import attrs

from popek.errors import PopekError

from .processes import processors

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

AHEAD: Final = 256
RETRIES: Final = 3


class ClusterError(PopekError):
    """There is no such cluster, or what it needs is not installed."""


@attrs.frozen
class Cluster:
    """A cluster that does work; what a worker did not finish before it was lost is done by another, and counts once.

    Attributes:
        scheduler: its address; empty for a cluster on this machine, for as long as the work takes.
        jobs: workers of a cluster on this machine; 0 for one per processor.
    """

    scheduler: str = ""
    jobs: int = 0

    def results(
        self, make: Callable[..., Callable[[ItemT], ResultT]], given: Sequence[Any], items: Iterable[ItemT]
    ) -> Iterator[ResultT]:
        """The results, in order.

        Raises:
            ClusterError: there is no such cluster.
        """
        try:
            distributed: Any = import_module("distributed")
        except ImportError:
            raise ClusterError("--engine dask: needs the extra: pip install 'popek[distributed]'") from None
        try:
            known = self.scheduler or distributed.LocalCluster(
                n_workers=self.jobs or processors(), threads_per_worker=1, dashboard_address=None
            )
            client = distributed.Client(known)
        except (OSError, ValueError) as error:
            raise ClusterError(f"--scheduler {self.scheduler}: {str(error).splitlines()[0]}") from None
        try:
            whole, source = uuid4().hex, iter(items)
            waiting: deque[Any] = deque()
            while True:
                for item in islice(source, AHEAD - len(waiting)):
                    waiting.append(
                        client.submit(_done, whole, make, tuple(given), item, pure=False, retries=RETRIES)
                    )
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            client.close()
            if not isinstance(known, str):
                known.close()


_works: dict[str, Callable[[Any], Any]] = {}  # of a worker, by the work it belongs to


def _done(whole: str, make: Callable[..., Callable[[Any], Any]], given: Sequence[Any], item: Any) -> Any:
    if whole not in _works:
        _works.clear()
        gc.disable()
        _works[whole] = make(*given)
    return _works[whole](item)


__all__ = ["Cluster", "ClusterError"]
