"""Work on a cluster of Dask's: one of this machine, or the one whose scheduler has an address."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from importlib import import_module
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import uuid4

import attrs

from popek.errors import PopekError

from .processes import WorkersLostError, processors

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
        for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what is lost is said once, by popek
        try:
            known = self.scheduler or self._of_this_machine(distributed)
            client = distributed.Client(known, timeout="15s")
        except (OSError, ValueError) as error:
            raise ClusterError(f"--scheduler {self.scheduler}: {_line(error)}") from None
        try:
            yield from self._each(client, make, tuple(given), items)
        except distributed.KilledWorker as error:
            raise WorkersLostError(f"workers of the cluster were lost over the same piece: {error}") from None
        except (CancelledError, OSError) as error:
            raise ClusterError(f"the cluster was lost: {_line(error)}") from None
        finally:
            client.close()
            if not isinstance(known, str):
                known.close()

    def _of_this_machine(self, distributed: Any) -> Any:
        """A cluster whose workers leave an interrupt to this process, which ends them."""
        here = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None
        try:
            return distributed.LocalCluster(
                n_workers=self.jobs or processors(),
                threads_per_worker=1,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
        finally:
            if here:
                signal.signal(signal.SIGINT, before)

    @staticmethod
    def _each(
        client: Any,
        make: Callable[..., Callable[[ItemT], ResultT]],
        given: Sequence[Any],
        items: Iterable[ItemT],
    ) -> Iterator[ResultT]:
        whole, source = uuid4().hex, iter(items)
        waiting: deque[Any] = deque()
        while True:
            for item in islice(source, AHEAD - len(waiting)):
                waiting.append(client.submit(_done, whole, make, given, item, pure=False, retries=RETRIES))
            if not waiting:
                return
            yield waiting.popleft().result()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


_works: dict[str, Callable[[Any], Any]] = {}  # of a worker, by the work it belongs to


def _done(whole: str, make: Callable[..., Callable[[Any], Any]], given: Sequence[Any], item: Any) -> Any:
    if whole not in _works:
        _works.clear()
        gc.disable()
        _works[whole] = make(*given)
    return _works[whole](item)


__all__ = ["Cluster", "ClusterError"]
