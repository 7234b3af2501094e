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
from typing import Any, TypeVar

from agent.clock import boot_id
from agent.delivery.committer import Change, Committer, Options, Put, QueueClosed, Remove
from agent.delivery.ledger import (
    COUNTERS_KEY,
    EPOCH_KEY,
    TOO_OLD,
    Counters,
    Ledger,
    Refused,
    Stored,
    item,
    lane_range,
    read_counters,
    unseal,
    unseal_row,
)
from agent.delivery.maintenance import Moved, Passed, checked, delete_dead, drop, requeue, restore
from agent.delivery.record import Entry, Lane, QueueStats, Record, Ticket
from agent.delivery.store import CorruptStore, Store, StoreError, cause, read_only
from agent.errors import EdgepostError
from agent.health import PartHealth

__all__ = ["DiskQueue", "QueueClosed", "Unstorable", "inspect"]

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")

EXPIRE_ROWS = 100
CHANGE_S = 20.0  # how long the author of a change waits for the disk


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

    def requeue(self, numbers: Sequence[int] | None) -> Moved:
        """Put what is dead (None: all) back at the end of its lane, under the epoch and seq that it had.

        This and the changes below return once it is on disk, and raise Refused when nothing was done.
        """
        return self._change(lambda ledger, store: requeue(ledger, store, numbers, self._options.max_bytes))

    def delete_dead(self, numbers: Sequence[int] | None) -> int:
        """Forget what is dead (None: all); returns how many."""
        return self._change(lambda _ledger, store: delete_dead(store, numbers))

    def restore(self, messages: Sequence[Stored], needed: int = 0) -> int:
        """Append messages that had been put before, under their epochs and seqs; returns how many.

        Refused when there is no room for them, or for `needed` bytes: nothing is dropped in their favour.
        """
        rows, limit = checked(messages), self._options.max_bytes
        return self._change(lambda ledger, store: restore(ledger, store, rows, limit, needed), len(rows))

    def drop(self, lane: Lane, after: int, upto: int, older_than_s: float | None = None) -> Passed:
        """Delete a part of what waits in a lane under keys above `after` up to `upto`; says where to go on."""
        low, high = lane_range(lane)
        between = max(low, after), min(high, upto + 1)
        return self._change(lambda ledger, store: drop(ledger, store, between, older_than_s))

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

    def _change(self, apply: Callable[[Ledger, Store], Outcome], rows: int = 1) -> Outcome:
        operation = Change(apply, Ticket(max(rows, self._options.commit_rows), self._committer.changed))  # at once
        self._committer.add(operation)
        if not operation.ticket.wait(CHANGE_S):
            raise EdgepostError(f"not on disk after {CHANGE_S:g} s, and it may still be done: see `edgepost status`")
        if operation.error:
            raise Refused(operation.error)
        outcome: Outcome = operation.result
        return outcome

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
