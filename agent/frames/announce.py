"""Announcements of frames over ZMQ, for whoever needs every frame, another language, or discovery."""

import contextlib
import os
from pathlib import Path

import zmq

from agent.frames.directory import announce_path
from agent.frames.layout import Announcement


class Announcer:
    """Publishes a camera's announcements. Own the camera's lock first: a second bind silently steals the socket."""

    def __init__(self, frames: Path, camera: str, slots: int) -> None:
        self._path = announce_path(frames, camera)
        self._camera = camera
        self._slots = slots
        self._socket: zmq.Socket[bytes] | None = None

    def open(self) -> None:
        """Bind the socket, in place of what a dead worker left; raises OSError."""
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        socket.linger = 0
        socket.set_hwm(self._slots)  # what is older than the ring is of no use
        self._socket = socket
        self._path.unlink(missing_ok=True)
        socket.bind(f"ipc://{self._path}")
        os.chmod(self._path, 0o660)  # noqa: PTH101 (a socket; connecting needs write permission)

    def send(self, announcement: Announcement) -> None:
        """Announce a frame. Never waits: a subscriber that is full misses it."""
        assert self._socket is not None
        self._socket.send(announcement.pack(self._camera), zmq.DONTWAIT)

    def close(self) -> None:
        """Close and remove the socket. Safe at any time and twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)


class Listener:
    """Collects a camera's announcements beside another way of waiting: it never blocks."""

    def __init__(self, frames: Path, camera: str) -> None:
        self._path = announce_path(frames, camera)
        self._camera = camera

    def open(self) -> None:
        """Subscribe; what is announced from about now on will come, also from a worker that starts later."""
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        socket.linger = 0
        socket.set_hwm(0)  # no limit: drained at leisure, it keeps all
        socket.subscribe(self._camera.encode() + b"\0")
        socket.connect(f"ipc://{self._path}")
        self._socket = socket

    def drain(self) -> list[Announcement]:
        """All that have come since the last call, oldest first; raises BadRing."""
        found = []
        with contextlib.suppress(zmq.Again):
            while True:
                found.append(Announcement.unpack(self._socket.recv(zmq.DONTWAIT))[1])
        return found

    def close(self) -> None:
        """Unsubscribe."""
        self._socket.close()
