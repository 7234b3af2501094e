"""What must arrive, and who sees it arrive: a receiver that outlives brokers, and an agent's figures beside it."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent import control_socket
from agent.delivery.disk_queue import inspect
from agent.delivery.mqtt import Broker, Connection, ConnectionLost, Received
from agent.errors import EdgepostError
from tests.brokers import Mosquitto
from tests.support import Agent, wait_until

WINDOW = 20


def config(urls: list[str], sensors: dict[str, str] | None = None, **keys: object) -> str:
    """A configuration with these `[mqtt]` keys and sensors, given as name and interval."""
    more = "\n".join(f'{key} = "{value}"' for key, value in keys.items())
    sources = "".join(
        f'[[sensor]]\nname = "{name}"\ndriver = "uptime"\ninterval = "{interval}"\nbatch_time = "0s"\n'
        for name, interval in (sensors or {"one": "40ms", "two": "100ms"}).items()
    )
    return f'[device]\nid = "pi"\n[mqtt]\nurls = {urls!r}\nwindow = {WINDOW}\n{more}\n{sources}'


class Witness:
    """Receives all that the agent sends, over as many connections as it takes, in a session that outlives them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._ready = threading.Event()
        self.received: dict[str, list[int]] = {}
        """The seqs that arrived, in order, by topic."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until it is subscribed."""
        assert self._ready.wait(20)

    def total(self) -> int:
        """How many arrived, each once."""
        return sum(len(set(seqs)) for seqs in list(self.received.values()))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            connection = Connection(Broker(self._url), "witness", "5", keep_session=True)
            with contextlib.suppress(ConnectionLost):
                connection.open(2.0)
                connection.subscribe("edgepost/+/telemetry/#")
                while not self._stop.is_set():
                    for event in connection.step(0.1):
                        if isinstance(event, Received):
                            self.received.setdefault(event.topic, []).append(int(json.loads(event.payload)["seq"]))
                        else:
                            self._ready.set()
            connection.close()
            self._stop.wait(0.05)


@contextmanager
def watched(*brokers: Mosquitto) -> Iterator[list[Witness]]:
    """Started brokers, each with a witness whose subscription it has on disk; all end with the block."""
    witnesses: list[Witness] = []
    try:
        for broker in brokers:
            broker.start()
            witnesses.append(Witness(broker.witness_url))
            witnesses[-1].wait()
            broker.save()
        yield witnesses
    finally:
        for witness in witnesses:
            witness.close()
        for broker in brokers:
            broker.close()


def uplink_of(process: Agent) -> dict[str, object]:
    """What the agent's status says of its uplink, or {} while it does not answer."""
    try:
        part: dict[str, object] = control_socket.ask(process.runtime)["parts"].get("uplink", {})
    except (EdgepostError, ValueError):
        return {}
    return part


def waiting(process: Agent) -> int:
    """How many messages wait on disk; -1 while there is no agent to say so."""
    try:
        return int(control_socket.ask(process.runtime)["queue"]["waiting"])
    except (EdgepostError, ValueError):
        return -1


def assert_nothing_lost(process: Agent, witnesses: Sequence[Witness], *, duplicates: int) -> None:
    """Ends the agent. All that it ever put into its queue has arrived, in order; no more than that arrived twice."""
    time.sleep(0.5)
    wait_until(lambda: 0 <= waiting(process) < 50, "the backlog is as good as drained", 60)
    assert process.terminate() == 0
    queue = inspect(process.data / "queue")
    expected = queue.put - queue.waiting
    wait_until(lambda: _union(witnesses) >= expected, f"all {expected} arrive: {_union(witnesses)}")
    for witness in witnesses:
        for topic, seqs in witness.received.items():
            first = list(dict.fromkeys(seqs))
            assert first == sorted(first), f"{topic}: out of order: {first}"
    arrived = sum(len(seqs) for witness in witnesses for seqs in witness.received.values())
    assert arrived - _union(witnesses) <= duplicates
    assert queue.dead == 0
    assert "Traceback" not in process.log.read_text()


def _union(witnesses: Sequence[Witness]) -> int:
    return len(
        {(topic, seq) for witness in witnesses for topic, seqs in list(witness.received.items()) for seq in seqs}
    )
