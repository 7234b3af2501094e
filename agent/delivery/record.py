"""What is kept on disk until the broker has it, and the contract of the queue that keeps it.

A record holds what was seen and when, by both clocks; the wire format is made when it is published. So one backlog can
go out as JSON or another encoding, and a wall clock that is set later in the same boot can still be corrected.
"""

import enum
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from agent.clock import Stamp
from drivers.contract import Value


class Lane(enum.IntEnum):
    """What goes first: an event overtakes telemetry, telemetry overtakes images. Within a lane the order is kept."""

    EVENT = 0
    TELEMETRY = 1
    IMAGE = 2


class Telemetry(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="telemetry"):
    """Readings of one source, oldest first."""

    lane: ClassVar[Lane] = Lane.TELEMETRY

    source: str
    readings: Sequence[tuple[Stamp, Mapping[str, Value]]]

    @property
    def topic(self) -> str:
        """Below the device's topic."""
        return f"telemetry/{self.source}"

    @property
    def stamp(self) -> Stamp:
        """When the newest of it was seen."""
        return self.readings[-1][0]


class Event(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="event"):
    """Something that happened: posted by a program on this machine, or raised by the agent.

    `ts_ms` is the poster's own time, Unix milliseconds; without it, the stamp counts.
    """

    lane: ClassVar[Lane] = Lane.EVENT

    source: str
    type: str
    data: Any
    stamp: Stamp
    ts_ms: float | None = None

    @property
    def topic(self) -> str:
        """Below the device's topic."""
        return f"event/{self.source}"


Record = Telemetry | Event


class Entry(msgspec.Struct, frozen=True):
    """A record as it lies in the queue. `(topic, epoch, seq)` names it for good; `key` is its place in this queue."""

    key: int
    epoch: str
    seq: int
    boot: str
    record: Record


class Ticket:
    """The promise that what was asked of the queue is on disk: kept once `done` is set."""

    __slots__ = ("_changed", "count", "done", "epoch", "seqs")

    def __init__(self, count: int, changed: threading.Condition) -> None:
        self.count = count
        self.done = False
        self.epoch = ""
        self.seqs: list[int] = []
        self._changed = changed

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is on disk; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.done, timeout_s)


class QueueStats(msgspec.Struct, frozen=True):
    """The queue's figures: what waits, what was ever put, what was put aside as dead or dropped.

    `dropped` counts by "lane/reason", `damaged` databases that had to be put aside: something may have gone with them.
    All but `waiting` count from the day the queue was made.
    """

    epoch: str
    waiting: int
    waiting_bytes: int
    put: int
    dead: int
    damaged: int
    dropped: dict[str, int]


class Queue(Protocol):
    """Keeps records until they are acknowledged. To peek changes nothing."""

    def put(self, records: Sequence[Record]) -> Ticket:
        """Append records; the ticket's `epoch` and `seqs` are theirs once it is done."""

    def peek(self, lane: Lane, after: int, limit: int) -> list[Entry]:
        """The oldest entries of a lane whose key is above `after` (0: from the start)."""

    def acknowledge(self, keys: Sequence[int]) -> Ticket:
        """Forget entries that the broker has."""

    def reject(self, key: int, reason: str) -> Ticket:
        """Put aside an entry that no broker will take, where it can be looked at and does not hold up the others."""
