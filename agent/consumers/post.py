"""Hands events to the agent, from any program on the same machine.

with EventPoster() as agent:
    agent.post("gate", "motion", {"state": "started"})
"""

from pathlib import Path
from typing import Any, Self

import msgspec
import zmq

from agent.errors import EdgepostError
from agent.paths import check_socket_path, ingest_address, runtime_dir


class PostFailed(EdgepostError):
    """The agent did not take an event. The text says why."""


class NoAnswer(PostFailed, TimeoutError):
    """The agent is away or too busy. It may still take the event: one that is posted again may come twice."""


class _Reply(msgspec.Struct, frozen=True):
    ok: bool
    epoch: str = ""
    seq: int = 0
    error: str = ""


class EventPoster:
    """Posts events one at a time. An event whose `post` returned is on the agent's disk. For one thread."""

    def __init__(self, runtime: Path | None = None) -> None:
        """Connect nothing yet; raises EdgepostError when the directory's name is too long for a socket."""
        directory = runtime_dir(runtime)
        check_socket_path(directory / "ingest")
        self._address = ingest_address(directory)
        self._socket: zmq.Socket[bytes] | None = None

    def post(
        self,
        source: str,
        type: str,  # noqa: A002 (as it is called on the wire)
        data: dict[str, Any],
        *,
        ts_ms: float | None = None,
        timeout_s: float = 5.0,
    ) -> tuple[str, int]:
        """Post an event of `source`, by default of this moment; returns the epoch and seq it is published under.

        `ts_ms` is Unix time in milliseconds. Raises NoAnswer after `timeout_s`, PostFailed when the agent refuses.
        """
        event = {"source": source, "type": type, "data": data} | ({} if ts_ms is None else {"ts": ts_ms})
        answer = self._ask(msgspec.json.encode(event), timeout_s)
        try:
            reply = msgspec.json.decode(answer, type=_Reply)
        except ValueError as error:
            raise PostFailed(
                f"{self._address}: answered {answer[:80]!r}, which is no reply: is that the agent?"
            ) from error
        if not reply.ok:
            raise PostFailed(f"{self._address}: the agent refused the event: {reply.error}")
        return reply.epoch, reply.seq

    def close(self) -> None:
        """Hang up. Safe at any time and twice; `post` connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: bytes, timeout_s: float) -> bytes:
        try:
            socket = self._socket = self._socket or _connect(self._address)
            if socket.poll(int(timeout_s * 1000), zmq.POLLOUT):
                socket.send(request, zmq.DONTWAIT)
                if socket.poll(int(timeout_s * 1000)):
                    return socket.recv_multipart()[-1]
        except zmq.ZMQError as error:
            self.close()
            raise PostFailed(f"{self._address}: {error}") from error
        self.close()  # a late reply must not be taken for that of the next event
        raise NoAnswer(f"{self._address}: no answer within {timeout_s:g} s: is the agent running?")


def _connect(address: str) -> "zmq.Socket[bytes]":
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(address)
    return socket
