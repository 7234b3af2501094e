"""The ingest socket: where programs on this machine post events, and are told once they are on disk.

ROUTER on `ipc://<runtime>/ingest`. A DEALER or REQ sends one part of JSON `{"source","type","ts","data"}`; the answer
is `{"ok":true,"epoch","seq"}` once the event can't be lost any more, or `{"ok":false,"error"}`. A client that sends
more than 1 MiB is hung up on.
"""

import os
import threading
from collections import deque
from pathlib import Path
from typing import Annotated, Any

import msgspec
import zmq

from agent.clock import Clock
from agent.config import Name
from agent.delivery.record import Event, Queue, Ticket
from agent.errors import EdgepostError
from agent.health import PartHealth
from agent.paths import check_socket_path, ingest_address

MAX_MESSAGE_BYTES = 1024 * 1024
MAX_WAITING = 1000
MAX_DEPTH = 32
TURN = 100  # posts taken before answers are sent
HIGH_WATER = 16  # posts and answers that ZMQ keeps for a client
POLL_MS = 500


class _Post(msgspec.Struct, forbid_unknown_fields=True):
    source: Name
    type: Name
    data: Any = None
    ts: Annotated[float, msgspec.Meta(ge=1e12, lt=1e13)] | None = None


class Ingest:
    """A supervised part. `wake()` is to be called when the queue has committed."""

    name = "ingest"

    def __init__(self, queue: Queue, runtime: Path, clock: Clock) -> None:
        self._queue = queue
        self._runtime = runtime
        self._clock = clock
        self._decode = msgspec.json.Decoder(_Post).decode
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wake(self) -> None:
        """Tickets may be done; safe from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def run(self, stop: threading.Event, health: PartHealth) -> None:
        """Answer posts until told to stop."""
        check_socket_path(self._runtime / "ingest")
        with zmq.Context(io_threads=1) as context, context.socket(zmq.ROUTER) as socket:
            socket.linger = 0
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
            socket.set_hwm(HIGH_WATER)
            socket.bind(ingest_address(self._runtime))
            (self._runtime / "ingest").chmod(0o600)
            try:
                self._serve(socket, stop, health)
            finally:
                (self._runtime / "ingest").unlink(missing_ok=True)

    def _serve(self, socket: "zmq.Socket[bytes]", stop: threading.Event, health: PartHealth) -> None:
        waiting: deque[tuple[list[bytes], Ticket]] = deque()
        woken, all_events = zmq.Poller(), zmq.Poller()  # while too many wait for the disk, only that counts
        for poller in (woken, all_events):
            poller.register(self._wake_fd, zmq.POLLIN)
        all_events.register(socket, zmq.POLLIN)
        health.ok(events=0)
        while not stop.is_set():
            ready = dict((woken if len(waiting) >= MAX_WAITING else all_events).poll(POLL_MS))
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
            for _ in range(TURN):
                if len(waiting) >= MAX_WAITING or not socket.poll(0):
                    break
                envelope, parts = _split(socket.recv_multipart())
                answer = self._take(parts)
                if isinstance(answer, Ticket):
                    waiting.append((envelope, answer))
                else:
                    _answer(socket, envelope, {"ok": False, "error": answer})
                    health.add(refused=1)
            while waiting and waiting[0][1].done:
                envelope, ticket = waiting.popleft()
                _answer(socket, envelope, {"ok": True, "epoch": ticket.epoch, "seq": ticket.seqs[0]})
                health.add(events=1)

    def _take(self, parts: list[bytes]) -> Ticket | str:
        """Put a post in the queue; a refusal in words otherwise."""
        if len(parts) != 1:
            return f"expected one part of JSON, found {len(parts)} parts"
        try:
            post = self._decode(parts[0])
            if not _is_flat_enough(post.data, MAX_DEPTH):
                return f"data is nested too deep, expected at most {MAX_DEPTH} levels"
            return self._queue.put([Event(post.source, post.type, post.data, self._clock.now(), post.ts)])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f'{error}; expected {{"source","type","ts","data"}}, ts being Unix time in milliseconds, or left out'
        except EdgepostError as error:
            return str(error)


def _is_flat_enough(data: Any, depth: int) -> bool:
    """Whether lists and tables are nested no deeper than `depth`."""
    if not isinstance(data, (dict, list)):
        return True
    items = data.values() if isinstance(data, dict) else data
    return depth > 0 and all(_is_flat_enough(each, depth - 1) for each in items)


def _split(frames: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Envelope and content: a REQ puts an empty frame between them, a DEALER does not."""
    cut = 2 if len(frames) > 2 and frames[1] == b"" else 1
    return frames[:cut], frames[cut:]


def _answer(socket: "zmq.Socket[bytes]", envelope: list[bytes], answer: dict[str, object]) -> None:
    socket.send_multipart([*envelope, msgspec.json.encode(answer)], zmq.NOBLOCK)
