"""How the agent reaches its brokers: several of them, one after the other, and through WebSockets."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.delivery.codec import Message
from agent.delivery.mqtt import Acknowledgement, Broker, Connection, connect
from tests.brokers import MOSQUITTO, Mosquitto, Nats
from tests.certificates import Authority
from tests.support import Agent, agent, receiver, wait_until
from tests.witness import WINDOW, assert_nothing_lost, config, uplink_of, watched

needs_mosquitto = pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")


def connected(process: Agent) -> list[str]:
    """The brokers that the agent was connected to, in order."""
    return re.findall(r"connected to (\S+) by", process.log.read_text())


@needs_mosquitto
def test_when_a_broker_is_lost_the_next_takes_over_nothing_is_lost_and_the_order_is_kept(short_dir: Path) -> None:
    first, second = Mosquitto(short_dir / "first"), Mosquitto(short_dir / "second")
    urls = [first.url(), second.url()]
    with watched(first, second) as witnesses, agent(short_dir / "a", config(urls)) as process:
        wait_until(lambda: witnesses[0].total() > 30, "telemetry at the first")
        first.signal(signal.SIGKILL)
        wait_until(lambda: witnesses[1].total() > 30, "telemetry at the second", 40)
        first.start()
        before = witnesses[1].total()
        wait_until(lambda: witnesses[1].total() > before + 50, "it stays with the second while that answers")
        assert connected(process) == urls
        second.signal(signal.SIGKILL)
        second.start()
        wait_until(lambda: len(connected(process)) > 2, "a new connection", 40)
        assert connected(process) == [*urls, urls[0]], "the first comes first again, though both are there"
        assert_nothing_lost(process, witnesses, duplicates=2 * WINDOW)


@needs_mosquitto
def test_brokers_that_do_not_answer_are_each_named_with_their_reason_and_the_one_that_does_is_used(
    short_dir: Path,
) -> None:
    broker = Mosquitto(short_dir / "broker")
    urls = ["mqtt://127.0.0.1:9", "mqtt://nowhere.invalid"]
    with agent(short_dir / "a", config(urls)) as process:
        wait_until(lambda: uplink_of(process).get("state") == "failing", "nobody answers", 60)
        error = str(uplink_of(process)["last_error"])
        assert "mqtt://127.0.0.1:9: can't be reached: connection refused" in error
        assert "mqtt://nowhere.invalid: can't be reached: the host's name can't be resolved" in error
    with watched(broker) as (witness,), agent(short_dir / "a", config([*urls, broker.url()])) as process:
        wait_until(lambda: witness.total() > 30, "telemetry", 60)
        assert_nothing_lost(process, [witness], duplicates=0)


@pytest.fixture
def nats(short_dir: Path) -> Iterator[Callable[..., Nats]]:
    """Starts nats-server, which speaks MQTT through WebSockets where Debian's mosquitto does not."""
    servers = []

    def start(tls: str = "") -> Nats:
        servers.append(Nats(short_dir / "nats", tls))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("path", ["", "/mqtt", "/fleet/mqtt"])
def test_telemetry_goes_through_a_websocket_with_its_path(
    short_dir: Path, nats: Callable[..., Nats], path: str
) -> None:
    server = nats()
    text = config([f"ws://127.0.0.1:{server.websocket_port}{path}"])
    with receiver(server.url) as subscriber, agent(short_dir / "a", text) as process:
        wait_until(lambda: len(subscriber.seqs("telemetry/one")) > 20, "telemetry", 40)
        assert process.terminate() == 0
    seqs = subscriber.seqs("telemetry/one")
    assert seqs == list(range(1, len(seqs) + 1))


def test_telemetry_goes_through_a_websocket_with_tls_that_is_verified(
    short_dir: Path, nats: Callable[..., Nats]
) -> None:
    authority = Authority(short_dir / "authority")
    pair = authority.issue("server")
    server = nats(f"cert_file: {json.dumps(str(pair.cert))}, key_file: {json.dumps(str(pair.key))}")
    text = config([f"wss://localhost:{server.websocket_port}"])
    with agent(short_dir / "a", text) as process:
        wait_until(lambda: "authority that is not known" in str(uplink_of(process).get("last_error")), "refusal", 40)
    text = config([f"wss://localhost:{server.websocket_port}"], ca=authority.ca)
    with receiver(server.url) as subscriber, agent(short_dir / "a", text):
        wait_until(lambda: len(subscriber.seqs("telemetry/one")) > 20, "telemetry", 40)


def test_a_port_or_path_without_a_websocket_is_said_to_be_so(short_dir: Path, nats: Callable[..., Nats]) -> None:
    server = nats()
    with agent(short_dir / "a", config([server.url.replace("mqtt://", "ws://")])) as process:
        words = "are port and path those of MQTT over WebSockets?"
        wait_until(lambda: words in str(uplink_of(process).get("last_error")), words, 40)


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_messages_that_a_websocket_takes_in_parts_arrive_whole(
    short_dir: Path, nats: Callable[..., Nats], tls: bool
) -> None:
    authority = Authority(short_dir / "authority")
    pair = authority.issue("server")
    server = nats(f"cert_file: {json.dumps(str(pair.cert))}, key_file: {json.dumps(str(pair.key))}" if tls else "")
    url = f"wss://localhost:{server.websocket_port}" if tls else f"ws://127.0.0.1:{server.websocket_port}"
    broker = Broker(url, ca=str(authority.ca) if tls else "")
    connection = connect(lambda protocol: Connection(broker, "pi", protocol), ("5", "3.1.1"), 10.0)
    try:
        server.signal(signal.SIGSTOP)
        mids = {connection.publish(Message("big", bytes([n]) * 400_000)) for n in range(30)}
        server.signal(signal.SIGCONT)

        def all_acknowledged() -> bool:
            events = connection.step(0.1)
            mids.difference_update(event.mid for event in events if isinstance(event, Acknowledgement))
            return not mids

        wait_until(all_acknowledged, "an acknowledgement of each", 60)
    finally:
        connection.close()
