"""The uplink: publishes what the queue holds and deletes it after the broker's PUBACK.

    queue ─peek─► window ─publish─► broker ─PUBACK─► acknowledge ─► queue

- The disk is the only truth: every connection starts from the oldest row that is not deleted, with a new paho client.
- The window bounds what may be sent twice after a fault: an entry leaves it only when its deletion is on disk. Within
  it, no more messages are without a PUBACK than the broker's Receive Maximum allows.
- A broker that answers pings but acknowledges nothing is left after `ack_timeout_s`.
"""

import json
import logging
import os
import threading
from collections.abc import Callable

from agent.delivery.board import Board
from agent.delivery.codec import JsonCodec, Message
from agent.delivery.metering import Metering
from agent.delivery.mqtt import Connection, ConnectionBroken, ConnectionLost
from agent.delivery.record import Queue
from agent.delivery.session import Limits, Session
from agent.delivery.suspicion import Suspicion
from agent.health import PartHealth

log = logging.getLogger(__name__)

GOODBYE_S = 1.0


class Uplink:
    """A supervised part: one run is one connection."""

    name = "uplink"

    def __init__(
        self,
        connect: Callable[[Message], Connection],
        *,
        queue: Queue,
        board: Board,
        codec: JsonCodec,
        limits: Limits,
        metering: Metering,
    ) -> None:
        """`connect(will)` opens a connection or raises ConnectionLost."""
        self._queue = queue
        self._board = board
        self._codec = codec
        self._connect = connect
        self._limits = limits
        self._metering = metering
        self._suspicion = Suspicion()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wake(self) -> None:
        """Something may have become due; safe from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def run(self, stop: threading.Event, health: PartHealth) -> None:
        """Serve one connection from its start to its end; raises ConnectionLost."""
        connection = self._connect(self._status("offline"))
        try:
            log.info("uplink: connected to %s by MQTT %s", connection.url, connection.protocol)
            self._board.repeat()
            session = Session(
                connection,
                queue=self._queue,
                board=self._board,
                codec=self._codec,
                limits=self._limits,
                suspicion=self._suspicion,
                metering=self._metering,
                health=health,
            )
            try:
                if not session.say(self._status("online"), self._limits.ack_timeout_s):
                    raise ConnectionLost(f"{connection.url}: did not acknowledge our first message")
                health.ok(broker=connection.url, protocol=connection.protocol)
                session.serve(stop, self._wake_fd)
            except ConnectionBroken:
                self._blame(session)
                raise
            session.say(self._status("stopped"), GOODBYE_S)
        finally:
            connection.close(goodbye=stop.is_set())
            self._metering.save()

    def _blame(self, session: Session) -> None:
        guilty = self._suspicion.lost(session.just_sent())
        if guilty is not None:
            log.error("uplink: a message broke the connection twice and was put aside as dead")
            self._queue.reject(guilty, "broke the connection twice")

    def _status(self, state: str) -> Message:
        return Message(f"{self._codec.prefix}/status", json.dumps({"state": state}).encode(), retain=True)
