"""What the queue promises when a record, a disk or another program does not do its part."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.clock import Clock
from agent.delivery import committer
from agent.delivery.disk_queue import DiskQueue, Unstorable
from agent.delivery.record import Event, Lane, Telemetry
from agent.health import PartHealth
from tests.contract.test_queue import numbers, put, telemetry
from tests.support import wait_until


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[DiskQueue]:
    opened = make(tmp_path)
    yield opened
    opened.close()


def make(tmp_path: Path, **options: Any) -> DiskQueue:
    queue = DiskQueue(tmp_path / "queue", PartHealth("queue"), **({"max_bytes": 2**24} | options))
    queue.open()
    return queue


def nested(depth: int) -> Any:
    data: Any = 1
    for _ in range(depth):
        data = [data]
    return data


@pytest.mark.parametrize("data", [2**70, nested(100_000), object()], ids=["64 bits", "depth", "type"])
def test_what_no_message_can_hold_is_refused_to_its_producer_and_the_queue_goes_on(queue: DiskQueue, data: Any) -> None:
    with pytest.raises(Unstorable):
        queue.put([Event("a", "x", data, Clock().now())])
    put(queue, 1)
    assert numbers(queue) == [1]


def test_a_record_larger_than_the_queue_is_refused(queue: DiskQueue) -> None:
    with pytest.raises(Unstorable, match="larger than the whole queue"):
        queue.put([Event("a", "x", "y" * 2**25, Clock().now())])


def test_a_record_that_was_nested_too_deep_to_be_read_back_is_put_aside(queue: DiskQueue) -> None:
    ticket = queue.put([Event("a", "x", nested(900), Clock().now())])
    assert ticket.wait(10)
    assert queue.put([Event("a", "y", 1, Clock().now())]).wait(10)

    def deep(number: int) -> Any:
        return deep(number - 1) if number else queue.peek(Lane.EVENT, 0, 10)

    entries = deep(300)
    assert [entry.record.type for entry in entries if isinstance(entry.record, Event)][-1] == "y"


def test_a_commit_that_fails_is_tried_again_with_everything_in_it(
    queue: DiskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "RETRY_S", 0.05)
    store = queue._committer.store
    assert store is not None
    transact, failures = store.transact, iter([sqlite3.OperationalError("disk I/O error")] * 3)

    def failing(*arguments: Any, **options: Any) -> Any:
        for error in failures:
            raise error
        return transact(*arguments, **options)

    monkeypatch.setattr(store, "transact", failing)
    tickets = [queue.put([telemetry(number)]) for number in range(5)]
    assert all(ticket.wait(10) for ticket in tickets)
    assert numbers(queue) == [0, 1, 2, 3, 4]
    assert [ticket.seqs for ticket in tickets] == [[1], [2], [3], [4], [5]]


def test_a_full_queue_that_may_not_drop_stops_in_time_and_does_not_spin(tmp_path: Path) -> None:
    queue = make(tmp_path, max_bytes=2000, may_drop=False, commit_interval_s=0.01)
    for number in range(200):
        queue.put([telemetry(number, filler="x" * 200)])
    wait_until(lambda: queue.stats().waiting > 3, "it is full")
    used, began = time.process_time(), time.monotonic()
    time.sleep(1.0)
    assert (time.process_time() - used) / (time.monotonic() - began) < 0.05, "under 5 % is the promise"
    closer = threading.Thread(target=queue.close)
    closer.start()
    closer.join(10)
    assert not closer.is_alive()


def test_held_messages_keep_their_order_and_their_seqs(tmp_path: Path) -> None:
    queue = make(tmp_path, max_bytes=1000, may_drop=False, commit_interval_s=0.0)
    tickets = [queue.put([telemetry(number, filler="x" * 200)]) for number in range(20)]
    arrived: list[object] = []

    def drain() -> bool:
        for entry in queue.peek(Lane.TELEMETRY, 0, 10):
            assert isinstance(entry.record, Telemetry)
            arrived.append((entry.seq, entry.record.readings[0][1]["number"]))
            queue.acknowledge([entry.key])
        return tickets[-1].done and queue.is_empty()

    wait_until(drain, "all have gone through")
    assert arrived == [(number + 1, number) for number in range(20)]
    queue.close()


def test_memory_for_what_is_pending_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "MAX_PENDING_BYTES", 10_000)
    queue = make(tmp_path, commit_interval_s=0.5, commit_rows=10_000)
    put(queue, 0)
    began = time.monotonic()
    for number in range(1, 40):
        queue.put([telemetry(number, filler="x" * 1000)])
    assert time.monotonic() - began > 0.5, "the producer has had to wait for a commit"
    queue.close()
    assert numbers_of(tmp_path) == list(range(40))


def numbers_of(tmp_path: Path) -> list[object]:
    queue = make(tmp_path)
    found = numbers(queue)
    queue.close()
    return found


@pytest.mark.parametrize(
    ("row", "new_epoch"), [("counters", False), ("epoch", True), ("seq/telemetry/gps", True)], ids=str
)
def test_a_damaged_figure_is_noticed_and_made_anew(tmp_path: Path, row: str, new_epoch: bool) -> None:
    queue = make(tmp_path)
    put(queue, *range(5))
    epoch, before = queue.epoch, queue.stats()
    queue.close()
    database = sqlite3.connect(tmp_path / "queue/cache.db")
    (value,) = database.execute("SELECT value FROM Cache WHERE key = ?", (row,)).fetchone()
    flipped = value[:-1] + bytes([value[-1] ^ 1])
    database.execute("UPDATE Cache SET value = ? WHERE key = ?", (flipped, row))
    database.commit()
    database.close()
    queue = make(tmp_path)
    assert (queue.epoch != epoch) == new_epoch
    assert (queue.stats().waiting, queue.stats().waiting_bytes) == (before.waiting, before.waiting_bytes)
    assert numbers(queue) == list(range(5))
    put(queue, 5)
    queue.close()


def test_what_is_rejected_after_it_was_dropped_stays_counted_as_dropped(tmp_path: Path) -> None:
    queue = make(tmp_path, max_bytes=3000)
    put(queue, 1, filler="x" * 1000)
    under_way = queue.peek(Lane.TELEMETRY, 0, 1)[0]
    put(queue, 2, filler="x" * 1000)
    put(queue, 3, filler="x" * 1000)
    assert queue.reject(under_way.key, "refused").wait(10)
    assert queue.stats().dropped == {"telemetry/queue_full": 1}
    queue.close()


def test_another_program_that_holds_the_database_delays_nothing_but_the_commit(tmp_path: Path) -> None:
    queue = make(tmp_path)
    put(queue, 1)
    other = sqlite3.connect(tmp_path / "queue/cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ticket = queue.put([telemetry(2)])
    assert not ticket.wait(0.5)
    assert numbers(queue) == [1]
    other.execute("ROLLBACK")
    other.close()
    assert ticket.wait(10)
    queue.close()


def test_a_directory_that_can_not_be_written_is_refused_in_words(tmp_path: Path) -> None:
    from agent.errors import EdgepostError

    (tmp_path / "queue").write_text("a file stands in its place")
    with pytest.raises(EdgepostError, match="the queue can't be opened"):
        make(tmp_path)


def test_eviction_and_expiry_are_off_for_good(queue: DiskQueue, tmp_path: Path) -> None:
    put(queue, 1)
    settings = dict(
        sqlite3.connect(f"file:{tmp_path}/queue/cache.db?mode=ro", uri=True)
        .execute("SELECT key, value FROM Settings")
        .fetchall()
    )
    assert settings["eviction_policy"] == "none"
    assert settings["cull_limit"] == 0
    assert settings["sqlite_mmap_size"] == 0


def test_commits_are_no_more_frequent_than_the_interval(tmp_path: Path) -> None:
    queue = make(tmp_path, commit_interval_s=0.2, commit_rows=10_000)
    commits: list[float] = []
    queue.on_commit(lambda: commits.append(time.monotonic()))
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        queue.put([telemetry(1)])
        time.sleep(0.005)
    queue.close()
    assert 2 <= len(commits) <= 8
    assert queue.stats().put > 50


def test_an_operation_that_fails_for_a_reason_of_its_own_does_not_stop_the_queue(
    queue: DiskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended = committer.Ledger.put

    def faulty(self: Any, store: Any, items: Any, *arguments: Any, **options: Any) -> Any:
        if any(b"poison" in each.body for each in items):
            raise KeyError("a fault of ours")
        return appended(self, store, items, *arguments, **options)

    monkeypatch.setattr(committer.Ledger, "put", faulty)
    tickets = [queue.put([telemetry(number)]) for number in range(5)]
    poisoned = queue.put([telemetry(99, filler="poison")])
    tickets += [queue.put([telemetry(number)]) for number in range(5, 10)]
    assert all(ticket.wait(10) for ticket in tickets)
    assert not poisoned.done
    assert numbers(queue) == list(range(10))
    assert queue.put([telemetry(10)]).wait(10)
