"""The queue against a model of it: any sequence of calls, crashes and reopenings does what a plain list would do."""

import shutil
import tempfile
from pathlib import Path

import msgspec
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.clock import Stamp
from agent.delivery.disk_queue import DiskQueue
from agent.delivery.record import Entry, Event, Lane, Record, Telemetry, Ticket
from agent.health import PartHealth

WAIT_S = 10.0
HELD_S = 0.03
LANES = (Lane.EVENT, Lane.TELEMETRY)
CAPACITY = 6
FILLER = "x" * 200
DATABASE = ("cache.db", "cache.db-wal")

Named = tuple[Lane, int]
"""The lane and the number of a record that has no seq yet."""


class Message(msgspec.Struct, frozen=True):
    """What the model keeps of a message."""

    lane: Lane
    topic: str
    seq: int
    number: int


def record_of(lane: Lane, number: int) -> Record:
    """Records of one size, whatever their number."""
    content = {"number": f"{number:09d}", "filler": FILLER}
    if lane is Lane.EVENT:
        return Event("gate", "motion", content, Stamp(1, 1))
    return Telemetry("gps", [(Stamp(1, 1), content)])


def message_of(entry: Entry) -> Message:
    content = entry.record.data if isinstance(entry.record, Event) else entry.record.readings[0][1]
    return Message(entry.record.lane, entry.record.topic, entry.seq, int(content["number"]))


