"""The database under the queue: diskcache, made to hold raw bytes under integer and text keys and nothing else.

diskcache pickles what is not bytes, and a poisoned database would then run code when it is read (CVE-2025-69872); it
also evicts and expires by default. Here neither can happen: `RawDisk` refuses everything but inline bytes, on reading
too, and the settings below turn eviction off for good.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import diskcache
from diskcache.core import MODE_RAW

from agent.errors import EdgepostError

SETTINGS = {
    "eviction_policy": "none",
    "cull_limit": 0,
    "statistics": 0,
    "tag_index": 0,
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 0,  # an I/O error in a mapping would be SIGBUS
    "sqlite_cache_size": 256,  # pages of 4 KiB for each connection; diskcache's 8192 would be 32 MB
    "sqlite_auto_vacuum": 0,
    "sqlite_wal_autocheckpoint": 256,
    "sqlite_journal_size_limit": 4 * 1024 * 1024,
}


Durability = Literal["power", "process"]

SYNCHRONOUS: Mapping[Durability, Mapping[str, int]] = {
    "power": {"sqlite_synchronous": 2},  # fsync at every commit: with 1, acknowledged rows were lost in a power cut
    "process": {"sqlite_synchronous": 1},  # fsync at checkpoints only: a killed process loses nothing
}
PAGE_BYTES = 4096
DELETE = "DELETE FROM Cache WHERE key = ? AND raw = 1 RETURNING value"
BUSY_S = 1.0  # how long another process may hold the database before a commit is tried again later

StoreError = (sqlite3.Error, diskcache.Timeout, OSError)
"""What the database may raise when the disk does not do its part."""


def cause(error: Exception) -> BaseException:
    """The first error: diskcache's ROLLBACK fails after SQLite has rolled back by itself, and hides why."""
    return error.__context__ if isinstance(error.__context__, StoreError) else error


class CorruptStore(EdgepostError):
    """The database holds something that edgepost never wrote."""


class RawDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache ships no types
    """Stores bytes inline, under int and str keys."""

    def put(self, key: object) -> tuple[object, bool]:
        if type(key) not in (int, str):
            raise TypeError(f"a key must be int or str, found {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> object:
        if not raw or type(key) not in (int, str):
            raise CorruptStore("the queue's database holds a key that edgepost never wrote")
        return key

    def store(self, value: object, read: object, key: object = None) -> tuple[int, int, None, object]:
        del key
        if read or type(value) is not bytes:
            raise TypeError(f"a value must be bytes, found {type(value).__name__}")
        return len(value), MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        if mode != MODE_RAW or filename is not None or read or not isinstance(value, bytes):
            raise CorruptStore("the queue's database holds a value that edgepost never wrote")
        return value


def read_only(directory: Path, keys: Sequence[str]) -> dict[str, bytes]:
    """The values of text keys, read beside whoever uses the database and changing nothing; raises EdgepostError."""
    marks = ",".join("?" * len(keys))
    query = f"SELECT key, value FROM Cache WHERE raw = 1 AND key IN ({marks})"  # noqa: S608 (marks only)
    return {key: bytes(value) for key, value in look(directory, query, keys)}


def look(directory: Path, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, one by one, on a connection that can change nothing; raises EdgepostError."""
    path = directory / "cache.db"
    if not path.exists():
        raise EdgepostError(f"{path}: there is no queue here yet; name the agent's --data-dir")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            yield from connection.execute(query, values)
    except sqlite3.Error as error:
        raise EdgepostError(f"{path}: can't be read: {error}") from error


class Store(diskcache.Cache):  # type: ignore[misc]  # diskcache ships no types
    """A diskcache whose integer keys can also be read by range. Each thread has a connection of its own."""

    def __init__(self, directory: Path, durability: Durability, max_bytes: int) -> None:
        """Open or make the database. Its file is bounded too: twice `max_bytes` of payload, and some pages."""
        bound = {"sqlite_max_page_count": 2 * max_bytes // PAGE_BYTES + 1024}
        super().__init__(str(directory), timeout=BUSY_S, disk=RawDisk, **SETTINGS, **bound, **SYNCHRONOUS[durability])

    def range(self, low: int, high: int, limit: int) -> list[tuple[int, bytes]]:
        """Up to `limit` rows with low < key < high, by key. What edgepost never wrote is read as b""."""
        query = (
            "SELECT key, mode, filename, value FROM Cache WHERE key > ? AND key < ? AND raw = 1 ORDER BY key LIMIT ?"
        )
        rows: Sequence[Any] = self._sql(query, (low, high, limit)).fetchall()
        return [(key, value if mode == MODE_RAW and filename is None else b"") for key, mode, filename, value in rows]

    def sizes(self, low: int, high: int, limit: int) -> list[tuple[int, int]]:
        """Keys and lengths of up to `limit` rows with low < key < high, by key."""
        query = (
            "SELECT key, length(CAST(value AS BLOB)) FROM Cache"
            " WHERE key > ? AND key < ? AND raw = 1 ORDER BY key LIMIT ?"
        )
        return [(key, size or 0) for key, size in self._sql(query, (low, high, limit))]

    def tally(self, low: int, high: int) -> tuple[int, int]:
        """How many rows lie between, and the bytes of their values. Reads them all."""
        query = "SELECT count(*), total(length(CAST(value AS BLOB))) FROM Cache WHERE key > ? AND key < ? AND raw = 1"
        ((rows, size),) = self._sql(query, (low, high)).fetchall()
        return int(rows), int(size)

    def texts(self, prefix: str) -> list[tuple[str, bytes]]:
        """All rows under text keys that begin with `prefix`, by key. What edgepost never wrote is read as b""."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        query = "SELECT key, mode, value FROM Cache WHERE key >= ? AND key < ? AND raw = 1 ORDER BY key"
        return [(key, value if mode == MODE_RAW else b"") for key, mode, value in self._sql(query, (prefix, end))]

    def text_sizes(self, prefix: str) -> list[tuple[str, int]]:
        """Text keys that begin with `prefix`, and the lengths of their values."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        query = "SELECT key, length(CAST(value AS BLOB)) FROM Cache WHERE key >= ? AND key < ? AND raw = 1 ORDER BY key"
        return [(key, size or 0) for key, size in self._sql(query, (prefix, end))]

    def last_key(self, low: int, high: int) -> int:
        """The highest key between, or `low` when there is none."""
        query = "SELECT max(key) FROM Cache WHERE key > ? AND key < ? AND raw = 1"
        ((key,),) = self._sql(query, (low, high)).fetchall()
        return low if key is None else int(key)

    def take(self, key: int) -> bytes | None:
        """Delete a row inside a transaction; returns what it held as it lay there, None when there was none."""
        rows: Sequence[Any] = self._sql(DELETE, (key,)).fetchall()
        return bytes(rows[0][0] or b"") if rows else None
