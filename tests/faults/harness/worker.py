"""The process that a fault hits. It puts records into a queue, consumes them, and says on stdout what it was promised.

The first line on stdin is the plan; then come orders: "offline" (consume nothing), "online", "finish" (put nothing
more, drain the queue, close it, exit). Every line on stdout is a `Line` as JSON; its items by kind:

    ready                                          the queue is open
    put    [topic, epoch, seq, number] …           their ticket is done
    sent   [topic, epoch, seq, number or null] …   peeked, about to be acknowledged (null: not what was put)
    gone   [topic, epoch, seq, number] …           the ticket of their acknowledgement is done
    jump   seconds                                 the wall clock was moved by so much, and a put was done since
    end    [dropped by reason, dead, refusals]     drained and about to close
"""

import os
import random
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from agent.delivery.disk_queue import DiskQueue
from agent.delivery.record import Entry, Lane, Ticket
from agent.errors import EdgepostError
from agent.health import PartHealth
from tests.faults.harness.records import LANES, SOURCES, make, number_of
from tests.faults.harness.wall_clock import WallClock

NUMBERS_A_RUN = 1_000_000
MOST_WAITING = 2000  # then the producer lets the consumer catch up
IDLE_S = 0.05
READ_AGAIN_S = 0.2

Id = tuple[str, str, int, int | None]
Put = tuple[Ticket, list[tuple[str, int]]]
"""A ticket, and the topics and numbers of what was put for it."""


class Plan(msgspec.Struct, frozen=True):
    """What a worker does. `run` counts the workers on one queue: later ones number their records higher."""

    directory: str
    run: int
    seed: int
    window: int = 64
    max_bytes: int = 2**30
    may_drop: bool = True
    commit_interval_s: float = 0.1
    commit_rows: int = 64
    batch: int = 8
    ahead: int = 20  # puts that may be under way
    pause_s: float = 0.0
    online: bool = True
    jumps: int = 0  # of the wall clock
    batches: int | None = None  # then it finishes by itself


class Line(msgspec.Struct, frozen=True, array_like=True):
    """Something that a worker has said, and when by CLOCK_MONOTONIC, which all processes share."""

    kind: str
    at_s: float
    items: list[Any]


class Worker:
    """One thread produces, one consumes, the main one takes orders."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._chance = random.Random(plan.seed)
        self._wall_clock = WallClock(self._chance)
        self._health = PartHealth("queue")
        self._queue = DiskQueue(
            Path(plan.directory), self._health, max_bytes=plan.max_bytes, may_drop=plan.may_drop,
            commit_interval_s=plan.commit_interval_s, commit_rows=plan.commit_rows,
        )  # fmt: skip
        self._committed = threading.Event()
        self._finish = threading.Event()
        self._produced = threading.Event()
        self._offline = threading.Event()
        self._saying = threading.Lock()

    def run(self) -> None:
        """Work until told to finish."""
        if self._plan.jumps:
            self._wall_clock.install()
        if not self._plan.online:
            self._offline.set()
        self._queue.on_commit(self._committed.set)
        self._queue.open()
        self._say("ready")
        threading.Thread(target=self._take_orders, daemon=True).start()
        threads = [threading.Thread(target=part, daemon=True) for part in (self._produce, self._consume)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = self._queue.stats()
        self._say("end", stats.dropped, stats.dead, self._health.snapshot()["errors"])
        self._queue.close()

    def _take_orders(self) -> None:
        for order in sys.stdin:
            match order.strip():
                case "offline":
                    self._offline.set()
                case "online":
                    self._offline.clear()
                case "finish":
                    self._offline.clear()
                    self._finish.set()
            self._committed.set()

    def _produce(self) -> None:
        under_way: deque[Put] = deque()
        number = self._plan.run * NUMBERS_A_RUN
        puts = 0
        while not self._finish.is_set() and puts != self._plan.batches:
            moved_s = 0.0
            jumps = puts < self._plan.jumps
            if jumps and puts % 2:  # before the put, while the time of the next commit is fixed already
                moved_s = self._wall_clock.jump()
            while self._queue.stats().waiting > MOST_WAITING and not self._finish.is_set():
                self._finish.wait(IDLE_S)
            under_way.append(self._put(number))
            number += self._plan.batch
            puts += 1
            self._report(under_way, self._plan.ahead)
            if jumps:
                moved_s = moved_s or self._wall_clock.jump()
                self._report(under_way, 0)
                self._say("jump", moved_s)
            self._finish.wait(self._plan.pause_s)
        self._report(under_way, 0)
        self._produced.set()
        self._committed.set()

    def _put(self, number: int) -> Put:
        """Put some records, numbered from `number`."""
        named = [(self._chance.choice(SOURCES), number + n) for n in range(self._chance.randint(1, self._plan.batch))]
        records = [make(source, each, self._chance) for source, each in named]
        return self._queue.put(records), [
            (record.topic, each) for record, (_, each) in zip(records, named, strict=True)
        ]

    def _report(self, under_way: deque[Put], ahead: int) -> None:
        """Say what is done; waits while more than `ahead` puts are under way."""
        while under_way and (under_way[0][0].done or len(under_way) > ahead):
            ticket, named = under_way[0]
            if ticket.wait(IDLE_S):
                under_way.popleft()
                ids = [(topic, ticket.epoch, seq, n) for (topic, n), seq in zip(named, ticket.seqs, strict=True)]
                self._say("put", *ids)
            elif self._plan.pause_s and ahead and not self._finish.is_set():
                return  # a producer that keeps its pace though the disk does not

    def _consume(self) -> None:
        window: deque[tuple[Ticket, list[Id]]] = deque()
        cursor = dict.fromkeys(LANES, 0)
        while not (self._produced.is_set() and self._queue.is_empty() and not window):
            self._committed.wait(IDLE_S)
            self._committed.clear()
            while window and window[0][0].done:
                self._say("gone", *window.popleft()[1])
            if self._offline.is_set():
                continue
            try:
                for lane in LANES:
                    self._send(lane, cursor, window)
            except EdgepostError as error:
                print(f"worker: {error}", file=sys.stderr, flush=True)
                time.sleep(READ_AGAIN_S)

    def _send(self, lane: Lane, cursor: dict[Lane, int], window: deque[tuple[Ticket, list[Id]]]) -> None:
        """What fits into the window goes, in handfuls."""
        while (room := self._plan.window - sum(ticket.count for ticket, _ in window)) > 0:
            entries = self._queue.peek(lane, cursor[lane], min(room, self._chance.randint(1, 16)))
            if not entries:
                return
            cursor[lane] = entries[-1].key
            ids = [name(entry) for entry in entries]
            self._say("sent", *ids)
            window.append((self._queue.acknowledge([entry.key for entry in entries]), ids))

    def _say(self, kind: str, *items: object) -> None:
        line = msgspec.json.encode(Line(kind, time.monotonic(), list(items))) + b"\n"
        with self._saying:
            while line:
                line = line[os.write(1, line) :]


def name(entry: Entry) -> Id:
    """What identifies an entry, and the number that its record proves."""
    return entry.record.topic, entry.epoch, entry.seq, number_of(entry.record)


if __name__ == "__main__":
    first_line = sys.stdin.readline()
    if first_line:
        Worker(msgspec.json.decode(first_line, type=Plan)).run()
