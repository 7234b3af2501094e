"""What is under way on one connection: what was sent, what the broker has said of it, and what may be sent next."""

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from agent.delivery.board import Board
from agent.delivery.codec import JsonCodec, Message
from agent.delivery.metering import Metering
from agent.delivery.mqtt import Acknowledgement, Connection, ConnectionLost, Received
from agent.delivery.record import Entry, Lane, Queue, Ticket
from agent.delivery.suspicion import Suspicion
from agent.health import PartHealth

log = logging.getLogger(__name__)

UNDELIVERABLE = {0x90: "the broker refuses the topic", 0x95: "too large for the broker", 0x99: "the broker refuses it"}
"""PUBACK codes that no repetition turns into a success; any other failure keeps the message for a new connection."""

FAILURE = 0x80
PEEK = 64
IDLE_S = 1.0
FAIR_SHARE = 16  # of so many messages, one comes from the least urgent lane that has any
PROMPT_S = 5.0
HEADER_BYTES = 128  # more than the fixed header, the topic's length and our properties take


class Limits(msgspec.Struct, frozen=True):
    """`window`: entries sent and not yet deleted on disk. `ack_timeout_s`: how long the broker may keep silent."""

    window: int = 256
    ack_timeout_s: float = 20.0
    linger_s: float = 1.0


class _Sent(msgspec.Struct, frozen=True):
    key: int | None  # None: from the board, not from the queue
    at_s: float


class Session:
    """Publishes on one connection until it is lost or `stop` is set. Used by one thread."""

    def __init__(
        self,
        connection: Connection,
        *,
        queue: Queue,
        board: Board,
        codec: JsonCodec,
        limits: Limits,
        suspicion: Suspicion,
        metering: Metering,
        health: PartHealth,
    ) -> None:
        self._queue = queue
        self._board = board
        self._codec = codec
        self._connection = connection
        self._limits = limits
        self._suspicion = suspicion
        self._metering = metering
        self._health = health
        self._unacknowledged: dict[int, _Sent] = {}
        self._deleting: deque[Ticket] = deque()
        self._cursor = dict.fromkeys(Lane, 0)
        self._ahead: dict[Lane, deque[Entry]] = {lane: deque() for lane in Lane}
        self._dry: set[Lane] = set()  # lanes that were found empty since the queue last committed
        self._published = 0

    def serve(self, stop: threading.Event, wake_fd: int) -> None:
        """Publish; once stopped, what waits gets `linger_s` more. Raises ConnectionLost."""
        end: float | None = None
        while True:
            self._publish_what_fits()
            if stop.is_set():
                end = end or time.monotonic() + self._limits.linger_s
                if time.monotonic() > end or not (self._unacknowledged or len(self._dry) < len(Lane)):
                    return
            pause_s = min(0.05 if end else IDLE_S, self._metering.ready_in_s() or IDLE_S)
            self._settle(self._connection.step(pause_s, wake_fd))
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(wake_fd)
                self._dry.clear()
            self._check_acknowledgements()

    def just_sent(self) -> list[int]:
        """The keys of the entries that were sent a moment ago and not acknowledged, in the order of sending."""
        recent = time.monotonic() - PROMPT_S
        return [sent.key for sent in self._unacknowledged.values() if sent.key is not None and sent.at_s > recent]

    def say(self, message: Message, timeout_s: float) -> bool:
        """Publish one message and wait for its PUBACK; returns whether it came."""
        mid = self._send(message, None)
        deadline = time.monotonic() + timeout_s
        while mid in self._unacknowledged and time.monotonic() < deadline:
            self._settle(self._connection.step(0.05))
        return mid not in self._unacknowledged

    def _publish_what_fits(self) -> None:
        while self._room() > 0:
            if message := self._board.take():
                self._send(message, None)
            elif entry := self._next_entry():
                self._publish(entry)
            else:
                return

    def _room(self) -> int:
        while self._deleting and self._deleting[0].done:
            self._deleting.popleft()
        if self._metering.ready_in_s() > 0:
            return 0
        under_way = len(self._unacknowledged)
        in_window = under_way + sum(ticket.count for ticket in self._deleting)
        at_once = 1 if self._suspicion.careful else self._connection.receive_maximum
        return min(self._limits.window - in_window, at_once - under_way)

    def _next_entry(self) -> Entry | None:
        """The oldest entry of the most urgent lane that has one; now and then of the least urgent."""
        fair = self._published % FAIR_SHARE == FAIR_SHARE - 1
        for lane in reversed(Lane) if fair else Lane:
            ahead = self._ahead[lane]
            if not ahead and lane not in self._dry:
                ahead.extend(self._queue.peek(lane, self._cursor[lane], PEEK))
                if ahead:
                    self._cursor[lane] = ahead[-1].key
                else:
                    self._dry.add(lane)
            if ahead:
                self._published += 1
                return ahead.popleft()
        return None

    def _publish(self, entry: Entry) -> None:
        try:
            message = self._codec.encode(entry)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            self._reject(entry.key, f"can't be encoded: {error}")
            return
        size = _size(message)
        limit = self._connection.maximum_packet_size
        if limit is not None and size > limit:
            self._reject(entry.key, f"{size} bytes, the broker takes {limit}")
            return
        self._send(message, entry.key)

    def _send(self, message: Message, key: int | None) -> int:
        self._metering.spend(_size(message))
        mid = self._connection.publish(message)
        self._unacknowledged[mid] = _Sent(key, time.monotonic())
        return mid

    def _settle(self, events: Sequence[Acknowledgement | Received]) -> None:
        delivered: list[int] = []
        for event in events:
            if not isinstance(event, Acknowledgement):
                continue
            sent = self._unacknowledged.pop(event.mid, None)
            if sent is None or sent.key is None:
                continue
            if event.code < FAILURE or event.code in UNDELIVERABLE:
                self._suspicion.settled()
            if event.code < FAILURE:
                delivered.append(sent.key)
            elif event.code in UNDELIVERABLE:
                self._reject(sent.key, f"{UNDELIVERABLE[event.code]} (reason 0x{event.code:02x})")
            else:
                self._delivered(delivered)
                raise ConnectionLost(f"{self._connection.url}: did not take a message (reason 0x{event.code:02x})")
        self._delivered(delivered)

    def _delivered(self, keys: list[int]) -> None:
        if keys:
            self._deleting.append(self._queue.acknowledge(keys))
            self._health.add(delivered=len(keys))

    def _reject(self, key: int, reason: str) -> None:
        log.error("uplink: a message was put aside as dead: %s", reason)
        self._deleting.append(self._queue.reject(key, reason))

    def _check_acknowledgements(self) -> None:
        if not self._unacknowledged:
            return
        waited = time.monotonic() - next(iter(self._unacknowledged.values())).at_s
        if waited > self._limits.ack_timeout_s:
            raise ConnectionLost(f"{self._connection.url}: acknowledged nothing for {waited:.0f} s")


def _size(message: Message) -> int:
    """Bytes on the wire, at most."""
    return len(message.payload) + len(message.topic) + HEADER_BYTES
