"""What one commit of the disk queue writes, and the figures that are written with it."""

import binascii
import secrets
from collections.abc import Sequence

import msgspec

from agent.clock import boot_id
from agent.delivery.record import Entry, Lane, Record
from agent.delivery.store import CorruptStore, Store

LANE_SHIFT = 48
EPOCH_KEY = "epoch"
COUNTERS_KEY = "counters"
QUEUE_FULL = "queue_full"
TOO_OLD = "too_old"
_BATCH = 100


class Counters(msgspec.Struct):
    """Figures of the queue, written in the same transaction as what they count."""

    waiting: int = 0
    waiting_bytes: int = 0
    put: int = 0
    dead: int = 0
    damaged: int = 0
    dropped: dict[str, int] = {}


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    epoch: str
    seq: int
    boot: str
    record: Record


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


class Ledger(msgspec.Struct):
    """The queue's figures and counters. A commit works on a copy, which replaces the ledger once it is on disk."""

    epoch: str
    counters: Counters
    next_key: dict[Lane, int]
    seqs: dict[str, int]  # by topic, as far as they were needed since the queue was opened

    @classmethod
    def read(cls, store: Store) -> "Ledger":
        """The ledger as it was last committed; in a new database, one with a new epoch."""
        epoch = store.get(EPOCH_KEY)
        if epoch is None:
            epoch = secrets.token_hex(8).encode("ascii")
            store.set(EPOCH_KEY, epoch)
        counters = store.get(COUNTERS_KEY)
        return cls(
            epoch.decode("ascii"),
            msgspec.msgpack.decode(counters, type=Counters) if counters else Counters(),
            {lane: store.last_key(*lane_range(lane)) + 1 for lane in Lane},
            {},
        )

    def copy(self) -> "Ledger":
        """One that can be changed without changing this."""
        counters = msgspec.structs.replace(self.counters, dropped=dict(self.counters.dropped))
        return Ledger(self.epoch, counters, dict(self.next_key), dict(self.seqs))

    def put(self, store: Store, records: Sequence[Record], max_bytes: int, *, may_drop: bool) -> list[int] | None:
        """Write records inside a transaction; returns their seqs, or None where there is no room."""
        seqs: dict[str, int] = {}
        values: list[bytes] = []
        numbers: list[int] = []
        for record in records:
            topic = record.topic
            seq = (seqs.get(topic) or self._seq(store, topic)) + 1
            seqs[topic] = seq
            numbers.append(seq)
            values.append(_seal(_encode(_Stored(self.epoch, seq, boot_id(), record))))
        excess = self.counters.waiting_bytes + sum(map(len, values)) - max_bytes
        if excess > 0 and not may_drop:
            return None
        self._drop_oldest(store, excess)
        for record, value in zip(records, values, strict=True):
            store.set(self.next_key[record.lane], value)
            self.next_key[record.lane] += 1
            self._count(1, len(value))
        self.counters.put += len(values)
        self.seqs |= seqs
        for topic, seq in seqs.items():
            store.set(f"seq/{topic}", seq.to_bytes(8, "little"))
        return numbers

    def remove(self, store: Store, keys: Sequence[int], *, dead: str = "", dropped: str = "") -> None:
        """Delete rows inside a transaction: delivered, or kept aside as `dead`, or `dropped`, for the reason given."""
        for key in keys:
            value = store.take(key)
            if value is None:
                self._undrop(key)
                continue
            self._count(-1, -len(value))
            if dropped:
                self._count_drop(Lane(key >> LANE_SHIFT), dropped)
            if dead:
                self.counters.dead += 1
                store.set(f"dead/{self.counters.dead:012d}", msgspec.msgpack.encode((dead, value)))

    def write(self, store: Store) -> None:
        """Write the figures inside a transaction."""
        store.set(COUNTERS_KEY, msgspec.msgpack.encode(self.counters))

    def _seq(self, store: Store, topic: str) -> int:
        return self.seqs.get(topic) or int.from_bytes(store.get(f"seq/{topic}", b""), "little")

    def _count(self, messages: int, size: int) -> None:
        self.counters.waiting += messages
        self.counters.waiting_bytes += size

    def _drop_oldest(self, store: Store, excess: int) -> None:
        """Make room: the oldest of the least urgent lane go first, and every one is counted."""
        for lane in reversed(Lane):
            while excess > 0 and (rows := store.range(*lane_range(lane), _BATCH)):
                for key, value in rows:
                    if excess <= 0:
                        return
                    store.take(key)
                    self._count(-1, -len(value))
                    excess -= len(value)
                    self._count_drop(lane, QUEUE_FULL)

    def _undrop(self, key: int) -> None:
        """It had been dropped for want of room while it was on its way, and arrived: not lost after all."""
        what = f"{Lane(key >> LANE_SHIFT).name.lower()}/{QUEUE_FULL}"
        if self.counters.dropped.get(what):
            self.counters.dropped[what] -= 1

    def _count_drop(self, lane: Lane, reason: str) -> None:
        what = f"{lane.name.lower()}/{reason}"
        self.counters.dropped[what] = self.counters.dropped.get(what, 0) + 1


def lane_range(lane: Lane) -> tuple[int, int]:
    """The keys of a lane lie between these two, neither included."""
    return lane << LANE_SHIFT, (lane + 1) << LANE_SHIFT


def unseal(key: int, value: bytes) -> Entry:
    """Read a stored value back; raises CorruptStore when it is not what was written."""
    body = value[4:]
    if binascii.crc32(body) != int.from_bytes(value[:4], "little"):
        raise CorruptStore(f"message {key} does not match its checksum")
    try:
        stored = _decode(body)
    except msgspec.DecodeError as error:
        raise CorruptStore(f"message {key} can't be decoded: {error}") from error
    return Entry(key, stored.epoch, stored.seq, stored.boot, stored.record)


def _seal(body: bytes) -> bytes:
    return binascii.crc32(body).to_bytes(4, "little") + body