class QueueMachine(RuleBasedStateMachine):
    """`waiting` is what the queue must hold, oldest first; `held` are puts that wait for room."""

    may_drop = True

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="ep-"))
        self.generation = 0
        self.abandoned: list[DiskQueue] = []
        self.waiting: list[Message] = []
        self.held: list[tuple[Ticket, list[Named]]] = []
        self.seqs = {"event/gate": 0, "telemetry/gps": 0}
        self.next_number = 0
        self.dead = self.dropped = self.put_count = 0
        self.max_bytes = 2**30
        self.queue = self._open()
        self.epoch = self.queue.epoch
        self.row_bytes = {lane: self._measure(lane) for lane in LANES}

    @initialize(bounded=st.booleans())
    def begin(self, bounded: bool) -> None:
        if bounded:
            self.queue.close()
            self.max_bytes = CAPACITY * max(self.row_bytes.values())
            self.queue = self._open()

    @rule(lanes=st.lists(st.sampled_from(LANES), min_size=1, max_size=4))
    def put(self, lanes: list[Lane]) -> None:
        batch = [(lane, self.next_number + index) for index, lane in enumerate(lanes)]
        self.next_number += len(batch)
        ticket = self.queue.put([record_of(lane, number) for lane, number in batch])
        if not self.may_drop and (self.held or self._excess(batch) > 0):
            assert not ticket.wait(HELD_S)
            self.held.append((ticket, batch))
        else:
            self._make_room(batch)
            self._accept(ticket, batch)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.waiting), unique_by=lambda m: (m.topic, m.seq), min_size=1))
        self._acknowledge(chosen)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.waiting))
        key = next(entry.key for entry in self._peek() if message_of(entry) == chosen)
        assert self.queue.reject(key, "the model says so").wait(WAIT_S)
        self.dead += 1
        self._forget([chosen])

    @rule()
    def reopen(self) -> None:
        """A put that waits for room goes with the queue that it was put into: its ticket is never done."""
        self.queue.close()
        assert not any(ticket.done for ticket, _ in self.held)
        self.held.clear()
        self.queue = self._open()

    @rule()
    def crash(self) -> None:
        """Whatever had no ticket is gone, everything else is there."""
        there = self._directory()
        self.generation += 1
        self._directory().mkdir()
        for name in DATABASE:
            if (there / name).exists():
                shutil.copy(there / name, self._directory() / name)
        self.abandoned.append(self.queue)
        self.held.clear()
        self.queue = self._open()

    @rule(limit=st.integers(1, 5), lane=st.sampled_from(LANES))
    def peek_in_steps(self, limit: int, lane: Lane) -> None:
        seen: list[Message] = []
        after = 0
        while entries := self.queue.peek(lane, after, limit):
            assert len(entries) <= limit
            seen += map(message_of, entries)
            after = entries[-1].key
        assert seen == self._lane(lane)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        for lane in LANES:
            assert [message_of(entry) for entry in self.queue.peek(lane, 0, 1000)] == self._lane(lane)
        stats = self.queue.stats()
        assert stats.epoch == self.epoch
        assert (stats.waiting, stats.put) == (len(self.waiting), self.put_count)
        assert (stats.dead, sum(stats.dropped.values())) == (self.dead, self.dropped)
        assert stats.waiting_bytes <= self.max_bytes
        assert self.queue.is_empty() == (not self.waiting and not self.held)

    def teardown(self) -> None:
        for queue in [self.queue, *self.abandoned]:
            queue.close()
        shutil.rmtree(self.home)

    def _open(self) -> DiskQueue:
        queue = DiskQueue(
            self._directory(), PartHealth("queue"),
            max_bytes=self.max_bytes, may_drop=self.may_drop, commit_interval_s=0.0,
        )  # fmt: skip
        queue.open()
        return queue

    def _directory(self) -> Path:
        return self.home / f"queue-{self.generation}"

    def _peek(self) -> list[Entry]:
        return [entry for lane in LANES for entry in self.queue.peek(lane, 0, 1000)]

    def _lane(self, lane: Lane) -> list[Message]:
        return [message for message in self.waiting if message.lane is lane]

    def _measure(self, lane: Lane) -> int:
        """How many bytes a row of this lane counts for, found by one that comes and goes."""
        ticket = self.queue.put([record_of(lane, 0)])
        assert ticket.wait(WAIT_S)
        size = self.queue.stats().waiting_bytes
        self._accept(ticket, [(lane, 0)])
        self._acknowledge(self.waiting[:])
        return size

    def _acknowledge(self, chosen: list[Message]) -> None:
        keys = [entry.key for entry in self._peek() if message_of(entry) in chosen]
        ticket = self.queue.acknowledge(keys)
        assert not {message_of(entry) for entry in self._peek()} & set(chosen)
        assert ticket.wait(WAIT_S)
        self._forget(chosen)

    def _excess(self, batch: list[Named]) -> int:
        lanes = [message.lane for message in self.waiting] + [lane for lane, _ in batch]
        return sum(self.row_bytes[lane] for lane in lanes) - self.max_bytes

    def _make_room(self, batch: list[Named]) -> None:
        """The oldest of the least urgent lane go first."""
        for lane in reversed(LANES):
            for message in self._lane(lane):
                if self._excess(batch) > 0:
                    self.waiting.remove(message)
                    self.dropped += 1

    def _accept(self, ticket: Ticket, batch: list[Named]) -> None:
        assert ticket.wait(WAIT_S)
        for (lane, number), seq in zip(batch, ticket.seqs, strict=True):
            topic = record_of(lane, number).topic
            self.seqs[topic] += 1
            assert seq == self.seqs[topic]
            self.waiting.append(Message(lane, topic, seq, number))
        self.put_count += len(batch)

    def _forget(self, chosen: list[Message]) -> None:
        """They are gone; what waited for their room comes in, in order."""
        for message in chosen:
            self.waiting.remove(message)
        while self.held and self._excess(self.held[0][1]) <= 0:
            self._accept(*self.held.pop(0))
        assert not any(ticket.done for ticket, _ in self.held)


class BlockingQueueMachine(QueueMachine):
    """The same, where nothing may be dropped: producers wait instead."""

    may_drop = False


SETTINGS = settings(
    max_examples=40,
    stateful_step_count=20,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),  # to shrink a failure takes longer than a test may
)

TestAQueueThatMayDropDoesWhatTheModelDoes = QueueMachine.TestCase
TestAQueueThatMayDropDoesWhatTheModelDoes.settings = SETTINGS
TestAQueueThatMayNotDropDoesWhatTheModelDoes = BlockingQueueMachine.TestCase
TestAQueueThatMayNotDropDoesWhatTheModelDoes.settings = SETTINGS
