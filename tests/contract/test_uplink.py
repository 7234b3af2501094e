"""What the uplink promises of a broker that does not do its part. Everything here goes through a real socket."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.delivery.board import Board
from agent.delivery.codec import JsonCodec, Message
from agent.delivery.compression import decompress
from agent.delivery.disk_queue import DiskQueue
from agent.delivery.metering import Metering
from agent.delivery.mqtt import Broker, Connection, Protocol, connect
from agent.delivery.record import Event, Telemetry
from agent.delivery.session import Limits
from agent.delivery.uplink import Uplink
from agent.health import Health, PartHealth
from agent.supervisor import Supervisor
from tests.scripted_broker import Publish, ScriptedBroker
from tests.support import wait_until


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[DiskQueue]:
    opened = DiskQueue(tmp_path / "queue", PartHealth("queue"), max_bytes=2**28, commit_interval_s=0.01)
    opened.open()
    yield opened
    opened.close()


@contextmanager
def uplink(
    queue: DiskQueue,
    url: str,
    limits: Limits | None = None,
    protocols: tuple[Protocol, ...] = ("5", "3.1.1"),
    *,
    metering: Metering | None = None,
    compression: str = "none",
) -> Iterator[Health]:
    """An uplink that runs, supervised, until the block ends."""
    health = Health()
    supervisor = Supervisor(health, backoff_s=0.01, backoff_max_s=0.05)

    def make(will: Message) -> Connection:
        return connect(lambda protocol: Connection(Broker(url), "pi", protocol, will=will), protocols, 5.0)

    part = Uplink(
        make,
        queue=queue,
        board=Board(),
        codec=JsonCodec("edgepost", "pi", compression),
        limits=limits or Limits(),
        metering=metering or Metering(),
    )
    queue.on_commit(part.wake)
    supervisor.start([part])
    try:
        yield health
    finally:
        supervisor.ask_to_stop()
        part.wake()
        supervisor.stop(10)


@contextmanager
def scripted(*arguments: object, **options: object) -> Iterator[ScriptedBroker]:
    broker = ScriptedBroker(*arguments, **options)  # type: ignore[arg-type]
    try:
        yield broker
    finally:
        broker.close()


def put(queue: DiskQueue, count: int, filler: str = "") -> None:
    records = [Telemetry("gps", [(Clock().now(), {"n": n, "filler": filler})]) for n in range(count)]
    assert queue.put(records).wait(10)


def telemetry(broker: ScriptedBroker) -> list[Publish]:
    return [message for message in list(broker.received) if "/telemetry/" in message.topic]


def seqs(messages: list[Publish]) -> list[int]:
    return [json.loads(message.payload)["seq"] for message in messages]


@pytest.mark.parametrize("protocols", [("5",), ("3.1.1",)])
def test_what_is_acknowledged_is_deleted_and_arrived_in_order(
    queue: DiskQueue, protocols: tuple[Protocol, ...]
) -> None:
    with scripted() as broker, uplink(queue, broker.url, protocols=protocols):
        put(queue, 500)
        wait_until(queue.is_empty, "all are delivered")
        assert seqs(telemetry(broker)) == list(range(1, 501))


def test_nothing_is_deleted_before_its_acknowledgement(queue: DiskQueue) -> None:
    with scripted(lambda message: None if "telemetry" in message.topic else 0) as broker:
        with uplink(queue, broker.url, Limits(window=50)):
            put(queue, 100)
            wait_until(lambda: len(telemetry(broker)) == 50, "the window is full")
        assert queue.stats().waiting == 100
        broker.answer = lambda _: 0
        with uplink(queue, broker.url):
            wait_until(queue.is_empty, "all are delivered")
        assert sorted(set(seqs(telemetry(broker)))) == list(range(1, 101))
        assert len(telemetry(broker)) <= 100 + 50, "no more than the window arrives twice"


def test_no_more_are_under_way_than_the_window_or_the_broker_s_receive_maximum_allow(queue: DiskQueue) -> None:
    silent = lambda message: None if "telemetry" in message.topic else 0  # noqa: E731
    with scripted(silent, properties=b"\x21\x00\x07") as broker, uplink(queue, broker.url, Limits(window=50)):
        put(queue, 100)
        wait_until(lambda: len(telemetry(broker)) == 7, "as many as the broker receives at once")
        assert not threading.Event().wait(0.3)
        assert len(telemetry(broker)) == 7


def test_a_broker_that_never_acknowledges_is_left_and_tried_anew(queue: DiskQueue) -> None:
    silent = lambda message: None if "telemetry" in message.topic else 0  # noqa: E731
    with scripted(silent) as broker, uplink(queue, broker.url, Limits(ack_timeout_s=0.2)) as health:
        put(queue, 10)
        wait_until(lambda: broker.connections >= 6, "it is connected to again and again")
        assert "acknowledged nothing" in health.snapshot()["uplink"]["last_error"]
        assert queue.stats().waiting == 10
        assert queue.stats().dead == 0, "silence is no message's fault"
        broker.answer = lambda _: 0
        wait_until(queue.is_empty, "all are delivered")


@pytest.mark.parametrize("reason", [0x80, 0x83, 0x87, 0x97])
def test_a_refusal_that_may_pass_keeps_the_message(queue: DiskQueue, reason: int) -> None:
    refuse = lambda message: reason if "telemetry" in message.topic else 0  # noqa: E731
    with scripted(refuse) as broker, uplink(queue, broker.url) as health:
        put(queue, 3)
        wait_until(lambda: broker.connections >= 3, "it is tried again, with a pause")
        assert f"0x{reason:02x}" in health.snapshot()["uplink"]["last_error"]
        assert queue.stats().waiting == 3
        broker.answer = lambda _: 0
        wait_until(queue.is_empty, "all are delivered")
        assert queue.stats().dead == 0


@pytest.mark.parametrize("reason", [0x90, 0x99])
def test_a_refusal_for_good_puts_the_message_aside_and_the_others_go_on(queue: DiskQueue, reason: int) -> None:
    def refuse_one(message: Publish) -> int:
        return reason if b'"seq":2,' in message.payload else 0

    with scripted(refuse_one) as broker, uplink(queue, broker.url):
        put(queue, 5)
        wait_until(queue.is_empty, "all are settled")
        assert queue.stats().dead == 1
        assert seqs(telemetry(broker)) == [1, 2, 3, 4, 5]
        assert broker.connections == 1


def test_a_puback_that_mqtt_does_not_know_counts_as_a_broken_connection(queue: DiskQueue) -> None:
    """0x95, packet too large, belongs into a DISCONNECT; in a PUBACK it is a protocol error."""

    def refuse_one(message: Publish) -> int:
        return 0x95 if b'"seq":2,' in message.payload else 0

    with scripted(refuse_one) as broker, uplink(queue, broker.url):
        put(queue, 5)
        wait_until(queue.is_empty, "all are settled")
        assert queue.stats().dead == 1
        assert set(seqs(telemetry(broker))) == {1, 2, 3, 4, 5}


def test_a_message_that_is_too_large_for_the_broker_is_put_aside_unsent(queue: DiskQueue) -> None:
    with scripted(properties=b"\x27\x00\x00\x04\x00") as broker, uplink(queue, broker.url):
        put(queue, 1, filler="x" * 2000)
        put(queue, 2)
        wait_until(queue.is_empty, "all are settled")
        assert seqs(telemetry(broker)) == [2, 3]
        assert queue.stats().dead == 1


def test_a_message_that_breaks_the_connection_twice_is_put_aside_and_the_others_go_on(queue: DiskQueue) -> None:
    def hang_up_on_one(message: Publish) -> int | type[ConnectionError]:
        return ConnectionError if b'"seq":7,' in message.payload else 0

    with scripted(hang_up_on_one) as broker, uplink(queue, broker.url):
        put(queue, 100)
        wait_until(queue.is_empty, "all are settled")
        assert queue.stats().dead == 1
        assert set(seqs(telemetry(broker))) == set(range(1, 101))
        assert broker.connections <= 5


def test_a_link_that_keeps_breaking_condemns_no_message(queue: DiskQueue) -> None:
    """Connections that end while many messages are under way say nothing of any one of them."""
    counted = iter(range(10**6))

    def hang_up_now_and_then(_: Publish) -> int | type[ConnectionError]:
        return ConnectionError if next(counted) % 45 == 44 else 0

    with scripted(hang_up_now_and_then) as broker, uplink(queue, broker.url, Limits(window=20)):
        put(queue, 300)
        wait_until(queue.is_empty, "all are delivered", 60)
        assert queue.stats().dead == 0
        assert set(seqs(telemetry(broker))) == set(range(1, 301))


@pytest.mark.parametrize("refusal", [0x84, ConnectionError], ids=["by its code", "by hanging up"])
def test_a_broker_of_mqtt_3_1_1_is_spoken_to_in_it(queue: DiskQueue, refusal: int | type[ConnectionError]) -> None:
    with scripted(only_3_1_1=refusal) as broker, uplink(queue, broker.url) as health:
        put(queue, 3)
        wait_until(queue.is_empty, "all are delivered")
        assert health.snapshot()["uplink"]["protocol"] == "3.1.1"
        assert broker.connections == 2


def test_a_broker_that_lets_nobody_in_is_named_with_its_reason(queue: DiskQueue) -> None:
    with scripted(connack=0x86) as broker, uplink(queue, broker.url) as health:
        wait_until(lambda: broker.connections >= 2, "it is tried again")
        assert "Bad user name or password" in health.snapshot()["uplink"]["last_error"]
        assert "password_file" in health.snapshot()["uplink"]["last_error"]


def test_an_event_overtakes_a_backlog_and_the_least_urgent_lane_still_moves(queue: DiskQueue) -> None:
    with scripted() as broker:
        put(queue, 3000)
        assert queue.put([Event("gate", "motion", {}, Clock().now())]).wait(10)
        with uplink(queue, broker.url, Limits(window=20)):
            wait_until(queue.is_empty, "all are delivered", 60)
        first_hundred = [message.topic for message in broker.received[:100]]
        assert "edgepost/pi/event/gate" in first_hundred
        broker.received.clear()
        assert queue.put([Event("gate", "motion", n, Clock().now()) for n in range(3000)]).wait(10)
        put(queue, 100)
        with uplink(queue, broker.url, Limits(window=20)):
            wait_until(queue.is_empty, "all are delivered", 60)
        half = [message.topic for message in broker.received[:1500]]
        assert "edgepost/pi/telemetry/gps" in half, "telemetry must not starve behind events"


def test_a_metered_link_gets_no_more_than_its_rate_and_everything_arrives(queue: DiskQueue) -> None:
    with scripted() as broker:
        put(queue, 40, filler="x" * 500)
        begin = time.monotonic()
        with uplink(queue, broker.url, metering=Metering(bytes_per_s=20_000)):
            wait_until(queue.is_empty, "all are delivered", 60)
        took_s = time.monotonic() - begin
        sent = sum(len(message.payload) for message in telemetry(broker))
        assert sent / took_s < 20_000


def test_a_month_s_budget_keeps_what_does_not_fit(queue: DiskQueue) -> None:
    with scripted() as broker, uplink(queue, broker.url, metering=Metering(bytes_per_month=5000)):
        put(queue, 40, filler="x" * 500)
        wait_until(lambda: len(telemetry(broker)) >= 5, "what fits is sent")
        assert not threading.Event().wait(0.5)
        assert sum(len(message.payload) for message in telemetry(broker)) <= 5000 + 700
        assert queue.stats().waiting >= 30


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_messages_are_smaller_and_read_back_the_same(queue: DiskQueue, compression: str) -> None:
    with scripted() as broker, uplink(queue, broker.url, compression=compression):
        put(queue, 3, filler="word " * 400)
        wait_until(queue.is_empty, "all are delivered")
        for number, message in enumerate(telemetry(broker)):
            assert len(message.payload) < 500
            body = json.loads(decompress(message.payload))
            assert body["readings"][0]["values"] == {"n": number, "filler": "word " * 400}


def test_the_window_counts_what_is_acknowledged_and_not_yet_deleted_on_disk(tmp_path: Path) -> None:
    """Else a crash before the next commit would send more than the window twice."""
    slow = DiskQueue(tmp_path / "slow", PartHealth("queue"), max_bytes=2**24, commit_interval_s=2.0, commit_rows=10**6)
    slow.open()
    with scripted() as broker:
        put(slow, 100)
        with uplink(slow, broker.url, Limits(window=10)):
            wait_until(lambda: len(telemetry(broker)) == 10, "the window is full")
            assert not threading.Event().wait(0.5)
            assert len(telemetry(broker)) == 10
    slow.close()


def test_on_mqtt_5_a_message_names_its_epoch_seq_and_content_type(queue: DiskQueue) -> None:
    with scripted() as broker, uplink(queue, broker.url, protocols=("5",)):
        put(queue, 2)
        wait_until(queue.is_empty, "all are delivered")
    properties = telemetry(broker)[1].properties
    for text in (b"application/json", b"\x00\x05epoch\x00\x10" + queue.epoch.encode(), b"\x00\x03seq\x00\x012"):
        assert text in properties


def test_what_is_retained_is_said_again_on_every_connection(queue: DiskQueue) -> None:
    board = Board()
    with scripted() as broker:
        part = Uplink(
            lambda will: connect(
                lambda protocol: Connection(Broker(broker.url), "pi", protocol, will=will), ("5",), 5.0
            ),
            queue=queue,
            board=board,
            codec=JsonCodec("edgepost", "pi"),
            limits=Limits(),
            metering=Metering(),
        )
        board.post(Message("edgepost/pi/meta/gps", b"{}", retain=True))
        board.post(Message("edgepost/pi/health", b"{}"))
        for _ in range(2):
            supervisor = Supervisor(Health())
            supervisor.start([part])
            before = len(broker.received)
            wait_until(lambda n=before: "edgepost/pi/meta/gps" in [m.topic for m in broker.received[n:]], "meta")
            supervisor.ask_to_stop()
            part.wake()
            supervisor.stop(10)
    topics = [message.topic for message in broker.received]
    assert topics.count("edgepost/pi/meta/gps") == 2
    assert topics.count("edgepost/pi/health") == 0, "figures that nobody could take are not news any more"
    assert all(message.retain for message in broker.received)
