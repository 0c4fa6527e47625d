"""Work that is a list: whoever does it, what comes out is the same, and what a lost process did is done again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jsonschema import validate

from commands import popek
from popek.schemas import schemas
from popek.work import WorkersLostError, engaged, results
from popek.work.cluster import Cluster
from popek.work.shards import ShardDone, ShardError, Whole, WorkPart, read_shards

ITEMS = list(range(40))


def squares() -> Callable[[int], int]:
    return lambda item: item * item


def fragile(folder: str) -> Callable[[int], int]:
    """Is killed half-way, once; says what it did."""

    def work(item: int) -> int:
        struck = Path(folder) / "struck"
        if item == 20 and not struck.exists():
            struck.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item

    return work


def hopeless() -> Callable[[int], int]:
    def work(item: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return item

    return work


def wrong() -> Callable[[int], int]:
    raise ValueError("there is no such thing")


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_pieces(jobs: int) -> None:
    assert list(results(squares, (), ITEMS, jobs=jobs)) == [item * item for item in ITEMS]


def test_pieces_are_taken_as_they_are_needed() -> None:
    taken = []

    def endless() -> Iterator[int]:
        for item in range(10**9):
            taken.append(item)
            yield item

    found = results(squares, (), endless(), jobs=2)
    assert [next(found) for _ in range(3)] == [0, 1, 4]
    found.close()
    assert len(taken) < 1000


def test_what_a_killed_process_did_is_done_again_and_counted_once(tmp_path: Path) -> None:
    found = list(results(fragile, (str(tmp_path),), ITEMS, jobs=2))
    assert (tmp_path / "struck").exists()
    assert found == [item * item for item in ITEMS]


def test_processes_that_always_end_are_one_error() -> None:
    with pytest.raises(WorkersLostError, match="ended 3 times"):
        list(results(hopeless, (), ITEMS, jobs=2))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_is_the_same_wherever_it_happens(jobs: int) -> None:
    with pytest.raises(ValueError, match="no such thing"):
        list(results(wrong, (), ITEMS, jobs=jobs))


# -- parts ----------------------------------------------------------------------------------------


def documents(command: list[str], of: int) -> list[str]:
    made = []
    for number in range(1, of + 1):
        part = WorkPart(number, of)
        with engaged(part), pytest.raises(ShardDone) as done:
            list(results(squares, (), ITEMS))
        made.append(json.dumps(part.document(command, done.value)))
    return made


def written(folder: Path, texts: list[str]) -> list[str]:
    for number, text in enumerate(texts):
        (folder / f"{number}.json").write_text(text, encoding="ascii")
    return [str(folder / f"{number}.json") for number in range(len(texts))]


@pytest.mark.parametrize("of", [1, 3, 50])
def test_parts_are_the_whole(of: int, tmp_path: Path) -> None:
    whole = read_shards(written(tmp_path, documents(["classify", "pg74"], of))[::-1])
    assert whole.command == ("classify", "pg74")
    with engaged(whole):
        assert list(results(squares, (), ITEMS)) == [item * item for item in ITEMS]
        assert list(results(squares, (), [3])) == [9]  # what depends on the whole is done here


def test_a_shard_is_as_its_schema_says() -> None:
    for text in documents(["classify", "pg74"], 2):
        validate(json.loads(text), schemas()["popek/shard/1"])


def test_other_pieces_are_an_error(tmp_path: Path) -> None:
    whole = read_shards(written(tmp_path, documents(["classify", "pg74"], 2)))
    with engaged(whole), pytest.raises(ShardError, match="about 40 pieces, and the command has 39 now"):
        list(results(squares, (), ITEMS[:-1]))


def changed(**values: object) -> Callable[[list[str]], None]:
    def change(texts: list[str]) -> None:
        texts[1] = json.dumps(json.loads(texts[1]) | values)

    return change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda texts: texts.pop(), "shards 3 of 3 are missing"),
        (lambda texts: texts.append(texts[0]), "3.json: is shard 1, as "),
        (changed(command=["classify", "ia32"]), "1.json: command: expected classify pg74 as in "),
        (changed(of=4), "1.json: number of shards: expected 3 as in "),
        (changed(popek="0.0"), "1.json: popek: expected "),
        (changed(schema="popek/claims/1"), "1.json: expected a shard, as --shard prints it"),
        (changed(pieces=None), "1.json: pieces: expected a int, found None"),
        (changed(results={}), "the shards have 27 of 40 pieces"),
    ],
)
def test_what_is_no_whole_is_one_line(change: Callable[[list[str]], None], line: str, tmp_path: Path) -> None:
    texts = documents(["classify", "pg74"], 3)
    change(texts)
    with pytest.raises(ShardError) as caught:
        read_shards(written(tmp_path, texts))
    assert line in str(caught.value)


def test_a_result_calls_nothing() -> None:
    """A shard is a file from elsewhere."""
    import base64
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("true",)

    text = base64.b64encode(pickle.dumps(Evil())).decode()
    with engaged(Whole((), 1, {0: text})), pytest.raises(ShardError, match=r"holds posix\.system"):
        list(results(squares, (), [1]))


# -- commands -------------------------------------------------------------------------------------

DUMP = '{"fields": {"GUEST_CR0": "0x80000031", "GUEST_RFLAGS": "%#x"}}'
COMMANDS = (
    ["classify", "pg74", "--json"],
    ["classify", "pg74", "--symbolic", "DROP,LRA"],
    ["safety", "pg74", "--json"],
    ["problems", "pg74", "--json"],
    ["vmcs", "check", "lines.jsonl", "--jsonl"],
    ["vmcs", "generate", "--violate", "GUEST-CR-09", "--count", "201"],
    ["vmcs", "generate", "--violate", "PRE-06"],  # which no VMCS violates
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lines")
    lines = [DUMP % number for number in range(450)]
    (made / "lines.jsonl").write_text(
        "\n".join((*lines[:300], '{"bad": 1}', "", *lines[300:])), encoding="ascii"
    )
    return made


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_equal_bytes_whoever_does_the_work(command: list[str], folder: Path, tmp_path: Path) -> None:
    alone = popek(*command, "--jobs", "1", folder=folder)
    assert alone.stdout or alone.stderr
    together = popek(*command, "--jobs", "2", folder=folder)
    assert (together.stdout, together.stderr, together.returncode) == (
        alone.stdout,
        alone.stderr,
        alone.returncode,
    )
    parts = [popek(*command, f"--shard={n}/2", "--jobs", "1", folder=folder).stdout for n in (1, 2)]
    merged = popek("merge", *written(tmp_path, parts), folder=folder)
    assert (merged.stdout, merged.stderr, merged.returncode) == (alone.stdout, alone.stderr, alone.returncode)


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["text", "JSON"])
def test_premises_are_the_same_whoever_asks_them(json: list[str], tmp_path: Path) -> None:
    def told(*arguments: str) -> tuple[str, str, int]:
        done = popek(*arguments)
        return re.sub(r'(?m)"seconds": [0-9.]+|^[0-9.]+ s$', "", done.stdout), done.stderr, done.returncode

    command = ["prove", "pg74", *json]
    alone = told(*command)
    if json:
        assert told(*command, "--jobs", "2") == alone
        return
    parts = [popek(*command, f"--shard={n}/2", "--jobs", "1").stdout for n in (1, 2)]
    assert told("merge", *written(tmp_path, parts)) == alone


@pytest.mark.parametrize(
    "arguments", [("theorem1", "--jobs", "2"), ("pg74", "--jobs", "2", "--certify", "kept")], ids=" ".join
)
def test_who_proves_only_premises_of_machines_is_chosen(arguments: tuple[str, ...]) -> None:
    done = popek("prove", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--jobs, --engine and --shard: expected with" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--shard", "0/2"], "--shard 0/2: expected I/N with I from 1 to N"),
        (["--shard", "3/2"], "--shard 3/2: expected I/N"),
        (["--shard", "half"], "--shard half: expected I/N"),
        (["--shard", "1/2", "--engine", "dask"], "--shard 1/2: expected without --engine dask"),
        (["--scheduler", "tcp://127.0.0.1:1"], "--scheduler tcp://127.0.0.1:1: expected with --engine dask"),
    ],
)
def test_what_cannot_be_engaged_is_one_line(arguments: list[str], line: str) -> None:
    done = popek("classify", "pg74", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"popek: {line}")
    assert done.stderr.count("\n") == 1


def test_merge_without_files_is_one_line() -> None:
    done = popek("merge")
    assert (done.returncode, done.stderr) == (
        2,
        "popek: popek merge: expected the files of all shards of a command\n",
    )


def assert_ends_when_interrupted(*arguments: str) -> None:
    """One line, 130, and nobody goes on working."""
    script = "import sys; from popek.cli import main; sys.argv[0] = 'popek'; main()"
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    begin = time.monotonic()
    while not (found := children.read_text().split()) and time.monotonic() - begin < 120:
        time.sleep(0.05)
    assert found
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    out, err = running.communicate(timeout=120)
    assert (out, err, running.returncode) == ("", "popek: interrupted\n", 130)
    for _ in range(200):
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process is left")


def test_an_interrupt_leaves_no_process() -> None:
    assert_ends_when_interrupted("safety", "ia32", "--jobs", "2")


# -- a cluster ------------------------------------------------------------------------------------


@pytest.mark.cluster
def test_a_worker_of_a_cluster_killed_half_way_changes_nothing(tmp_path: Path) -> None:
    with engaged(Cluster(jobs=2)):
        found = list(results(fragile, (str(tmp_path),), ITEMS))
    assert (tmp_path / "struck").exists()
    assert found == [item * item for item in ITEMS]


@pytest.mark.cluster
def test_a_cluster_prints_what_one_process_prints() -> None:
    command = ["classify", "pg74", "--json"]
    assert popek(*command, "--engine", "dask", "--jobs", "1").stdout == popek(*command, "--jobs", "1").stdout
