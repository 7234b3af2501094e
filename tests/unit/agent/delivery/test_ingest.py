"""The ingest socket answers once an event is on disk, and nobody can make it stall or grow."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from agent.clock import Clock
from agent.delivery.disk_queue import DiskQueue
from agent.delivery.ingest import Ingest
from agent.health import Health, PartHealth
from agent.paths import ingest_address
from agent.supervisor import Supervisor
from tests.support import wait_until

POST = b'{"source":"a","type":"x"}'


@pytest.fixture
def clients() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context


class Served:
    """An ingest socket on a queue."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.runtime = directory
        self.queue = DiskQueue(directory / "queue", PartHealth("queue"), **({"max_bytes": 2**24} | options))
        self.queue.open()
        self._ingest = Ingest(self.queue, directory, Clock())
        self.queue.on_commit(self._ingest.wake)
        self._supervisor = Supervisor(Health())
        self._supervisor.start([self._ingest])
        wait_until((directory / "ingest").exists, "the socket")

    def close(self) -> None:
        assert self._supervisor.stop(5) == []
        self.queue.close()


def connect(context: zmq.Context[Any], served: Served) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(ingest_address(served.runtime))
    return socket


def test_the_answer_comes_only_once_the_event_is_on_disk(short_dir: Path, clients: zmq.Context[Any]) -> None:
    served = Served(short_dir, commit_interval_s=1.0, commit_rows=1000)
    with connect(clients, served) as socket:
        socket.send(POST)
        assert json.loads(socket.recv())["ok"] is True
        began = time.monotonic()
        socket.send(POST)
        assert socket.poll(300) == 0, "the second commit is a second away"
        answer = json.loads(socket.recv())
        assert time.monotonic() - began > 0.5
        assert answer == {"ok": True, "epoch": served.queue.epoch, "seq": 2}
    served.close()


@pytest.mark.parametrize(
    ("post", "words"),
    [
        (b'{"source":"a","type":"x","data":' + b"[" * 40 + b"]" * 40 + b"}", "nested too deep"),
        (b'{"source":"a","type":"x","data":' + b"[" * 5000 + b"]" * 5000 + b"}", "expected"),
        (b'{"source":"a","type":"x","data":123456789012345678901234567890}', "can't be stored"),
        (b'{"source":"a","type":"x","ts":1763905000}', "milliseconds"),
        (b'{"source":"a\\n","type":"x"}', "expected"),
    ],
)
def test_what_can_not_be_kept_is_refused_and_the_next_is_taken(
    short_dir: Path, clients: zmq.Context[Any], post: bytes, words: str
) -> None:
    served = Served(short_dir)
    with connect(clients, served) as socket:
        socket.send(post)
        assert socket.poll(10_000)
        answer = json.loads(socket.recv())
        assert answer["ok"] is False
        assert words in answer["error"]
        socket.send(POST)
        assert socket.poll(10_000)
        assert json.loads(socket.recv())["ok"] is True
    served.close()


def test_a_message_over_a_mebibyte_is_not_taken_and_others_are(short_dir: Path, clients: zmq.Context[Any]) -> None:
    served = Served(short_dir)
    with connect(clients, served) as large, connect(clients, served) as socket:
        large.send(b"x" * (2 * 1024 * 1024))
        assert large.poll(500) == 0
        socket.send(POST)
        assert socket.poll(10_000)
        assert json.loads(socket.recv())["ok"] is True
    served.close()


def test_a_flood_of_garbage_keeps_nobody_else_from_an_answer(short_dir: Path, clients: zmq.Context[Any]) -> None:
    served = Served(short_dir)
    stop = threading.Event()

    def flood() -> None:
        with connect(clients, served) as socket:
            while not stop.is_set():
                if socket.poll(10, zmq.POLLOUT):
                    socket.send(b"garbage")

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with connect(clients, served) as socket:
            for _ in range(5):
                socket.send(POST)
                assert socket.poll(10_000), "no answer"
                assert json.loads(socket.recv())["ok"] is True
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    served.close()
