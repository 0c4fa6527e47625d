"""A file in the user's cache folder that holds what was found, by key; without it everything is found anew.

One SQLite file, which several processes may use at once.  Nothing here raises for what is wrong with the file: where it
cannot be read or written, or is none, nothing is known and nothing is kept, and one line on standard error says so.
Every value carries a hash of itself and its key, so what has rotted on the disk counts as missing.  Where the whole
grows over its bound, what was not asked for longest is dropped.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

VARIABLE: Final = "POPEK_CACHE"
OFF: Final = "off"
FILE: Final = "kept-1.sqlite"
LARGEST: Final = 200_000_000  # bytes of values
_WAIT: Final = 5.0  # seconds for another process that writes

_TABLE: Final = "CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, value BLOB, used REAL) WITHOUT ROWID"


def folder() -> Path | None:
    """Where it lies: the folder that POPEK_CACHE names, or popek's in the user's cache folder; None where it is off."""
    named = os.environ.get(VARIABLE, "")
    if named == OFF:
        return None
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME", "")
    return Path(home if os.path.isabs(home) else Path("~/.cache").expanduser()) / "popek"


def turn_off() -> None:
    """For this process and those that it starts."""
    os.environ[VARIABLE] = OFF


@attrs.frozen
class StoreSize:
    """How much is kept.

    Attributes:
        file: None where it is off.
        values: how many.
        octets: how many bytes of values.
    """

    file: Path | None
    values: int = 0
    octets: int = 0

    def to_json(self) -> dict[str, object]:
        """`popek/cache/1`."""
        return {
            "schema": "popek/cache/1",
            "file": None if self.file is None else str(self.file),
            "entries": self.values,
            "bytes": self.octets,
            "largest": LARGEST,
        }


class Store:
    """Values by key.

    Args:
        where: a folder; it is made when something is to be kept.
        largest: bytes of values, above which some are dropped.
    """

    def __init__(self, where: Path, *, largest: int = LARGEST) -> None:
        self.file = where / FILE
        self._largest = largest
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._broken = False
        self._written = 0
        self._used: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        """What was kept; None where nothing was, or something is wrong with it."""
        try:
            connection = self._open(make=False)
            if connection is None:
                return None
            found = connection.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return None
        if found is None or not isinstance(found[0], bytes):
            return None
        told, packed = found[0][:_HASH], found[0][_HASH:]
        if told != _hash(key, packed):
            return None
        self._used.append(key)
        with suppress(zlib.error):
            return zlib.decompress(packed)
        return None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value."""
        packed = zlib.compress(value, 6)
        try:
            connection = self._open(make=True)
            if connection is None:
                return
            whole = _hash(key, packed) + packed
            connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", (key, whole, time.time()))
            self._written += len(whole)
            if self._written > self._largest // 20:
                self._written = 0
                self._shrink(connection)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Note what was asked for, and let go of the file."""
        connection, used = self._connection, self._used
        self._connection, self._used = None, []
        if connection is not None and self._process == os.getpid():
            with suppress(sqlite3.Error):
                now = time.time()
                with connection:
                    connection.execute("BEGIN")
                    connection.executemany("UPDATE kept SET used = ? WHERE key = ?", ((now, k) for k in used))
            with suppress(sqlite3.Error):
                self._shrink(connection)
                connection.close()

    def size(self) -> StoreSize:
        """How much is kept."""
        try:
            connection = self._open(make=False)
            if connection is None:
                return StoreSize(self.file)
            counted = connection.execute(
                "SELECT count(*), coalesce(sum(length(value)), 0) FROM kept"
            ).fetchone()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return StoreSize(self.file)
        return StoreSize(self.file, *map(int, counted))

    def clear(self) -> StoreSize:
        """Keep nothing any more.

        Returns:
            What there was.

        Raises:
            OSError: the file cannot be removed.
        """
        before = self.size()
        self._connection = None
        for file in self._files():
            file.unlink(missing_ok=True)
        return before

    # -- the file -----------------------------------------------------------------------------

    def _files(self) -> Iterable[Path]:
        return (self.file.with_name(self.file.name + ending) for ending in ("", "-wal", "-shm", "-journal"))

    def _open(self, *, make: bool) -> sqlite3.Connection | None:
        """A connection of this process's own."""
        if self._broken:
            return None
        if self._connection is None or self._process != os.getpid():
            self._connection = None  # a parent's is its own
            if not make and not self.file.exists():
                return None
            self.file.parent.mkdir(parents=True, exist_ok=True)
            made = sqlite3.connect(self.file, timeout=_WAIT, isolation_level=None)
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("PRAGMA synchronous = NORMAL")
            made.execute(_TABLE)
            self._connection, self._process, self._used = made, os.getpid(), []
        return self._connection

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Drop what was not asked for longest, until a fifth is free again."""
        (total,) = connection.execute("SELECT coalesce(sum(length(value)), 0) FROM kept").fetchone()
        if total <= self._largest:
            return
        gone, dropped = 0, []
        for key, size in connection.execute("SELECT key, length(value) FROM kept ORDER BY used").fetchall():
            if total - gone <= self._largest * 4 // 5:
                break
            gone += size
            dropped.append((key,))
        connection.executemany("DELETE FROM kept WHERE key = ?", dropped)
        connection.execute("VACUUM")

    def _give_up(self, error: Exception) -> None:
        """As if there were none, from now on; what is no such file any more goes."""
        self._broken, self._connection = True, None
        if "locked" in str(error):  # another process takes its time
            return
        print(f"popek: nothing is kept for the next time: {self.file}: {error}", file=sys.stderr)
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            with suppress(OSError):
                for file in self._files():
                    file.unlink(missing_ok=True)


_HASH: Final = 16


def _hash(key: bytes, packed: bytes) -> bytes:
    return hashlib.blake2b(packed, key=key[:64], digest_size=_HASH).digest()


_known: dict[Path, Store] = {}


def store() -> Store | None:
    """The store of this process; None where it is off."""
    where = folder()
    if where is None:
        return None
    if where not in _known:
        _known[where] = Store(where)
    return _known[where]


def key_of(*parts: object) -> bytes:
    """The key of a value: the hash of everything that it depends on, as text."""
    return hashlib.blake2b("\0".join(map(repr, parts)).encode(), digest_size=32).digest()


__all__ = [
    "FILE",
    "LARGEST",
    "OFF",
    "VARIABLE",
    "Store",
    "StoreSize",
    "folder",
    "key_of",
    "store",
    "turn_off",
]
