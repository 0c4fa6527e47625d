"""The store: what is wrong with its file is as if there were none."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest
from jsonschema import validate

from commands import popek
from popek.keeping.store import FILE, Store, StoreSize, folder, key_of
from popek.schemas import schemas

KEY, OTHER = key_of("one"), key_of("other")


def test_a_value_is_there_again_for_another_process(tmp_path: Path) -> None:
    first = Store(tmp_path / "kept")
    assert first.get(KEY) is None
    assert not first.file.exists()  # looking makes no file
    first.put(KEY, b"value")
    assert (first.get(KEY), first.get(OTHER)) == (b"value", None)
    first.close()
    assert Store(tmp_path / "kept").get(KEY) == b"value"


@pytest.mark.parametrize(
    "damage", ["no database", "cut short", "a turned bit", "another's value", "another table"]
)
def test_a_spoilt_file_is_as_none_and_says_so_at_most_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    one = Store(tmp_path)
    for number in range(200):
        one.put(key_of(number), b"value %d" % number)
    one.put(KEY, b"value")
    one.close()
    file = tmp_path / FILE
    if damage == "no database":
        file.write_bytes(b"no database at all" * 500)
    elif damage == "cut short":
        file.write_bytes(file.read_bytes()[:5000])
    else:
        connection = sqlite3.connect(file)
        if damage == "a turned bit":
            (value,) = connection.execute("SELECT value FROM kept WHERE key = ?", (KEY,)).fetchone()
            turned = value[:-6] + bytes([value[-6] ^ 1]) + value[-5:]
            connection.execute("UPDATE kept SET value = ? WHERE key = ?", (turned, KEY))
        elif damage == "another's value":
            connection.execute(
                "UPDATE kept SET value = (SELECT value FROM kept WHERE key = ?) WHERE key = ?",
                (key_of(3), KEY),
            )
        else:
            connection.execute("DROP TABLE kept")
            connection.execute("CREATE TABLE kept (x)")
        connection.commit()
        connection.close()
    two = Store(tmp_path)
    assert two.get(KEY) is None
    two.put(KEY, b"anew")
    assert two.get(KEY) in (b"anew", None)
    two.close()
    assert capsys.readouterr().err.count("\n") <= 1
    three = Store(tmp_path)  # the next process begins with a sound file
    if damage != "another table":
        three.put(OTHER, b"sound")
        assert three.get(OTHER) == b"sound"


def test_a_folder_that_cannot_be_written_is_as_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    one = Store(tmp_path / "file" / "below")
    one.put(KEY, b"value")
    one.put(OTHER, b"value")
    assert one.get(KEY) is None
    one.close()
    told = capsys.readouterr().err
    assert told.startswith("popek: nothing is kept for the next time: ")
    assert told.count("\n") == 1


def test_a_full_disk_is_as_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Store(tmp_path)
    one.put(KEY, b"value")
    opened = one._open(make=True)
    assert opened is not None
    opened.execute("PRAGMA max_page_count = 1")  # what SQLite says to a disk that is full
    for number in range(50):
        one.put(key_of(number), os.urandom(1000))
    assert capsys.readouterr().err.count("\n") == 1
    assert Store(tmp_path).get(KEY) == b"value"


def _writes(where: Path, begin: int) -> None:
    one = Store(where)
    for number in range(begin, begin + 40):
        one.put(key_of(number), b"%d" % number)
    one.close()


def test_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    one = Store(tmp_path)
    one.put(KEY, b"value")  # a connection that those below must not use
    workers = [multiprocessing.Process(target=_writes, args=(tmp_path, 20 * number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert [one.get(key_of(number)) for number in range(100)] == [b"%d" % number for number in range(100)]


def test_what_was_not_asked_for_longest_goes_first(tmp_path: Path) -> None:
    one = Store(tmp_path, largest=100_000)
    for number in range(40):
        one.put(key_of(number), os.urandom(1000))
    one.close()
    two = Store(tmp_path, largest=100_000)
    assert two.get(key_of(0)) is not None
    two.close()
    three = Store(tmp_path, largest=100_000)
    for number in range(40, 105):
        three.put(key_of(number), os.urandom(1000))
    three.close()
    four = Store(tmp_path, largest=100_000)
    assert four.size().octets <= 100_000
    assert four.get(key_of(0)) is not None
    assert four.get(key_of(1)) is None
    assert four.get(key_of(104)) is not None


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POPEK_CACHE", "off")
    assert folder() is None
    monkeypatch.setenv("POPEK_CACHE", str(tmp_path))
    assert folder() == tmp_path
    monkeypatch.delenv("POPEK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder() == tmp_path / "popek"
    monkeypatch.setenv("XDG_CACHE_HOME", "not absolute, which XDG says to ignore")
    assert folder() == Path.home() / ".cache" / "popek"


def test_the_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert popek("cache", "info").stdout == "nothing is kept: POPEK_CACHE is off\n"
    monkeypatch.setenv("POPEK_CACHE", str(tmp_path))
    one = Store(tmp_path)
    one.put(KEY, b"value")
    one.close()
    told = json.loads(popek("cache", "info", "--json").stdout)
    validate(told, schemas()["popek/cache/1"])
    assert (told["entries"], told["file"]) == (1, str(tmp_path / FILE))
    assert popek("cache", "info").stdout.startswith("1 entries, 0.0 of at most 200 MB, in ")
    gone = json.loads(popek("cache", "clear", "--json").stdout)
    validate(gone, schemas()["popek/cache/1"])
    assert (gone["entries"], gone["cleared"]) == (1, True)
    assert Store(tmp_path).size() == StoreSize(tmp_path / FILE)
    assert popek("cache", "clear").stdout == "0 entries removed, 0.0 MB\n"
    assert popek("cache", "forget").returncode == 2
    tmp_path.rmdir()
    assert popek("cache", "clear").returncode == 0
