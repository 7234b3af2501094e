"""What a person may change in the queue by hand. Each function is part of one commit: it writes all, or refuses.

Nothing here drops a message to make room for another, and what goes back keeps its epoch and seq: receivers know it by
them when they have had it before.
"""

from collections.abc import Sequence

import msgspec

from agent.clock import Clock, Stamp, boot_id
from agent.delivery.ledger import (
    BY_USER,
    DEAD_PREFIX,
    Ledger,
    Refused,
    Stored,
    dead_key,
    stored,
    unbury,
    unseal,
)
from agent.delivery.record import Entry, Lane
from agent.delivery.store import CorruptStore, Store

DROP_ROWS = 1000
_READ_ROWS = 50


class Moved(msgspec.Struct, frozen=True):
    """How many messages went back, and the numbers of those that stay because they are damaged."""

    moved: int
    damaged: list[int]


class Passed(msgspec.Struct, frozen=True):
    """How many messages were deleted, and the key up to which all were looked at; None: to the end."""

    dropped: int
    after: int | None


def requeue(ledger: Ledger, store: Store, numbers: Sequence[int] | None, max_bytes: int) -> Moved:
    """Move what is dead (None: all that is intact) to the end of its lane."""
    found: list[int] = []
    damaged: list[int] = []
    size = 0
    for number in _chosen(store, numbers):
        try:
            size += len(_dead(store, number)[1])
            found.append(number)
        except CorruptStore:
            damaged.append(number)
    if damaged and numbers is not None:
        raise Refused(f"dead message {damaged[0]} is damaged and can't be sent: `edgepost queue dead --delete` it")
    _require_room(ledger, size, max_bytes)
    for number in found:
        entry, value = _dead(store, number)
        ledger.append(store, entry.record.lane, value)
        store.delete(dead_key(number))
    return Moved(len(found), damaged)


def delete_dead(store: Store, numbers: Sequence[int] | None) -> int:
    """Forget what is dead."""
    chosen = _chosen(store, numbers)
    for number in chosen:
        store.delete(dead_key(number))
    return len(chosen)


def checked(messages: Sequence[Stored]) -> list[tuple[Entry, bytes]]:
    """Messages as they will lie in their lanes; raises Refused for what could not be read back."""
    values = [stored(message) for message in messages]
    try:
        return [(unseal(0, value), value) for value in values]
    except CorruptStore as error:
        raise Refused(str(error)) from error


def restore(ledger: Ledger, store: Store, messages: Sequence[tuple[Entry, bytes]], max_bytes: int, needed: int) -> int:
    """Append messages under the epochs and seqs that they bring along."""
    _require_room(ledger, max(needed, sum(len(value) for _, value in messages)), max_bytes)
    seqs: dict[str, int] = {}
    for entry, value in messages:
        topic = entry.record.topic
        if entry.epoch == ledger.epoch and entry.seq > max(ledger.seqs.get(topic, 0), seqs.get(topic, 0)):
            seqs[topic] = entry.seq  # no new message may get it too
        ledger.append(store, entry.record.lane, value)
    ledger.counters.put += len(messages)
    ledger.advance(store, seqs)
    return len(messages)


def drop(ledger: Ledger, store: Store, keys_of: tuple[int, int], older_than_s: float | None) -> Passed:
    """Delete up to DROP_ROWS messages between two keys, those that are older where an age is given."""
    after, high = keys_of
    now = Clock().now()
    looked_at = dropped = 0
    while looked_at < DROP_ROWS:
        if older_than_s is None:
            keys = found = [key for key, _ in store.sizes(after, high, _READ_ROWS)]
        else:
            rows = store.range(after, high, _READ_ROWS)
            found = [key for key, _ in rows]
            keys = [key for key, value in rows if is_older(key, value, older_than_s, now)]
        if not found:
            return Passed(dropped, None)
        ledger.remove(store, keys, dropped=BY_USER)
        looked_at, dropped, after = looked_at + len(found), dropped + len(keys), found[-1]
    return Passed(dropped, after)


def is_older(key: int, value: bytes, limit_s: float, now: Stamp) -> bool:
    """Whether a stored message is intact and older than `limit_s`."""
    try:
        return age_s(unseal(key, value), now) > limit_s
    except CorruptStore:
        return False


def age_s(entry: Entry, now: Stamp) -> float:
    """How long ago a message was seen: by the boot clock, and by the wall clock where it is of another boot."""
    stamp = entry.record.stamp
    if entry.boot == boot_id():
        return (now.boot_ns - stamp.boot_ns) / 1e9
    return max(now.boot_ns, now.real_ns - stamp.real_ns) / 1e9  # older than this boot in any case


def lane_named(name: str) -> Lane:
    """A lane by its name; raises Refused."""
    names = {lane.name.lower(): lane for lane in Lane}
    if name not in names:
        raise Refused(f"found lane {name!r}, expected {', '.join(names)}")
    return names[name]


def _chosen(store: Store, numbers: Sequence[int] | None) -> list[int]:
    there = [int(key.removeprefix(DEAD_PREFIX)) for key, _ in store.text_sizes(DEAD_PREFIX)]
    if numbers is None:
        return there
    if unknown := sorted(set(numbers) - set(there)):
        raise Refused(f"there is no dead message {unknown[0]}: see `edgepost queue dead`")
    return sorted(set(numbers))


def _dead(store: Store, number: int) -> tuple[Entry, bytes]:
    _, value = unbury(store.get(dead_key(number)))
    return unseal(number, value), value


def _require_room(ledger: Ledger, size: int, max_bytes: int) -> None:
    room = max_bytes - ledger.counters.waiting_bytes
    if size > room:
        raise Refused(
            f"{size} bytes, and the queue has room for {max(0, room)}: let it drain, raise queue.max_bytes, or make "
            f"room with `edgepost queue drop`"
        )
