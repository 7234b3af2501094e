"""The thread that writes the disk queue: gathers operations, commits them together, and goes on when a disk fails.

- At most one commit in `commit_interval_s`, or earlier when `commit_rows` have gathered; the first after a pause goes
  at once.
- A commit that fails is tried again with everything that was in it. When the disk is full, what makes room is committed
  first and alone, and the rest in smaller and smaller parts; the ballast is given up, and new messages replace the
  oldest in the pages that those leave.
- What has to wait for room (`may_drop` is False) is held until something was removed.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.delivery.ledger import BY_USER, Counters, Item, Ledger, Refused
from agent.delivery.record import Ticket
from agent.delivery.recovery import Ballast, is_damage, is_full, open_store
from agent.delivery.store import CorruptStore, Durability, Store, StoreError, cause
from agent.errors import EdgepostError
from agent.health import PartHealth

log = logging.getLogger(__name__)

MAX_PENDING_ROWS = 20_000
MAX_PENDING_BYTES = 16 * 1024 * 1024
RETRY_S = 1.0
CLOSE_S = 3.0
DROP_LOG_S = 60.0


class QueueClosed(EdgepostError):
    """The queue takes nothing any more: the agent is stopping."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How the queue is kept."""

    max_bytes: int
    may_drop: bool = True
    max_age_s: float | None = None
    durability: Durability = "power"
    commit_interval_s: float = 0.1
    commit_rows: int = 64


class Put(msgspec.Struct, frozen=True, eq=False):
    """Append messages."""

    items: Sequence[Item]
    ticket: Ticket
    size: int


class Remove(msgspec.Struct, frozen=True, eq=False):
    """Delete messages: delivered, or put aside as `dead`, or `dropped`, for the reason given."""

    keys: Sequence[int]
    ticket: Ticket
    dead: str = ""
    dropped: str = ""
    size: int = 0


class Change(msgspec.Struct, eq=False):
    """Whatever else was asked for: `apply` writes inside the transaction, or raises Refused and has written nothing.

    It may be called again when a commit fails. `error` says why nothing was done.
    """

    apply: Callable[[Ledger, Store], Any]
    ticket: Ticket
    size: int = 0
    result: Any = None
    error: str = ""


Operation = Put | Remove | Change


