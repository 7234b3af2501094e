"""The disk queue: what was acknowledged to a producer stays until the broker has acknowledged it.

    producers ─put─►  committer: one transaction, one fsync  ─►  tickets done, listeners woken
    uplink ─acknowledge─►  ┘                                     peek reads what is committed

- Records lie under integer keys, lane · 2⁴⁸ + n, so that a lane is a range of keys in order, and rows are deleted only
  after their PUBACK.
- `seq` counts per topic and lies in a row of its own (`seq/<topic>`), written in the same transaction as the record:
  it never restarts, not even when the queue has drained. `epoch` is minted with the database.
- Every row carries a CRC-32: a message that does not match is put aside and counted, never published.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.clock import boot_id
from agent.delivery.committer import Committer, Options, Put, QueueClosed, Remove
from agent.delivery.ledger import (
    COUNTERS_KEY,
    EPOCH_KEY,
    TOO_OLD,
    Counters,
    item,
    lane_range,
    read_counters,
    unseal,
    unseal_row,
)
from agent.delivery.record import Entry, Lane, QueueStats, Record, Ticket
from agent.delivery.store import CorruptStore, StoreError, cause, read_only
from agent.errors import EdgepostError
from agent.health import PartHealth

__all__ = ["DiskQueue", "QueueClosed", "Unstorable", "inspect"]

log = logging.getLogger(__name__)

EXPIRE_ROWS = 100


class Unstorable(EdgepostError, ValueError):
    """A record that can't be kept: too large for the queue, or with values that have no place in a message."""


def inspect(directory: Path) -> QueueStats:
    """The figures of a queue as of its last commit, read beside a running agent or without one."""
    rows = read_only(directory, [EPOCH_KEY, COUNTERS_KEY])
    epoch = unseal_row(rows.get(EPOCH_KEY)) or b""
    return _stats(epoch.decode("ascii", "replace"), read_counters(rows.get(COUNTERS_KEY)) or Counters())


class DiskQueue:
    """The queue in `directory`. `open` starts the committer, `close` commits what is pending and ends it."""

    def __init__(self, directory: Path, health: PartHealth, **options: Any) -> None:
        """`options` are those of `committer.Options`."""
        self._directory = directory
        self._options = Options(**options)
        self._committer = Committer(directory, health, self._options)
        self.put_before = 0  # messages put before it was opened
        self.seqs_before: dict[str, int] = {}  # the seq last given to each topic before it was opened

    @property
    def epoch(self) -> str:
        """Minted with the database; what is put from now on bears it."""
        return self._committer.ledger.epoch

    @property
    def peak(self) -> int:
        """The most messages that waited at once since the queue was opened."""
        return self._committer.peak

    def open(self) -> None:
        """Open or make the database and start the committer; raises EdgepostError when it can't be used."""
        self._committer.open()
        self.put_before = self._committer.ledger.counters.put
        self.seqs_before = self.last_seqs()

    def close(self) -> None:
        """Commit what is pending and let go of the database; safe twice and after a failed open."""
        self._committer.close()

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every commit, from the committer's thread: it must only wake somebody."""
        self._committer.listeners.append(listener)

    def put(self, records: Sequence[Record]) -> Ticket:
        """Append records; waits while too much is pending. The ticket says their epoch and seqs once it is done.

        Raises Unstorable, and QueueClosed at the stop.
        """
        try:
            items = [item(record) for record in records]
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Unstorable(f"a value can't be stored: {error}") from error
        size = sum(len(each.body) for each in items)
        if size > self._options.max_bytes:
            raise Unstorable(f"{size} bytes: larger than the whole queue ({self._options.max_bytes})")
        ticket = Ticket(len(items), self._committer.changed)
        self._committer.add(Put(items, ticket, size))
        return ticket

    def peek(self, lane: Lane, after: int, limit: int) -> list[Entry]:
        """The oldest committed entries of a lane whose key is above `after` (0: from the start).

        Raises EdgepostError when the database can't be read just now.
        """
        committer = self._committer
        low, high = lane_range(lane)
        with committer.changed:
            store = committer.store
            settled = set(committer.settled)  # before reading: what is deleted meanwhile is in it, or not read
        assert store is not None, "the queue is not open"
        try:
            rows = store.range(max(low, after), high, limit + len(settled))
        except StoreError as error:
            committer.suspect(error)
            raise EdgepostError(f"{self._directory}: the queue can't be read: {cause(error)}") from error
        entries: list[Entry] = []
        for key, value in rows:
            if key in settled:
                continue
            try:
                entries.append(unseal(key, value))
            except CorruptStore as error:
                log.error("queue: %s; it is put aside as dead", error)
                self.reject(key, str(error))
        return entries[:limit]

    def acknowledge(self, keys: Sequence[int]) -> Ticket:
        """Forget entries that the broker has. They are not peeked again; the ticket is done once that is on disk."""
        return self._remove(keys)

    def reject(self, key: int, reason: str) -> Ticket:
        """Put an entry aside under `dead/`, with its reason."""
        return self._remove([key], dead=reason)

    def expire(self, now_ns: int) -> None:
        """Drop what is older than the age limit at `now_ns` of the boot clock, and count it."""
        limit_s = self._options.max_age_s
        for lane in Lane if limit_s is not None else ():
            after = 0
            while entries := self.peek(lane, after, EXPIRE_ROWS):
                old = [entry.key for entry in entries if _age_s(entry, now_ns) > (limit_s or 0.0)]
                if old:
                    self._remove(old, dropped=TOO_OLD)
                if len(old) < len(entries):
                    break
                after = entries[-1].key

    def stats(self) -> QueueStats:
        """The figures as of the last commit."""
        with self._committer.changed:
            return _stats(self.epoch, self._committer.ledger.counters)

    def is_empty(self) -> bool:
        """Whether nothing waits: neither for the broker nor for the disk."""
        with self._committer.changed:
            return not self._committer.pending_rows and not self._committer.ledger.counters.waiting

    def last_seqs(self) -> dict[str, int]:
        """The seq last given to each topic, as of the last commit."""
        with self._committer.changed:
            return dict(self._committer.ledger.seqs)

    def _remove(self, keys: Sequence[int], *, dead: str = "", dropped: str = "") -> Ticket:
        ticket = Ticket(len(keys), self._committer.changed)
        self._committer.add(Remove(keys, ticket, dead, dropped))
        return ticket


def _stats(epoch: str, counters: Counters) -> QueueStats:
    return QueueStats(epoch, **{name: getattr(counters, name) for name in Counters.__struct_fields__})


def _age_s(entry: Entry, now_ns: int) -> float:
    """How old an entry is at least: of another boot, it is older than this one."""
    seen_ns = entry.record.stamp.boot_ns if entry.boot == boot_id() else 0
    return (now_ns - seen_ns) / 1e9
