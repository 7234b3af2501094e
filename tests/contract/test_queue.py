"""The contract of the queue, kept by every implementation of it."""

import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.clock import Clock, Stamp
from agent.delivery.disk_queue import DiskQueue, QueueClosed, inspect
from agent.delivery.ledger import seal
from agent.delivery.record import Event, Lane, Telemetry
from agent.delivery.store import RawDisk, Store
from agent.errors import EdgepostError
from agent.health import PartHealth
from tests.support import ROOT, wait_until

MakeQueue = Callable[..., DiskQueue]
WAIT_S = 10.0


@pytest.fixture(params=[{}, {"commit_rows": 1}, {"commit_interval_s": 0.0}], ids=["default", "each row", "no pause"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeQueue]:
    """Opens queues on one directory; those left open are closed at the end."""
    opened: list[DiskQueue] = []

    def make_queue(**options: object) -> DiskQueue:
        settings = {"max_bytes": 2**20} | request.param | options
        queue = DiskQueue(tmp_path / "queue", PartHealth("queue"), **settings)
        queue.open()
        opened.append(queue)
        return queue

    yield make_queue
    for queue in opened:
        queue.close()


def telemetry(number: int, source: str = "gps", filler: str = "") -> Telemetry:
    values = {"number": number} | ({"filler": filler} if filler else {})
    return Telemetry(source, [(Clock().now(), values)])


def numbers(queue: DiskQueue, lane: Lane = Lane.TELEMETRY) -> list[object]:
    entries = queue.peek(lane, 0, 10_000)
    return [entry.record.readings[0][1]["number"] for entry in entries if isinstance(entry.record, Telemetry)]


def put(queue: DiskQueue, *values: int, **options: str) -> None:
    assert queue.put([telemetry(value, **options) for value in values]).wait(WAIT_S)


def test_what_was_put_is_peeked_in_order_as_often_as_one_likes(make: MakeQueue) -> None:
    queue = make()
    put(queue, *range(50))
    put(queue, *range(50, 100))
    assert numbers(queue) == list(range(100))
    assert numbers(queue) == list(range(100))


def test_peek_goes_on_after_a_key_and_stops_at_the_limit(make: MakeQueue) -> None:
    queue = make()
    put(queue, *range(10))
    first = queue.peek(Lane.TELEMETRY, 0, 4)
    assert [entry.seq for entry in first] == [1, 2, 3, 4]
    assert [entry.seq for entry in queue.peek(Lane.TELEMETRY, first[-1].key, 100)] == [5, 6, 7, 8, 9, 10]


def test_what_was_acknowledged_is_never_peeked_again_not_even_before_it_is_on_disk(make: MakeQueue) -> None:
    queue = make(commit_interval_s=5.0, commit_rows=1000)
    put(queue, 1, 2, 3)
    first = queue.peek(Lane.TELEMETRY, 0, 1)[0]
    ticket = queue.acknowledge([first.key])
    assert numbers(queue) == [2, 3]
    queue.close()
    assert ticket.done
    assert numbers(make()) == [2, 3]


def test_what_was_not_acknowledged_is_there_after_a_reopen(make: MakeQueue) -> None:
    queue = make()
    put(queue, 1, 2, 3)
    queue.close()
    assert numbers(make()) == [1, 2, 3]


def test_seq_counts_per_topic_and_never_restarts_though_the_queue_drained_and_reopened(make: MakeQueue) -> None:
    queue = make()
    ticket = queue.put([telemetry(1, "gps"), telemetry(2, "gps"), telemetry(3, "cpu")])
    assert ticket.wait(WAIT_S)
    assert ticket.seqs == [1, 2, 1]
    epoch = queue.epoch
    queue.acknowledge([entry.key for entry in queue.peek(Lane.TELEMETRY, 0, 10)]).wait(WAIT_S)
    queue.close()
    reopened = make()
    assert reopened.epoch == epoch
    assert reopened.is_empty()
    ticket = reopened.put([telemetry(4, "gps"), telemetry(5, "cpu")])
    assert ticket.wait(WAIT_S)
    assert ticket.seqs == [3, 2]


def test_a_ticket_is_done_only_once_another_process_can_read_the_record(make: MakeQueue, tmp_path: Path) -> None:
    queue = make()
    for count in range(1, 6):
        put(queue, count)
        assert inspect(tmp_path / "queue").waiting == count


def test_lanes_are_apart(make: MakeQueue) -> None:
    queue = make()
    event = Event("gate", "motion", {"boxes": [1, 2]}, Clock().now())
    assert queue.put([telemetry(1), event]).wait(WAIT_S)
    assert [entry.record for entry in queue.peek(Lane.EVENT, 0, 10)] == [event]
    assert numbers(queue) == [1]
    assert queue.peek(Lane.IMAGE, 0, 10) == []


def test_a_rejected_entry_is_put_aside_and_holds_up_nobody(make: MakeQueue) -> None:
    queue = make()
    put(queue, 1, 2)
    assert queue.reject(queue.peek(Lane.TELEMETRY, 0, 1)[0].key, "the broker refuses the topic").wait(WAIT_S)
    assert numbers(queue) == [2]
    assert queue.stats().dead == 1
    queue.close()
    assert numbers(make()) == [2]


def test_a_full_queue_drops_the_oldest_and_counts_each(make: MakeQueue) -> None:
    queue = make(max_bytes=20_000, commit_interval_s=0.0)
    for number in range(100):
        put(queue, number, filler="x" * 1000)
    left = numbers(queue)
    stats = queue.stats()
    assert left == list(range(100 - len(left), 100))
    assert stats.waiting_bytes <= 20_000
    assert stats.dropped == {"telemetry/queue_full": 100 - len(left)}
    assert len(left) == stats.waiting


def test_the_least_urgent_lane_is_dropped_first(make: MakeQueue) -> None:
    queue = make(max_bytes=20_000, commit_interval_s=0.0)
    assert queue.put([Event("gate", "motion", "x" * 5000, Clock().now())]).wait(WAIT_S)
    for number in range(50):
        put(queue, number, filler="x" * 1000)
    assert len(queue.peek(Lane.EVENT, 0, 10)) == 1


def test_what_was_dropped_on_its_way_and_arrived_is_not_counted_as_lost(make: MakeQueue) -> None:
    queue = make(max_bytes=3000)
    put(queue, 1, filler="x" * 1000)
    under_way = queue.peek(Lane.TELEMETRY, 0, 1)[0]
    put(queue, 2, filler="x" * 1000)
    put(queue, 3, filler="x" * 1000)
    assert queue.stats().dropped == {"telemetry/queue_full": 1}
    assert queue.acknowledge([under_way.key]).wait(WAIT_S)
    assert queue.stats().dropped == {"telemetry/queue_full": 0}


def test_a_queue_that_may_not_drop_makes_the_producer_wait_for_room(make: MakeQueue) -> None:
    queue = make(max_bytes=3000, may_drop=False)
    put(queue, 1, filler="x" * 1000)
    put(queue, 2, filler="x" * 1000)
    held = queue.put([telemetry(3, filler="x" * 1000)])
    assert not held.wait(0.5)
    queue.acknowledge([queue.peek(Lane.TELEMETRY, 0, 1)[0].key])
    assert held.wait(WAIT_S)
    assert numbers(queue) == [2, 3]


def test_closing_commits_what_is_pending_and_takes_nothing_more(make: MakeQueue) -> None:
    queue = make(commit_interval_s=5.0, commit_rows=1000)
    put(queue, 1)
    tickets = [queue.put([telemetry(number)]) for number in range(2, 20)]
    queue.close()
    queue.close()
    assert all(ticket.done for ticket in tickets)
    with pytest.raises(QueueClosed):
        queue.put([telemetry(99)])
    assert numbers(make()) == list(range(1, 20))


def test_many_producers_lose_and_mix_up_nothing(make: MakeQueue) -> None:
    queue = make()

    def produce(source: str) -> None:
        for number in range(100):
            queue.put([telemetry(number, source)])

    threads = [threading.Thread(target=produce, args=(f"s{index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    wait_until(lambda: queue.stats().waiting == 800, "all are on disk")
    by_source: dict[str, list[int]] = {}
    for entry in queue.peek(Lane.TELEMETRY, 0, 1000):
        assert isinstance(entry.record, Telemetry)
        by_source.setdefault(entry.record.source, []).append(entry.seq)
    assert by_source == {f"s{index}": list(range(1, 101)) for index in range(8)}


def test_a_kill_loses_nothing_whose_ticket_was_done(make: MakeQueue, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from agent.delivery.disk_queue import DiskQueue
from agent.health import PartHealth
from tests.contract.test_queue import telemetry
queue = DiskQueue(Path(sys.argv[1]), PartHealth("queue"), max_bytes=2**30)
queue.open()
number = 0
while True:
    tickets = []
    for _ in range(20):
        number += 1
        tickets.append((number, queue.put([telemetry(number)])))
    for done, ticket in tickets:
        if ticket.wait(10):
            print(done, flush=True)
"""
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "queue")], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(55)]
        process.kill()
        acknowledged += [int(line) for line in process.stdout.read().split()]
        process.wait(10)
        process.stdout.close()
        queue = make()
        kept = numbers(queue)
        queue.acknowledge([entry.key for entry in queue.peek(Lane.TELEMETRY, 0, 100_000)]).wait(WAIT_S)
        queue.close()
        assert kept[: len(acknowledged)] == acknowledged


def test_a_damaged_row_is_put_aside_and_the_others_are_read(make: MakeQueue, tmp_path: Path) -> None:
    queue = make()
    put(queue, 1, 2, 3)
    key = queue.peek(Lane.TELEMETRY, 0, 3)[1].key
    queue.close()
    database = sqlite3.connect(tmp_path / "queue/cache.db")
    (value,) = database.execute("SELECT value FROM Cache WHERE key = ?", (key,)).fetchone()
    database.execute("UPDATE Cache SET value = ? WHERE key = ?", (value[:-1] + b"\xff", key))
    database.commit()
    database.close()
    queue = make()
    assert numbers(queue) == [1, 3]
    wait_until(lambda: queue.stats().dead == 1, "the damaged row is counted")


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('a pickle was run')",))


def test_a_poisoned_database_is_refused_and_never_unpickled(make: MakeQueue, tmp_path: Path) -> None:
    queue = make()
    put(queue, 1)
    key = queue.peek(Lane.TELEMETRY, 0, 1)[0].key
    queue.close()
    database = sqlite3.connect(tmp_path / "queue/cache.db")
    database.execute("UPDATE Cache SET mode = 4, value = ? WHERE key = ?", (pickle.dumps(_Bomb()), key))
    database.commit()
    database.close()
    queue = make()
    assert numbers(queue) == []
    wait_until(lambda: queue.stats().dead == 1, "the poisoned row is put aside")


@pytest.mark.parametrize("value", ["text", 1, None, {"a": 1}, bytearray(b"x")])
def test_the_store_takes_bytes_only(tmp_path: Path, value: object) -> None:
    store = Store(tmp_path, "power", 2**20)
    with pytest.raises(TypeError, match="must be bytes"):
        store.set("key", value)
    with pytest.raises(TypeError, match="must be int or str"):
        store.set(("a", "tuple"), b"value")
    store.close()
    assert RawDisk(str(tmp_path)).put("key") == ("key", True)


def test_inspecting_where_there_is_no_queue_says_so(tmp_path: Path) -> None:
    with pytest.raises(EdgepostError, match="there is no queue here"):
        inspect(tmp_path)


def test_what_is_older_than_the_age_limit_is_dropped_and_counted(make: MakeQueue) -> None:
    queue = make(max_age_s=60.0)
    now_ns = Clock().boot_ns()
    for age_s in (300, 100, 61, 59, 0):
        record = Telemetry("gps", [(Stamp(now_ns - age_s * 10**9, 0), {"number": age_s})])
        assert queue.put([record]).wait(WAIT_S)
    queue.expire(now_ns)
    wait_until(lambda: queue.stats().dropped == {"telemetry/too_old": 3}, "they are counted")
    assert numbers(queue) == [59, 0]


def test_without_an_age_limit_nothing_is_too_old(make: MakeQueue) -> None:
    queue = make()
    assert queue.put([Telemetry("gps", [(Stamp(0, 0), {"number": 1})])]).wait(WAIT_S)
    queue.expire(Clock().boot_ns())
    assert numbers(queue) == [1]


def test_a_damaged_database_is_kept_aside_and_what_can_be_read_of_it_goes_on(make: MakeQueue, tmp_path: Path) -> None:
    queue = make()
    for number in range(200):
        queue.put([telemetry(number, filler="x" * 500)])
    epoch = queue.epoch
    queue.close()
    database = tmp_path / "queue/cache.db"
    content = bytearray(database.read_bytes())
    for page in range(8, len(content) // 4096, 4):
        content[page * 4096 : page * 4096 + 2048] = bytes(2048)
    database.write_bytes(content)
    queue = make()

    def readable() -> list[object] | None:
        try:
            return numbers(queue)
        except EdgepostError:  # found damaged just now, and about to be put aside
            return None

    kept = wait_until(readable, "the rest can be read")
    assert queue.epoch != epoch
    assert queue.stats().damaged == 1
    assert 100 < len(kept) < 200
    assert kept == sorted(set(kept)), "what was saved is in order"
    assert [path.name for path in tmp_path.glob("queue/damaged-*/cache.db")]
    ticket = queue.put([telemetry(1000)])
    assert ticket.wait(WAIT_S)
    assert ticket.epoch == queue.epoch


def test_what_is_no_database_at_all_is_kept_aside(make: MakeQueue, tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue/cache.db").write_bytes(b"this was a database once" * 1000)
    queue = make()
    put(queue, 1)
    assert numbers(queue) == [1]
    (aside,) = tmp_path.glob("queue/damaged-*/cache.db")
    assert aside.read_bytes().startswith(b"this was a database once")


def test_a_backlog_keeps_the_epoch_that_it_was_given(make: MakeQueue, tmp_path: Path) -> None:
    queue = make()
    put(queue, 1)
    epoch = queue.epoch
    queue.close()
    database = sqlite3.connect(tmp_path / "queue/cache.db")
    database.execute("UPDATE Cache SET value = ? WHERE key = 'epoch'", (seal(b"another epoch"),))
    database.commit()
    database.close()
    queue = make()
    put(queue, 2)
    assert [entry.epoch for entry in queue.peek(Lane.TELEMETRY, 0, 10)] == [epoch, "another epoch"]


@pytest.mark.parametrize("durability", ["power", "process"])
def test_each_durability_asks_sqlite_for_what_it_promises(make: MakeQueue, durability: str) -> None:
    queue = make(durability=durability)
    assert queue._committer.store is not None
    ((synchronous,),) = queue._committer.store._sql("PRAGMA synchronous").fetchall()
    assert synchronous == {"power": 2, "process": 1}[durability]