class Committer:
    """Owns the database and its figures. `changed` guards everything that other threads look at."""

    def __init__(self, directory: Path, health: PartHealth, options: Options) -> None:
        self.changed = threading.Condition()
        self.settled: set[int] = set()  # removed, the deletion not yet on disk: not to be sent again
        self.ledger = Ledger("", Counters(), {}, {})
        self.store: Store | None = None
        self.peak = 0
        self.listeners: list[Callable[[], None]] = []
        self._directory = directory
        self._health = health
        self._options = options
        self._pending: list[Operation] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._held: list[Operation] = []
        self._closing = False
        self._ballast = Ballast(directory)
        self._disk_full = False
        self._unreadable = ""  # why the database seemed damaged when it was last read or written
        self._drops_logged_at = -DROP_LOG_S
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    @property
    def pending_rows(self) -> int:
        """What was asked and is not on disk yet."""
        return self._pending_rows

    def open(self) -> None:
        """Open the database and start; raises EdgepostError when it can't be used."""
        try:
            self.store = open_store(self._directory, self._options.durability, self._options.max_bytes)
            self.ledger = Ledger.read(self.store)
            self.store.close()  # this thread's connection; each opens its own
        except (*StoreError, CorruptStore) as error:
            raise EdgepostError(
                f"{self._directory}: the queue can't be opened ({cause(error)}): see that the directory is yours, "
                f"writable and not full, or name another --data-dir"
            ) from error
        self._ballast.take_on()
        self._thread.start()

    def close(self) -> None:
        """Commit what is pending and end, within CLOSE_S; safe twice and after a failed open."""
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        if self.store is not None:
            self.store.close()

    def add(self, operation: Operation) -> None:
        """Ask for something to be written; a producer waits while too much is pending. Raises QueueClosed."""
        with self.changed:
            if not isinstance(operation, Remove):
                self.changed.wait_for(lambda: self._has_room() or self._closing)
                if self._closing:
                    raise QueueClosed("the agent is stopping and takes no more data")
            else:
                self.settled.update(operation.keys)
            self._pending.append(operation)
            self._count(operation, 1)
            if len(self._pending) == 1 or self._pending_rows >= self._options.commit_rows:
                self.changed.notify_all()

    def suspect(self, error: Exception) -> None:
        """Somebody could not read: have the database looked at if it seems damaged."""
        with self.changed:
            self._unreadable = str(cause(error)) if is_damage(error) else ""
            self.changed.notify_all()

    def _has_room(self) -> bool:
        return self._pending_rows < MAX_PENDING_ROWS and self._pending_bytes < MAX_PENDING_BYTES

    def _count(self, operation: Operation, sign: int) -> None:
        self._pending_rows += sign * operation.ticket.count
        self._pending_bytes += sign * operation.size

    def _run(self) -> None:
        try:
            self._commit_until_closed()
        finally:
            if self.store is not None:
                self.store.close()  # this thread's connection

    def _commit_until_closed(self) -> None:
        due = 0.0
        while (batch := self._next_batch(due)) or self._unreadable:
            due = time.monotonic() + self._options.commit_interval_s
            try:
                if self._unreadable:
                    self._reopen()
                self._write(batch)
            except (*StoreError, CorruptStore) as error:
                if not self._try_again(batch, error):
                    break
        self._give_up_held()

    def _next_batch(self, due: float) -> list[Operation]:
        """Wait until there is work and it is due; an empty batch ends the thread, or has the database looked at."""
        with self.changed:
            self.changed.wait_for(lambda: self._pending or self._closing or self._unreadable)
            self.changed.wait_for(
                lambda: (
                    self._pending_rows - sum(op.ticket.count for op in self._held) >= self._options.commit_rows
                    or self._closing
                ),
                max(0.0, due - time.monotonic()),
            )
            batch, self._pending = self._pending, []
        if self._held and not all(isinstance(operation, Put) for operation in batch):
            batch[:0], self._held = self._held, []  # there may be room now
        return batch

    def _write(self, batch: list[Operation]) -> None:
        """Commit a batch, in parts where the disk is full; what was committed leaves it, also when the rest fails."""
        size = len(batch)
        while batch:
            part = batch[:size]
            try:
                self._commit(part)
            except StoreError as error:
                if is_full(error) and len(part) == 1 and self._gives_up(part[0]):
                    del batch[0]
                    continue
                if not is_full(error) or len(part) == 1:
                    raise
                self._make_do()
                batch.sort(key=lambda operation: not isinstance(operation, Remove))  # removals first: they make room
                removals = sum(isinstance(operation, Remove) for operation in part)
                size = removals if 0 < removals < len(part) else len(part) // 2
            except CorruptStore:
                raise
            except Exception as error:  # noqa: BLE001 (a fault of ours must not stop the queue for everybody)
                size = max(1, len(part) // 2)
                if len(part) == 1:
                    self._set_aside(batch.pop(0), error)
            else:
                del batch[: len(part)]

    def _commit(self, batch: Sequence[Operation]) -> None:
        """Write a batch in one transaction and tell everybody; puts that have to wait for room are held."""
        assert self.store is not None
        ledger = self.ledger.copy()
        held: list[Operation] = []
        with self.store.transact():
            for operation in batch:  # removals first: they make room
                if isinstance(operation, Remove):
                    ledger.remove(self.store, operation.keys, dead=operation.dead, dropped=operation.dropped)
            for operation in batch:
                if isinstance(operation, Change):
                    _apply(operation, ledger, self.store)
            limit = self._options.max_bytes
            if self._disk_full:
                limit = min(limit, ledger.counters.waiting_bytes)
            for operation in batch:
                if isinstance(operation, Put):
                    seqs = (
                        None
                        if held or self._held  # nobody overtakes who waits for room
                        else ledger.put(self.store, operation.items, limit, may_drop=self._options.may_drop)
                    )
                    if seqs is None:
                        held.append(operation)
                    else:
                        operation.ticket.epoch, operation.ticket.seqs = ledger.epoch, seqs
            if len(held) < len(batch):
                ledger.write(self.store)
        dropped = _lost(ledger) - _lost(self.ledger)
        self._committed(batch, held, ledger)
        if dropped > 0:
            self._tell_of_drops()

    def _committed(self, batch: Sequence[Operation], held: list[Operation], ledger: Ledger) -> None:
        waiting = {id(operation) for operation in held}
        with self.changed:
            self.ledger = ledger
            for operation in batch:
                if id(operation) in waiting:
                    continue
                self._count(operation, -1)
                if isinstance(operation, Remove):
                    self.settled.difference_update(operation.keys)
                operation.ticket.done = True
            self._held += held
            self.peak = max(self.peak, ledger.counters.waiting)
            self.changed.notify_all()
        if self._disk_full and self._ballast.take_on():
            self._disk_full = False
            log.warning("queue: %s: there is room again", self._directory)
        self._health.ok()
        for listener in self.listeners:
            listener()

    def _try_again(self, batch: list[Operation], error: Exception) -> bool:
        """Keep the batch for later; False when the queue is closing and it can't be kept."""
        assert self.store is not None
        text = f"{self._directory}: the disk takes nothing ({cause(error)})"
        if self._health.failed(text):
            log.warning("queue: %s; kept in memory and tried again", text)
        self.store.close()  # this thread's connection: the next one starts from what is on disk
        if is_full(error):
            self._make_do()
        self._unreadable = str(cause(error)) if is_damage(error) else ""
        with self.changed:
            self._pending[:0] = batch
            if not self._closing:
                self.changed.wait_for(lambda: self._closing, RETRY_S)
                return True
        log.error("queue: %s; messages lost that were never acknowledged: %d", text, self._pending_rows)
        return False

    def _gives_up(self, operation: Operation) -> bool:
        """Whether an operation need not wait for room, because its author is there to be told."""
        if not isinstance(operation, Change) or not self._disk_full:
            return False
        operation.error = "the disk is full: make room on it, or `edgepost queue drop` messages"
        with self.changed:
            self._count(operation, -1)
            operation.ticket.done = True
            self.changed.notify_all()
        return True

    def _set_aside(self, operation: Operation, error: Exception) -> None:
        """Go on without an operation that can't be carried out; it is never acknowledged to who asked for it."""
        log.error("queue: an operation failed and is left out: %r", error)
        self._health.failed(repr(error))
        with self.changed:
            self._count(operation, -1)
            if isinstance(operation, Change):
                operation.error = repr(error)
                operation.ticket.done = True
            self.changed.notify_all()

    def _make_do(self) -> None:
        """The disk is full: from now on what comes replaces the oldest, in the pages that it leaves."""
        self._disk_full = True
        self._ballast.drop()

    def _reopen(self) -> None:
        """Open the database anew, after putting it aside if it is damaged indeed."""
        assert self.store is not None
        self.store.close()
        store = open_store(
            self._directory, self._options.durability, self._options.max_bytes, suspected=self._unreadable
        )
        ledger = Ledger.read(store)
        with self.changed:
            self.store, self.ledger, self._unreadable = store, ledger, ""

    def _give_up_held(self) -> None:
        if self._held:
            log.error("queue: full at the stop; messages lost that waited for room: %d", len(self._held))

    def _tell_of_drops(self) -> None:
        if time.monotonic() - self._drops_logged_at >= DROP_LOG_S:
            self._drops_logged_at = time.monotonic()
            log.error("queue: full: the oldest messages are dropped; so far %s", self.ledger.counters.dropped)


def _apply(change: Change, ledger: Ledger, store: Store) -> None:
    try:
        change.result = change.apply(ledger, store)
    except Refused as error:
        change.error = str(error)


def _lost(ledger: Ledger) -> int:
    """What was dropped and nobody asked for it."""
    dropped = ledger.counters.dropped
    return sum(count for what, count in dropped.items() if not what.endswith(BY_USER))
