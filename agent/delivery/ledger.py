"""What one commit of the disk queue writes, and the figures that are written with it."""

import binascii
import logging
import secrets
from collections.abc import Mapping, Sequence

import msgspec

from agent.clock import boot_id
from agent.delivery.record import Entry, Lane, Record
from agent.delivery.store import CorruptStore, Store
from agent.errors import EdgepostError

log = logging.getLogger(__name__)

LANE_SHIFT = 48
EPOCH_KEY = "epoch"
COUNTERS_KEY = "counters"
SEQ_PREFIX = "seq/"
DEAD_PREFIX = "dead/"
QUEUE_FULL = "queue_full"
TOO_OLD = "too_old"
BY_USER = "dropped_by_user"
MAX_DEAD = 1000
_BATCH = 100
_REMEMBERED = 2048  # more than can be on their way to the broker


class Refused(EdgepostError):
    """Nothing was done, for the reason given."""


class Counters(msgspec.Struct):
    """Figures of the queue, written in the same transaction as what they count."""

    waiting: int = 0
    waiting_bytes: int = 0
    put: int = 0
    dead: int = 0
    damaged: int = 0
    dropped: dict[str, int] = {}


class Item(msgspec.Struct, frozen=True):
    """A record ready to be stored, made in its producer's thread: whatever is wrong with it shows there."""

    lane: Lane
    topic: str
    body: bytes


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """A message as it lies in its lane, below its checksum."""

    epoch: str
    seq: int
    boot: str
    record: msgspec.Raw


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stored).decode
_decode_record = msgspec.msgpack.Decoder(Record).decode


def item(record: Record) -> Item:
    """Encode a record; raises ValueError, TypeError, OverflowError or RecursionError for what no message can hold."""
    return Item(record.lane, record.topic, _encode(record))


class Ledger(msgspec.Struct):
    """The queue's figures and counters. A commit works on a copy, which replaces the ledger once it is on disk."""

    epoch: str
    counters: Counters
    next_key: dict[Lane, int]
    seqs: dict[str, int]  # the last of each topic
    dropped_by_user: dict[int, None] = {}  # the first keys of each such drop: these may be on their way

    @classmethod
    def read(cls, store: Store) -> "Ledger":
        """The ledger as it was last committed; with a new epoch where the old one, or a seq, can't be trusted."""
        kept_epoch = unseal_row(store.get(EPOCH_KEY))
        seqs = {key.removeprefix(SEQ_PREFIX): unseal_row(value) for key, value in store.texts(SEQ_PREFIX)}
        epoch = (kept_epoch or b"").decode("ascii", "replace")
        if kept_epoch is None or None in seqs.values():
            epoch = secrets.token_hex(8)
            store.set(EPOCH_KEY, seal(epoch.encode("ascii")))
        counters = read_counters(store.get(COUNTERS_KEY))
        if counters is None:
            counters = Counters()
            for lane in Lane:
                waiting, size = store.tally(*lane_range(lane))
                counters.waiting, counters.waiting_bytes = counters.waiting + waiting, counters.waiting_bytes + size
            counters.put = counters.waiting
        return cls(
            epoch,
            counters,
            {lane: store.last_key(*lane_range(lane)) + 1 for lane in Lane},
            {topic: int.from_bytes(seq or b"", "little") for topic, seq in seqs.items()},
        )

    def copy(self) -> "Ledger":
        """One that can be changed without changing this."""
        counters = msgspec.structs.replace(self.counters, dropped=dict(self.counters.dropped))
        return Ledger(self.epoch, counters, dict(self.next_key), dict(self.seqs), dict(self.dropped_by_user))

    def put(self, store: Store, items: Sequence[Item], max_bytes: int, *, may_drop: bool) -> list[int] | None:
        """Write messages inside a transaction; returns their seqs, or None where there is no room."""
        seqs: dict[str, int] = {}
        values: list[bytes] = []
        numbers: list[int] = []
        for each in items:
            seq = (seqs.get(each.topic) or self.seqs.get(each.topic, 0)) + 1
            seqs[each.topic] = seq
            numbers.append(seq)
            values.append(stored(Stored(self.epoch, seq, boot_id(), msgspec.Raw(each.body))))
        excess = self.counters.waiting_bytes + sum(map(len, values)) - max_bytes
        if excess > 0 and not may_drop:
            return None
        self._drop_oldest(store, excess)
        for each, value in zip(items, values, strict=True):
            self.append(store, each.lane, value)
        self.counters.put += len(values)
        self.advance(store, seqs)
        return numbers

    def append(self, store: Store, lane: Lane, value: bytes) -> None:
        """Write a stored message at the end of its lane, inside a transaction."""
        store.set(self.next_key[lane], value)
        self.next_key[lane] += 1
        self._count(1, len(value))

    def advance(self, store: Store, seqs: Mapping[str, int]) -> None:
        """Note the seq last given to each of these topics, inside a transaction."""
        self.seqs |= seqs
        for topic, seq in seqs.items():
            store.set(f"{SEQ_PREFIX}{topic}", seal(seq.to_bytes(8, "little")))

    def remove(self, store: Store, keys: Sequence[int], *, dead: str = "", dropped: str = "") -> None:
        """Delete rows inside a transaction: delivered, or kept aside as `dead`, or `dropped`, for the reason given."""
        for key in keys:
            value = store.take(key)
            if value is None:
                if not dead and not dropped:
                    self._undrop(key)
                continue
            self._count(-1, -len(value))
            if dropped:
                self._count_drop(Lane(key >> LANE_SHIFT), dropped)
            if dropped == BY_USER and len(self.dropped_by_user) < _REMEMBERED:
                self.dropped_by_user[key] = None
            if dead:
                self._bury(store, dead, value)

    def write(self, store: Store) -> None:
        """Write the figures inside a transaction."""
        store.set(COUNTERS_KEY, seal(_encode(self.counters)))

    def _count(self, messages: int, size: int) -> None:
        self.counters.waiting += messages
        self.counters.waiting_bytes += size

    def _bury(self, store: Store, reason: str, value: bytes) -> None:
        """Keep what could not be delivered; of these the last MAX_DEAD, all are counted."""
        self.counters.dead += 1
        store.set(dead_key(self.counters.dead), seal(_encode((reason, value))))
        store.delete(dead_key(self.counters.dead - MAX_DEAD))

    def _drop_oldest(self, store: Store, excess: int) -> None:
        """Make room: the oldest of the least urgent lane go first, and every one is counted."""
        for lane in reversed(Lane):
            while excess > 0 and (rows := store.sizes(*lane_range(lane), _BATCH)):
                for key, size in rows:
                    if excess <= 0:
                        return
                    store.take(key)
                    self._count(-1, -size)
                    excess -= size
                    self._count_drop(lane, QUEUE_FULL)

    def _undrop(self, key: int) -> None:
        """It had been dropped while it was on its way, and arrived: not lost after all."""
        reason = QUEUE_FULL
        if key in self.dropped_by_user:
            del self.dropped_by_user[key]
            reason = BY_USER
        what = f"{Lane(key >> LANE_SHIFT).name.lower()}/{reason}"
        if self.counters.dropped.get(what):
            self.counters.dropped[what] -= 1

    def _count_drop(self, lane: Lane, reason: str) -> None:
        what = f"{lane.name.lower()}/{reason}"
        self.counters.dropped[what] = self.counters.dropped.get(what, 0) + 1


