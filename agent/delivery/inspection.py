"""Looks into the queue beside whoever uses it: read-only, a few rows at a time, never through diskcache."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.delivery.ledger import DEAD_PREFIX, dead_key, lane_range, unbury, unseal
from agent.delivery.record import Entry, Lane
from agent.delivery.store import PAGE_BYTES, SYNCHRONOUS, CorruptStore, Durability, look

ROWS = 64  # a look lasts no longer than so many rows, so that it holds up no checkpoint
_VALUE = "CASE WHEN typeof(value) = 'blob' THEN value ELSE x'' END"
_WAITING = f"SELECT key, {_VALUE} FROM Cache WHERE raw = 1 AND key > ? AND key < ? ORDER BY key LIMIT {ROWS}"  # noqa: S608 (ours)
_EXTENT = "SELECT count(*), max(key) FROM Cache WHERE raw = 1 AND key > ? AND key < ?"


class Waiting(msgspec.Struct, frozen=True):
    """A row of a lane; `entry` is None when it is damaged."""

    key: int
    lane: Lane
    size: int
    entry: Entry | None


class Dead(msgspec.Struct, frozen=True):
    """A message that was put aside; `entry` is None when it is damaged."""

    number: int
    reason: str
    size: int
    entry: Entry | None


class Extent(msgspec.Struct, frozen=True):
    """How many wait in a lane, and the key of the last."""

    count: int
    last: int


def extent(directory: Path, lane: Lane) -> Extent:
    """What waits in a lane; raises EdgepostError when there is no queue, or it can't be read."""
    ((count, last),) = look(directory, _EXTENT, lane_range(lane))
    return Extent(count, last or 0)


def waiting(directory: Path, lane: Lane, upto: int | None = None) -> Iterator[Waiting]:
    """What waits in a lane, oldest first, up to a key."""
    low, high = lane_range(lane)
    high = high if upto is None else min(high, upto + 1)
    while True:
        rows = 0
        for key, value in look(directory, _WAITING, (low, high)):
            yield Waiting(key, lane, len(value), _entry(key, value))
            low, rows = key, rows + 1
        if rows < ROWS:
            return


def dead(directory: Path) -> Iterator[Dead]:
    """What was put aside, oldest first."""
    low, high = DEAD_PREFIX, dead_key(10**12 - 1)
    while True:
        rows = 0
        for key, value in look(directory, _WAITING, (low, high)):
            yield _dead(int(key.removeprefix(DEAD_PREFIX)), value)
            low, rows = key, rows + 1
        if rows < ROWS:
            return


def bounds(directory: Path) -> tuple[int, Durability]:
    """The `max_bytes` and the durability that the last agent gave the queue, from diskcache's settings in the file."""
    query = "SELECT key, value FROM Settings WHERE key IN ('sqlite_max_page_count', 'sqlite_synchronous')"
    settings = dict(look(directory, query))
    durable = settings["sqlite_synchronous"] == SYNCHRONOUS["power"]["sqlite_synchronous"]
    return (settings["sqlite_max_page_count"] - 1024) * PAGE_BYTES // 2, "power" if durable else "process"


def _dead(number: int, value: bytes) -> Dead:
    try:
        reason, message = unbury(value)
    except CorruptStore as error:
        return Dead(number, str(error), len(value), None)
    return Dead(number, reason, len(message), _entry(number, message))


def _entry(key: int, value: bytes) -> Entry | None:
    try:
        return unseal(key, value)
    except CorruptStore:
        return None
