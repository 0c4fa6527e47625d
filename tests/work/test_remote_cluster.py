"""A cluster that was begun elsewhere, over a connection: workers and the scheduler may be lost, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import RUN, popek

pytestmark = pytest.mark.cluster

LINE = '{"fields": {"GUEST_CR0": "0x80000031", "GUEST_RFLAGS": "%#x"}}'
CHECK = ("vmcs", "check", "lines.jsonl", "--jsonl")
PIECES = 24


class Far:
    """A scheduler and two workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, list[subprocess.Popen[bytes]]()
        told = folder / "scheduler.json"
        self.scheduler = self.begin("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", told)
        self.wait(lambda: told.exists() and told.stat().st_size > 0)
        self.workers = [
            self.begin(
                *("worker", "--scheduler-file", told, "--no-nanny", "--no-dashboard", "--nthreads", "1"),
                *("--host", "127.0.0.1", "--name", str(number)),
            )
            for number in range(2)
        ]
        import distributed

        with distributed.Client(scheduler_file=str(told), timeout="60s") as client:
            self.address = str(client.scheduler.address)
            client.wait_for_workers(2, timeout=120)

    def begin(self, what: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """A process of the cluster's."""
        more = ("--scheduler-file", str(arguments[-1])) if what == "scheduler" else ()
        given = [str(one) for one in (arguments[:-1] if more else arguments)]
        command = [sys.executable, "-m", "dask", what, *given, *more]
        begun = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.running.append(begun)
        return begun

    @staticmethod
    def wait(until: Callable[[], bool]) -> None:
        """Wait for what comes, however long it takes on a machine with much to do."""
        for _ in range(6000):
            if until():
                return
            time.sleep(0.05)
        pytest.fail("nothing came")

    def check(self, lose: subprocess.Popen[bytes]) -> tuple[bytes, bytes, int]:
        """What checking the lines prints, where a process is killed after the first answer."""
        command = [sys.executable, "-W", "error", "-c", RUN, *CHECK]
        command += ["--engine", "dask", "--scheduler", self.address]
        running = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self.running.append(running)
        assert running.stdout is not None
        first = running.stdout.readline()
        os.kill(lose.pid, signal.SIGKILL)
        out, err = running.communicate(timeout=300)
        return first + out, err, running.returncode


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    folder = tmp_path_factory.mktemp("far")
    (folder / "lines.jsonl").write_text(
        "\n".join(LINE % number for number in range(PIECES * 200)), encoding="ascii"
    )
    made = Far(folder)
    yield made
    for one in made.running:
        one.kill()
        one.wait()


def test_a_worker_killed_half_way_changes_no_byte(far: Far) -> None:
    alone = popek(*CHECK, "--jobs", "1", folder=far.folder)
    out, err, code = far.check(far.workers[0])
    assert far.workers[0].wait() == -signal.SIGKILL
    assert (out.decode(), err.decode(), code) == (alone.stdout, alone.stderr, alone.returncode)


def test_a_scheduler_that_is_lost_is_one_line(far: Far) -> None:
    _, err, code = far.check(far.scheduler)
    assert code == 2
    assert err.decode().startswith("popek: the cluster was lost")
    assert err.count(b"\n") == 1