def lane_range(lane: Lane) -> tuple[int, int]:
    """The keys of a lane lie between these two, neither included."""
    return lane << LANE_SHIFT, (lane + 1) << LANE_SHIFT


def dead_key(number: int) -> str:
    """Where a message lies that was put aside."""
    return f"{DEAD_PREFIX}{number:012d}"


def unbury(value: bytes | None) -> tuple[str, bytes]:
    """Why a message was put aside, and the message as it lay in its lane; raises CorruptStore."""
    try:
        reason, message = msgspec.msgpack.decode(unseal_row(value) or b"", type=tuple[str, bytes])
    except msgspec.DecodeError as error:
        raise CorruptStore("what was put aside is damaged") from error
    return reason, message


def stored(message: Stored) -> bytes:
    """A message as it lies in its lane."""
    return seal(_encode(message))


def read_counters(value: bytes | None) -> Counters | None:
    """The figures of a row, None when there is no such row or it is damaged."""
    body = unseal_row(value)
    try:
        return None if body is None else msgspec.msgpack.decode(body, type=Counters)
    except msgspec.DecodeError:
        return None


def unseal(key: int, value: bytes) -> Entry:
    """Read a stored message back; raises CorruptStore when it is not what was written."""
    body = unseal_row(value)
    if body is None:
        raise CorruptStore(f"message {key} does not match its checksum")
    try:
        stored = _decode(body)
        return Entry(key, stored.epoch, stored.seq, stored.boot, _decode_record(stored.record))
    except (msgspec.DecodeError, RecursionError) as error:
        raise CorruptStore(f"message {key} can't be decoded: {error}") from error


def seal(body: bytes) -> bytes:
    """A value with its checksum."""
    return binascii.crc32(body).to_bytes(4, "little") + body


def unseal_row(value: bytes | None) -> bytes | None:
    """What was sealed, None when it is not there or does not match."""
    if not value or binascii.crc32(value[4:]) != int.from_bytes(value[:4], "little"):
        return None
    return value[4:]
