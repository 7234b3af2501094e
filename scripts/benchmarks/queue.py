"""What the disk queue and the uplink can do, each beside a baseline of the same run."""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import diskcache
import paho.mqtt.client as paho

from agent.clock import Clock
from agent.delivery.board import Board
from agent.delivery.codec import JsonCodec, Message
from agent.delivery.disk_queue import DiskQueue
from agent.delivery.metering import Metering
from agent.delivery.mqtt import Connection, Protocol, connect
from agent.delivery.record import Lane, Telemetry
from agent.delivery.session import Limits
from agent.delivery.uplink import Uplink
from agent.health import Health, PartHealth
from agent.simulator.broker import OwnBroker
from agent.supervisor import Supervisor

MESSAGES = 20_000
MANY = int(os.environ.get("EDGEPOST_BENCH_MANY", "1000000"))
WINDOW = 256
GROUP = 50
FILLER = "x" * 200  # makes records of about 300 bytes
BLOCK = 1000
TRICKLE_S = 20.0
TRICKLE_BYTES = 10_000


def main() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory(prefix="ep-", dir=".") as directory:
        home = Path(directory)
        broker = OwnBroker(home / "broker")
        broker.start()
        try:
            rows = [
                put(home),
                drain(home, broker),
                readings(home, broker),
                *many(home),
                written(home),
            ]
        finally:
            broker.stop()
    print("| what | edgepost | baseline in the same run | ratio |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def put(home: Path) -> tuple[str, ...]:
    """Durable puts of 300-byte records, beside diskcache's own `add`, both committed in groups of 50."""
    progress("put")
    queue = opened(home / "put")
    records = [record(number) for number in range(MESSAGES)]
    begin = time.perf_counter()
    for start in range(0, MESSAGES, GROUP):
        ticket = queue.put(records[start : start + GROUP])
    ticket.wait(60)
    rate = MESSAGES / (time.perf_counter() - begin)
    queue.close()
    options = {"eviction_policy": "none", "cull_limit": 0, "sqlite_synchronous": 2}
    cache = diskcache.Cache(str(home / "bare"), **options)
    value = b"x" * 300
    begin = time.perf_counter()
    for start in range(0, MESSAGES, GROUP):
        with cache.transact():
            for key in range(start, start + GROUP):
                cache.add(key, value)
    baseline = MESSAGES / (time.perf_counter() - begin)
    cache.close()
    return (
        "put, 300 bytes, durable", f"{rate:,.0f}/s", f"{baseline:,.0f}/s (diskcache add, 50 a commit)",
        f"{rate / baseline:.2f}",
    )  # fmt: skip


def drain(home: Path, broker: OwnBroker) -> tuple[str, ...]:
    """From the queue to the broker at QoS 1, beside paho publishing the same payloads from memory, same window."""
    progress("drain")
    queue = opened(home / "drain")
    for number in range(MESSAGES):
        ticket = queue.put([record(number)])
    ticket.wait(60)
    begin = time.perf_counter()
    delivering(queue, broker.url, queue.is_empty)
    rate = MESSAGES / (time.perf_counter() - begin)
    queue.close()
    baseline = MESSAGES / paho_alone(broker.port, MESSAGES)
    return (
        "queue to broker, QoS 1", f"{rate:,.0f}/s", f"{baseline:,.0f}/s (paho from memory, window {WINDOW})",
        f"{rate / baseline:.2f}",
    )  # fmt: skip


def readings(home: Path, broker: OwnBroker) -> tuple[str, ...]:
    """Readings that come in blocks of 1000, from put to PUBACK."""
    progress("readings")
    queue = opened(home / "readings")
    blocks = 300
    now = Clock().now()
    block = [(now, {"acceleration": 0.1 * number}) for number in range(BLOCK)]

    def produce() -> None:
        for _ in range(blocks):
            queue.put([Telemetry("imu", block)])

    begin = time.perf_counter()
    thread = threading.Thread(target=produce)
    thread.start()
    delivering(queue, broker.url, lambda: not thread.is_alive() and queue.is_empty())
    rate = blocks * BLOCK / (time.perf_counter() - begin)
    queue.close()
    return ("readings, put to PUBACK, 1000 a message", f"{rate:,.0f}/s", "-", "-")


def many(home: Path) -> list[tuple[str, ...]]:
    """What a million waiting messages cost: memory of the process that holds them, and a look at the queue."""
    progress(f"{MANY:,} messages")
    queue = opened(home / "many", max_bytes=2**34)
    empty = rss_mb()
    for start in range(0, MANY, 500):
        ticket = queue.put([record(number, filler="") for number in range(start, min(start + 500, MANY))])
        if start % 100_000 == 0:
            progress(f"  {start:,}")
    ticket.wait(120)
    queue.peek(Lane.TELEMETRY, 0, 64)
    grown = rss_mb() - empty
    command = [sys.executable, "-m", "agent", "queue", "status", "--data-dir", str(home / "many")]
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - begin
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import agent.delivery.disk_queue"], check=True)
    baseline = time.perf_counter() - begin
    queue.close()
    return [
        (f"memory with {MANY:,} messages waiting", f"+{grown:.1f} MB", f"{empty:.1f} MB (empty)", "-"),
        (
            f"`queue status` on {MANY:,} messages", f"{took:.2f} s", f"{baseline:.2f} s (Python that imports the same)",
            f"{took / baseline:.1f}",
        ),
    ]  # fmt: skip


def written(home: Path) -> tuple[str, ...]:
    """Bytes written to the disk per byte of payload at 10 KB/s, one commit a second, acknowledged a second later."""
    progress(f"bytes written: {TRICKLE_S:g} s")
    queue = opened(home / "trickle", commit_interval_s=1.0, commit_rows=10_000)
    before = written_bytes()
    payload = 0
    end = time.monotonic() + TRICKLE_S
    after = 0
    while time.monotonic() < end:
        for _ in range(TRICKLE_BYTES // 1000):
            queue.put([record(0, filler="x" * 850)])
            payload += 1000
        entries = queue.peek(Lane.TELEMETRY, after, 1000)
        if entries:
            after = entries[-1].key
            queue.acknowledge([entry.key for entry in entries])
        time.sleep(1.0)
    ratio = (written_bytes() - before) / payload
    queue.close()
    return ("bytes written per payload byte, 10 KB/s, one commit a second", f"{ratio:.1f}", "-", "-")


def opened(directory: Path, **options: object) -> DiskQueue:
    """A durable queue."""
    queue = DiskQueue(directory / "queue", PartHealth("queue"), **({"max_bytes": 2**32} | options))
    queue.open()
    return queue


def record(number: int, filler: str = FILLER) -> Telemetry:
    """A record of about 300 bytes, less without its filler."""
    return Telemetry("gps", [(Clock().now(), {"latitude": 52.1, "number": number, "filler": filler})])


def delivering(queue: DiskQueue, url: str, done: Callable[[], bool]) -> None:
    """Run an uplink until `done`."""
    from agent.delivery.broker import Broker

    def make(will: Message) -> Connection:
        def one(protocol: Protocol) -> Connection:
            return Connection(Broker(url), "bench", protocol, will=will)

        return connect(one, ("3.1.1",), 5.0)

    uplink = Uplink(
        make, queue=queue, board=Board(), codec=JsonCodec("edgepost", "bench"), limits=Limits(window=WINDOW),
        metering=Metering(),
    )  # fmt: skip
    queue.on_commit(uplink.wake)
    supervisor = Supervisor(Health())
    supervisor.start([uplink])
    while not done():
        time.sleep(0.005)
    supervisor.ask_to_stop()
    uplink.wake()
    supervisor.stop(5.0)


def paho_alone(port: int, count: int) -> float:
    """Seconds that paho takes to publish payloads of the same size from memory, `WINDOW` at a time."""
    payload = b"x" * 330
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    client.max_inflight_messages = WINDOW
    room = threading.Semaphore(WINDOW)
    client.on_publish = lambda *_: room.release()
    client.connect("127.0.0.1", port)
    client.loop_start()
    begin = time.perf_counter()
    for _ in range(count):
        room.acquire()
        client.publish("edgepost/bench/telemetry/gps", payload, 1)
    for _ in range(WINDOW):
        room.acquire()
    took = time.perf_counter() - begin
    client.disconnect()
    client.loop_stop()
    return took


def rss_mb() -> float:
    """Resident memory of this process in MB (10⁶ bytes)."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def written_bytes() -> int:
    """Bytes that this process caused to be written to disk (proc(5), /proc/PID/io)."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def progress(text: str) -> None:
    """Say on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
