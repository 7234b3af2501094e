"""What to do when the database will not do its part: tell a full disk, a dying disk and a damaged file apart.

A dying disk can read as "malformed" while the file is intact, so a file is given up only after a check by a connection
of its own says so twice. Then it is kept aside, what can be read of it goes over into a new one, and the new epoch
tells every receiver that something may be missing.
"""

import contextlib
import errno
import logging
import os
import sqlite3
import time
from pathlib import Path

import msgspec

from agent.delivery.ledger import COUNTERS_KEY, Counters, lane_range, seal, unseal
from agent.delivery.record import Lane
from agent.delivery.store import CorruptStore, Durability, Store, cause

log = logging.getLogger(__name__)

DATABASE = ("cache.db", "cache.db-wal", "cache.db-shm")
BALLAST_BYTES = 8 * 1024 * 1024
SPARE = 3  # times the ballast that must be free before it is put back
FULL = "full"  # as in "database or disk is full"


def open_store(directory: Path, durability: Durability, max_bytes: int, *, suspected: str = "") -> Store:
    """Open the database, after putting a damaged one aside; `suspected` is the error that made it seem damaged.

    Raises what the database raises (`StoreError`) when it can't be opened and is not damaged.
    """
    try:
        if not suspected:
            return _probed(Store(directory, durability, max_bytes))
    except sqlite3.DatabaseError as error:
        suspected = str(error)
        if not is_damage(error):
            raise
    if not is_damaged(directory):
        return Store(directory, durability, max_bytes)
    aside = _put_aside(directory)
    store = Store(directory, durability, max_bytes)
    saved = _salvage(aside, store)
    log.error(
        "queue: %s was damaged (%s) and is kept in %s; %d messages were saved from it, a new epoch begins",
        directory, suspected, aside, saved,
    )  # fmt: skip
    return store


def is_damaged(directory: Path) -> bool:
    """Whether a connection of its own finds the file damaged, twice."""
    return _check_fails(directory) and _check_fails(directory)


def is_damage(error: Exception) -> bool:
    """Whether an error is one that a damaged file gives; a dying disk gives it too."""
    text = str(cause(error))
    return "malformed" in text or "not a database" in text


def is_full(error: Exception) -> bool:
    """Whether the disk, or the bound on the file's size, is what stands in the way."""
    return FULL in str(cause(error)) or getattr(cause(error), "errno", None) == errno.ENOSPC


class Ballast:
    """A file that is there to be removed: on a full disk even a deletion needs room for the write-ahead log."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ballast"

    def take_on(self) -> bool:
        """Put it in place when there is room to spare; returns whether it is there."""
        try:
            if self._path.exists() and self._path.stat().st_size == BALLAST_BYTES:
                return True
            state = os.statvfs(self._path.parent)
            if state.f_bavail * state.f_frsize < SPARE * BALLAST_BYTES:
                return False
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, BALLAST_BYTES)
            finally:
                os.close(fd)
        except OSError:
            self.drop()
            return False
        return True

    def drop(self) -> None:
        """Give its room to the database."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _probed(store: Store) -> Store:
    """A damaged file may open: read once through what every commit needs."""
    try:
        for lane in Lane:
            store.last_key(*lane_range(lane))
            store.range(*lane_range(lane), 1)
        store.get(COUNTERS_KEY)
    except BaseException:
        store.close()
        raise
    return store


def _check_fails(directory: Path) -> bool:
    path = directory / DATABASE[0]
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
    except sqlite3.OperationalError as error:
        return "malformed" in str(error)  # else locked, full, unreadable: says nothing of the file
    except sqlite3.DatabaseError:
        return True


def _put_aside(directory: Path) -> Path:
    aside = directory / f"damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
    aside.mkdir()
    for name in DATABASE:
        with contextlib.suppress(FileNotFoundError):
            (directory / name).rename(aside / name)
    return aside


def _salvage(aside: Path, store: Store) -> int:
    """Copy over every message that can still be read and matches its checksum, in order; returns how many."""
    counters = Counters()
    with contextlib.closing(sqlite3.connect(aside / DATABASE[0], timeout=5)) as damaged, store.transact():
        for lane in Lane:
            for key, value in sorted(_readable(damaged, *lane_range(lane)).items()):
                store.set(key, value)
                counters.waiting += 1
                counters.waiting_bytes += len(value)
        counters.put = counters.waiting
        counters.damaged = 1
        store.set(COUNTERS_KEY, seal(msgspec.msgpack.encode(counters)))
    return counters.waiting


def _readable(damaged: sqlite3.Connection, low: int, high: int) -> dict[int, bytes]:
    """The good rows of a lane: each is looked up by itself, so that a damaged page takes only its own with it."""
    keys: set[int] = set()
    for order in ("ASC", "DESC"):  # from both ends of the index, as far as each goes
        query = f"SELECT key FROM Cache WHERE raw = 1 AND key > ? AND key < ? ORDER BY key {order}"  # noqa: S608 (ours)
        with contextlib.suppress(sqlite3.Error):
            keys.update(key for (key,) in damaged.execute(query, (low, high)))
    found: dict[int, bytes] = {}
    for key in keys:
        with contextlib.suppress(sqlite3.Error, CorruptStore, TypeError):
            (value,) = damaged.execute("SELECT value FROM Cache WHERE raw = 1 AND key = ?", (key,)).fetchone()
            unseal(key, value)
            found[key] = value
    return found
