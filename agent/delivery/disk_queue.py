"""The disk queue: what was acknowledged to a producer stays until the broker has acknowledged it.

    producers ─put─►  pending  ─►  committer: one transaction, one fsync  ─►  tickets done, listeners woken
    uplink ─acknowledge─►  ┘                                              peek reads what is committed

- Records lie under integer keys, lane · 2⁴⁸ + n, so that a lane is a range of keys in order, and rows are deleted only
  after their PUBACK.
- `seq` counts per topic and lies in a row of its own (`seq/<topic>`), written in the same transaction as the record:
  it never restarts, not even when the queue has drained. `epoch` is minted with the database.
- Group commit: at most one commit in `commit_interval_s`, or earlier when `commit_rows` have gathered; the first after
  a pause goes at once. A commit that fails (a full disk, say) is tried again with everything that was in it.
- Every stored value carries a CRC-32: a row that does not match is put aside and counted, never published.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from agent.clock import boot_id
from agent.delivery.ledger import COUNTERS_KEY, EPOCH_KEY, TOO_OLD, Counters, Ledger, lane_range, unseal
from agent.delivery.record import Entry, Lane, QueueStats, Record, Ticket
from agent.delivery.recovery import Ballast, is_damage, is_full, open_store
from agent.delivery.store import CorruptStore, Durability, Store, StoreError, read_only
from agent.errors import EdgepostError
from agent.health import PartHealth

log = logging.getLogger(__name__)

MAX_PENDING_ROWS = 20_000
RETRY_S = 1.0
EXPIRE_ROWS = 100


def inspect(directory: Path) -> QueueStats:
    """The figures of a queue as of its last commit, read beside a running agent or without one."""
    values = read_only(directory, [EPOCH_KEY, COUNTERS_KEY])
    counters = values.get(COUNTERS_KEY)
    return _stats(
        values.get(EPOCH_KEY, b"").decode("ascii", "replace"),
        msgspec.msgpack.decode(counters, type=Counters) if counters else Counters(),
    )


class QueueClosed(EdgepostError):
    """The queue takes nothing any more: the agent is stopping."""


class _Put(msgspec.Struct, frozen=True):
    records: Sequence[Record]
    ticket: Ticket


class _Remove(msgspec.Struct, frozen=True):
    keys: Sequence[int]
    ticket: Ticket
    dead: str = ""  # given: not delivered, but put aside for this reason
    dropped: str = ""  # given: not delivered, but dropped for this reason


class DiskQueue:
    """The queue in `directory`. `open` starts the committer, `close` commits what is pending and ends it."""

    def __init__(
        self,
        directory: Path,
        health: PartHealth,
        *,
        max_bytes: int,
        may_drop: bool = True,
        max_age_s: float | None = None,
        durability: Durability = "power",
        commit_interval_s: float = 0.1,
        commit_rows: int = 64,
    ) -> None:
        self._directory = directory
        self._health = health
        self._max_bytes = max_bytes
        self._may_drop = may_drop
        self._max_age_s = max_age_s
        self._durability = durability
        self._ballast = Ballast(directory)
        self._disk_full = False
        self._unreadable = ""  # why the database seemed damaged when it was last read or written
        self._commit_interval_s = commit_interval_s
        self._commit_rows = commit_rows
        self._changed = threading.Condition()
        self._pending: list[_Put | _Remove] = []
        self._pending_rows = 0
        self._settled: set[int] = set()  # acknowledged, the deletion not yet on disk: not to be sent again
        self._listeners: list[Callable[[], None]] = []
        self._ledger = Ledger("", Counters(), {}, {})
        self.peak = 0  # the most messages that waited since the queue was opened
        self.put_before = 0  # messages put before it was opened
        self._closing = False
        self._store: Store | None = None
        self._committer = threading.Thread(target=self._commit_until_closed, name="queue", daemon=True)

    def open(self) -> None:
        """Open or make the database and start the committer; raises EdgepostError when it can't be used."""
        try:
            self._store = open_store(self._directory, self._durability, self._max_bytes)
            self._ledger = Ledger.read(self._store)
            self.put_before = self._ledger.counters.put
        except StoreError as error:
            raise EdgepostError(f"{self._directory}: the queue can't be opened: {error}") from error
        self._ballast.take_on()
        self._committer.start()

    @property
    def epoch(self) -> str:
        """Minted with the database; what is put from now on bears it."""
        return self._ledger.epoch

    def close(self) -> None:
        """Commit what is pending and let go of the database; safe twice and after a failed open."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._committer.is_alive():
            self._committer.join()
        if self._store is not None:
            self._store.close()
            self._store = None

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every commit, from the committer's thread: it must only wake somebody."""
        self._listeners.append(listener)

    def put(self, records: Sequence[Record]) -> Ticket:
        """Append records; waits while too much is pending. The ticket says their epoch and seqs once it is done."""
        ticket = Ticket(len(records), self._changed)
        with self._changed:
            self._changed.wait_for(lambda: self._pending_rows < MAX_PENDING_ROWS or self._closing)
            if self._closing:
                raise QueueClosed("the agent is stopping and takes no more data")
            self._add(_Put(records, ticket))
        return ticket

    def peek(self, lane: Lane, after: int, limit: int) -> list[Entry]:
        """The oldest committed entries of a lane whose key is above `after` (0: from the start)."""
        assert self._store is not None, "the queue is not open"
        low, high = lane_range(lane)
        with self._changed:
            settled = set(self._settled)  # before reading: what is deleted meanwhile is in it, or not read
        entries: list[Entry] = []
        try:
            rows = self._store.range(max(low, after), high, limit + len(settled))
        except StoreError as error:
            with self._changed:
                self._unreadable = str(error) if is_damage(error) else ""
                self._changed.notify_all()  # the committer looks into it
            raise EdgepostError(f"{self._directory}: the queue can't be read: {error}") from error
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
        if self._max_age_s is None:
            return
        for lane in Lane:
            after = 0
            while entries := self.peek(lane, after, EXPIRE_ROWS):
                old = [entry.key for entry in entries if _age_s(entry, now_ns) > self._max_age_s]
                if old:
                    self._remove(old, dropped=TOO_OLD)
                if len(old) < len(entries):
                    break
                after = entries[-1].key

    def stats(self) -> QueueStats:
        """The figures as of the last commit."""
        with self._changed:
            return _stats(self.epoch, self._ledger.counters)

    def is_empty(self) -> bool:
        """Whether nothing waits: neither for the broker nor for the disk."""
        with self._changed:
            return not self._pending_rows and not self._ledger.counters.waiting

    def last_seqs(self) -> dict[str, int]:
        """The seq last given to each topic that was written since the queue was opened."""
        with self._changed:
            return dict(self._ledger.seqs)

    def _remove(self, keys: Sequence[int], *, dead: str = "", dropped: str = "") -> Ticket:
        ticket = Ticket(len(keys), self._changed)
        with self._changed:
            self._settled.update(keys)
            self._add(_Remove(keys, ticket, dead, dropped))
        return ticket

    def _add(self, operation: _Put | _Remove) -> None:
        self._pending.append(operation)
        self._pending_rows += operation.ticket.count
        if len(self._pending) == 1 or self._pending_rows >= self._commit_rows:
            self._changed.notify_all()

    def _commit_until_closed(self) -> None:
        try:
            self._commit_loop()
        finally:
            if self._store is not None:
                self._store.close()  # this thread's connection

    def _commit_loop(self) -> None:
        last_commit = -self._commit_interval_s
        while (batch := self._next_batch(last_commit + self._commit_interval_s)) or self._unreadable:
            last_commit = time.monotonic()
            try:
                if self._unreadable:
                    self._reopen()
                held = self._commit(batch)
            except StoreError as error:
                if not self._try_again(batch, error):
                    return
                continue
            self._committed(batch, held)

    def _next_batch(self, due: float) -> list[_Put | _Remove]:
        """Wait until there is work and it is due; an empty batch ends the committer."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing or self._unreadable)
            self._changed.wait_for(
                lambda: self._pending_rows >= self._commit_rows or self._closing, max(0.0, due - time.monotonic())
            )
            batch, self._pending = self._pending, []
            return batch

    def _commit(self, batch: Sequence[_Put | _Remove]) -> list[_Put | _Remove]:
        """Write a batch in one transaction; returns the puts that wait for room, none of which is written."""
        assert self._store is not None
        ledger = self._ledger.copy()
        held: list[_Put | _Remove] = []
        with self._store.transact():
            for operation in batch:  # removals first: they make room
                if isinstance(operation, _Remove):
                    ledger.remove(self._store, operation.keys, dead=operation.dead, dropped=operation.dropped)
            limit = min(self._max_bytes, ledger.counters.waiting_bytes) if self._disk_full else self._max_bytes
            for operation in batch:
                if isinstance(operation, _Put):
                    seqs = None if held else ledger.put(self._store, operation.records, limit, may_drop=self._may_drop)
                    if seqs is None:
                        held.append(operation)
                    else:
                        operation.ticket.epoch, operation.ticket.seqs = ledger.epoch, seqs
            if len(held) < len(batch):
                ledger.write(self._store)
        self._ledger = ledger
        return held

    def _committed(self, batch: Sequence[_Put | _Remove], held: list[_Put | _Remove]) -> None:
        with self._changed:
            for operation in batch:
                if operation in held:
                    continue
                self._pending_rows -= operation.ticket.count
                if isinstance(operation, _Remove):
                    self._settled.difference_update(operation.keys)
                operation.ticket.done = True
            self._pending[:0] = held
            self.peak = max(self.peak, self._ledger.counters.waiting)
            self._changed.notify_all()
        if self._disk_full and self._ballast.take_on():
            self._disk_full = False
            log.warning("queue: %s: there is room again", self._directory)
        self._health.ok()
        for listener in self._listeners:
            listener()

    def _try_again(self, batch: list[_Put | _Remove], error: Exception) -> bool:
        """Keep the batch for later; False when the queue is closing and it can't be kept."""
        assert self._store is not None
        text = f"{self._directory}: the disk takes nothing ({error})"
        if self._health.failed(text):
            log.warning("queue: %s; kept in memory and tried again", text)
        self._store.close()  # this thread's connection: the next one starts from what is on disk
        pause_s = RETRY_S
        if is_full(error) and not self._disk_full:
            self._disk_full = True  # from now on what comes replaces the oldest, in the pages that it leaves
            self._ballast.drop()
            pause_s = 0.0
        self._unreadable = str(error) if is_damage(error) else ""
        with self._changed:
            self._pending[:0] = batch
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, pause_s)
                return True
        log.error("queue: %s; %d operations were never acknowledged and are lost at this stop", text, len(batch))
        return False

    def _reopen(self) -> None:
        """Open the database anew, after putting it aside if it is damaged indeed."""
        assert self._store is not None
        self._store.close()
        self._store = open_store(self._directory, self._durability, self._max_bytes, suspected=self._unreadable)
        self._ledger = Ledger.read(self._store)
        self._unreadable = ""


def _stats(epoch: str, counters: Counters) -> QueueStats:
    return QueueStats(epoch, **{name: getattr(counters, name) for name in Counters.__struct_fields__})


def _age_s(entry: Entry, now_ns: int) -> float:
    """How old an entry is at least: of another boot, it is older than this one."""
    seen_ns = entry.record.stamp.boot_ns if entry.boot == boot_id() else 0
    return (now_ns - seen_ns) / 1e9
