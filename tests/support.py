"""What several tests use: a real agent process, a receiver, and waiting with a bound."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.delivery.compression import decompress
from agent.delivery.mqtt import Broker, Connection, Received, connect

ROOT = Path(__file__).parents[1]
EDGEPOST = [sys.executable, "-m", "agent"]


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """The condition's first true value; fails with `what` when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not in {timeout_s:g} s: {what}"
        time.sleep(0.02)


def edgepost(*arguments: object, timeout_s: float = 60.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*EDGEPOST, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class Agent:
    """`edgepost run` as a process of its own, with its directories below `home`."""

    def __init__(self, home: Path, config: str) -> None:
        home.mkdir(exist_ok=True, parents=True)
        self.data = home / "data"
        self.runtime = home / "run"
        self.config = home / "agent.toml"
        self.config.write_text(config, "utf-8")
        self._log = (home / "agent.log").open("ab")
        self.log = home / "agent.log"
        self.process = subprocess.Popen(
            [*EDGEPOST, "run", "--config", self.config, "--data-dir", self.data, "--runtime-dir", self.runtime],
            cwd=ROOT,
            stderr=self._log,
            stdout=self._log,
        )

    def status(self) -> dict[str, Any]:
        """What `edgepost status` says, or {} while it does not answer."""
        answer = edgepost("status", "--json", "--runtime-dir", self.runtime)
        return json.loads(answer.stdout) if answer.returncode == 0 else {}

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self, timeout_s: float = 20.0) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._log.close()


@contextmanager
def agent(home: Path, config: str) -> Iterator[Agent]:
    """An agent that ends with the block."""
    process = Agent(home, config)
    try:
        yield process
    finally:
        process.close()


class Receiver:
    """Subscribes to everything and keeps what arrives, over as many connections as it takes."""

    def __init__(self, url: str, topic: str = "edgepost/#") -> None:
        self.messages: list[Received] = []
        self._stop = threading.Event()
        self._connection = connect(lambda protocol: Connection(Broker(url), "", protocol), ("5", "3.1.1"), 5.0)
        self._connection.subscribe(topic)
        wait_until(lambda: self._connection.step(0.1), "a SUBACK")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def bodies(self, part: str) -> list[dict[str, Any]]:
        """The JSON of all messages whose topic contains `part`, in order."""
        return [json.loads(decompress(message.payload)) for message in list(self.messages) if part in message.topic]

    def seqs(self, part: str) -> list[int]:
        """The seqs of all messages whose topic contains `part`, in order."""
        return [body["seq"] for body in self.bodies(part)]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._connection.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.messages += [event for event in self._connection.step(0.1) if isinstance(event, Received)]


@contextmanager
def receiver(url: str, topic: str = "edgepost/#") -> Iterator[Receiver]:
    """A receiver that ends with the block."""
    subscriber = Receiver(url, topic)
    try:
        yield subscriber
    finally:
        subscriber.close()
