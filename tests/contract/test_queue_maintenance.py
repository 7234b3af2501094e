"""What a person may change in the queue by hand: nothing is lost, and what goes back is the same message."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.clock import Clock, Stamp
from agent.delivery import inspection
from agent.delivery.disk_queue import DiskQueue
from agent.delivery.interchange import encode, parse, to_line, to_stored
from agent.delivery.ledger import Refused, Stored
from agent.delivery.record import Entry, Event, Lane, Telemetry
from agent.delivery.requests import answer
from agent.health import PartHealth

WAIT_S = 10.0


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[DiskQueue]:
    opened = DiskQueue(tmp_path / "queue", PartHealth("queue"), max_bytes=2**20)
    opened.open()
    yield opened
    opened.close()


def put(queue: DiskQueue, *numbers: int, age_s: float = 0.0, filler: str = "") -> None:
    now = Clock().now()
    stamp = Stamp(now.boot_ns - int(age_s * 1e9), now.real_ns - int(age_s * 1e9))
    records = [Telemetry("gps", [(stamp, {"number": number, "filler": filler})]) for number in numbers]
    assert queue.put(records).wait(WAIT_S)


def waiting(queue: DiskQueue, lane: Lane = Lane.TELEMETRY) -> list[Entry]:
    return queue.peek(lane, 0, 10_000)


def seqs(queue: DiskQueue) -> list[int]:
    return [entry.seq for entry in waiting(queue)]


def bury(queue: DiskQueue, *places: int) -> None:
    for entry in [waiting(queue)[place] for place in places]:
        assert queue.reject(entry.key, "too large").wait(WAIT_S)


def exported(queue: DiskQueue) -> list[Stored]:
    return [to_stored(parse(encode(to_line(entry)))) for entry in waiting(queue)]


def test_a_requeued_message_goes_to_the_end_of_its_lane_under_its_old_epoch_and_seq(
    queue: DiskQueue, tmp_path: Path
) -> None:
    put(queue, 1, 2, 3)
    before = waiting(queue)[0]
    bury(queue, 0)
    assert queue.requeue([1]).moved == 1
    after = waiting(queue)
    assert [entry.seq for entry in after] == [2, 3, 1]
    assert msgspec.structs.replace(after[-1], key=before.key) == before
    assert list(inspection.dead(tmp_path / "queue")) == []


def test_requeue_all_moves_every_dead_message_and_counts_it_as_waiting(queue: DiskQueue) -> None:
    put(queue, 1, 2, 3)
    size = queue.stats().waiting_bytes
    bury(queue, 0, 2)
    assert queue.requeue(None).moved == 2
    assert seqs(queue) == [2, 1, 3]
    assert (queue.stats().waiting, queue.stats().waiting_bytes) == (3, size)


def test_an_unknown_dead_number_is_refused_and_nothing_moves(queue: DiskQueue) -> None:
    put(queue, 1, 2)
    bury(queue, 0)
    for change in (queue.requeue, queue.delete_dead):
        with pytest.raises(Refused, match="there is no dead message 7: see `edgepost queue dead`"):
            change([1, 7])
    assert seqs(queue) == [2]
    assert queue.requeue([1]).moved == 1


def test_a_deleted_dead_message_is_gone_and_its_number_is_not_given_again(queue: DiskQueue, tmp_path: Path) -> None:
    put(queue, 1, 2, 3)
    bury(queue, 0, 1)
    assert queue.delete_dead(None) == 2
    bury(queue, 0)
    assert [row.number for row in inspection.dead(tmp_path / "queue")] == [3]


def test_a_damaged_dead_message_stays_and_the_others_go_back(queue: DiskQueue, tmp_path: Path) -> None:
    put(queue, 1, 2)
    bury(queue, 0, 1)
    with sqlite3.connect(tmp_path / "queue/cache.db") as database:
        database.execute("UPDATE Cache SET value = x'0102030405' WHERE key = 'dead/000000000001'")
    database.close()
    with pytest.raises(Refused, match="dead message 1 is damaged"):
        queue.requeue([1])
    result = queue.requeue(None)
    assert (result.moved, result.damaged) == (1, [1])
    assert [row.entry for row in inspection.dead(tmp_path / "queue")] == [None]


def test_what_is_exported_dropped_and_restored_is_the_same_message(queue: DiskQueue) -> None:
    put(queue, 1, 2)
    event = Event("gate", "motion", {"boxes": [1, 2.5, None, "ü"]}, Clock().now(), 1763905000123.5)
    assert queue.put([event]).wait(WAIT_S)
    names = [(entry.epoch, entry.seq, entry.boot, entry.record) for lane in Lane for entry in waiting(queue, lane)]
    lines = [to_stored(parse(encode(to_line(entry)))) for lane in Lane for entry in waiting(queue, lane)]
    for lane in Lane:
        queue.drop(lane, 0, 2**60)
    assert queue.is_empty()
    assert queue.restore(lines) == 3
    after = [(entry.epoch, entry.seq, entry.boot, entry.record) for lane in Lane for entry in waiting(queue, lane)]
    assert [each[:3] for each in after] == [each[:3] for each in names]
    assert after[0][3] == event


def test_a_seq_that_was_restored_is_never_given_to_a_new_message(queue: DiskQueue) -> None:
    put(queue, 1)
    ahead = msgspec.structs.replace(exported(queue)[0], seq=50)
    queue.restore([ahead])
    put(queue, 2)
    assert seqs(queue) == [1, 50, 51]


def test_a_restored_message_of_another_epoch_leaves_the_seqs_alone(queue: DiskQueue) -> None:
    put(queue, 1)
    queue.restore([msgspec.structs.replace(exported(queue)[0], seq=50, epoch="another")])
    put(queue, 2)
    assert [(entry.epoch, entry.seq) for entry in waiting(queue)][1:] == [("another", 50), (queue.epoch, 2)]


def test_what_does_not_fit_is_refused_whole_and_drops_nothing(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path / "queue", PartHealth("queue"), max_bytes=3000)
    queue.open()
    put(queue, 1, 2, filler="x" * 1000)
    lines = exported(queue)
    with pytest.raises(Refused, match="let it drain"):
        queue.restore(lines)
    with pytest.raises(Refused, match="5000 bytes, and the queue has room for"):
        queue.restore([], 5000)
    bury(queue, 0)
    put(queue, 3, filler="x" * 1000)
    with pytest.raises(Refused, match="make room with `edgepost queue drop`"):
        queue.requeue(None)
    assert seqs(queue) == [2, 3]
    assert queue.stats().dropped == {}
    queue.close()


def test_drop_goes_up_to_a_key_and_is_counted_as_the_users(queue: DiskQueue) -> None:
    put(queue, 1, 2, 3)
    passed = queue.drop(Lane.TELEMETRY, 0, waiting(queue)[1].key)
    assert (passed.dropped, passed.after) == (2, None)
    assert seqs(queue) == [3]
    assert queue.stats().dropped == {"telemetry/dropped_by_user": 2}


def test_drop_takes_a_large_queue_in_parts_that_lose_their_place_nowhere(queue: DiskQueue) -> None:
    put(queue, *range(2500))
    after: int | None = 0
    parts = []
    while after is not None:
        passed = queue.drop(Lane.TELEMETRY, after, 2**60, older_than_s=-1.0)
        after = passed.after
        parts.append(passed.dropped)
    assert parts == [1000, 1000, 500]
    assert queue.is_empty()


def test_drop_by_age_leaves_what_is_younger_and_what_is_damaged(queue: DiskQueue) -> None:
    put(queue, 1, age_s=100)
    put(queue, 2, age_s=10)
    put(queue, 3, age_s=90)
    assert queue.drop(Lane.TELEMETRY, 0, 2**60, older_than_s=50.0).dropped == 2
    assert seqs(queue) == [2]


def test_what_a_user_dropped_on_its_way_and_arrived_is_not_counted_as_dropped(queue: DiskQueue) -> None:
    put(queue, 1, 2)
    under_way = waiting(queue)[0]
    queue.drop(Lane.TELEMETRY, 0, 2**60)
    assert queue.acknowledge([under_way.key]).wait(WAIT_S)
    assert queue.stats().dropped == {"telemetry/dropped_by_user": 1}


def test_a_refused_change_does_not_disturb_what_is_put_in_the_same_commit(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path / "queue", PartHealth("queue"), max_bytes=2**20, commit_interval_s=0.5)
    queue.open()
    put(queue, 1)
    ticket = queue.put([Telemetry("gps", [(Clock().now(), {"number": 2})])])
    with pytest.raises(Refused):
        queue.requeue([5])
    assert ticket.wait(WAIT_S)
    assert seqs(queue) == [1, 2]
    queue.close()


@pytest.mark.parametrize(
    "request_",
    [
        {"command": "explode"},
        {"command": "requeue"},
        {"command": "requeue", "numbers": [0]},
        {"command": "drop", "lane": "fast", "after": 0, "upto": 1, "older_than_s": None},
        {"command": "restore", "messages": [{}], "needed": 0},
        {"command": "delete", "numbers": None, "more": 1},
    ],
)
def test_a_request_that_is_not_understood_changes_nothing(queue: DiskQueue, request_: dict[str, object]) -> None:
    put(queue, 1)
    bury(queue, 0)
    put(queue, 2)
    with pytest.raises(Refused):
        answer(queue, request_)
    assert (seqs(queue), queue.stats().dropped, queue.delete_dead(None)) == ([2], {}, 1)


def test_a_look_reads_all_rows_in_order_and_changes_nothing(queue: DiskQueue, tmp_path: Path) -> None:
    put(queue, *range(1, 201))
    directory = tmp_path / "queue"
    assert [row.entry and row.entry.seq for row in inspection.waiting(directory, Lane.TELEMETRY)] == list(range(1, 201))
    extent = inspection.extent(directory, Lane.TELEMETRY)
    put(queue, 201)
    assert extent.count == 200
    assert sum(1 for _ in inspection.waiting(directory, Lane.TELEMETRY, extent.last)) == 200


def test_the_bounds_that_the_last_agent_set_are_found_in_the_file(tmp_path: Path) -> None:
    for max_bytes, durability in ((2**24, "power"), (2**22, "process")):
        queue = DiskQueue(tmp_path / "queue", PartHealth("queue"), max_bytes=max_bytes, durability=durability)
        queue.open()
        queue.close()
        assert inspection.bounds(tmp_path / "queue") == (max_bytes, durability)
