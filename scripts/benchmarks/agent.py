"""What the agent itself costs: memory when idle, time to the first publish, CPU at 100 readings a second."""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

from agent.delivery.mqtt import Broker, Connection, Received, connect
from agent.simulator.broker import OwnBroker

STARTS = 7
IDLE_S = 20.0
BUSY_S = 20.0
LIBRARIES = "paho.mqtt.client, zmq, diskcache, tenacity, msgspec, sqlite3, ssl"

HEAD = """[device]
id = "bench"
[mqtt]
urls = ["{url}"]
"""
SENSOR = """[[sensor]]
name = "{driver}-{number}"
driver = "{driver}"
interval = "{interval}"
"""
# A program that does nothing but import what the agent imports; and one that does nothing but publish.
IMPORTS = f"import {LIBRARIES}; import time; print('up', flush=True); time.sleep(600)"
PUBLISHER = """
import sys, time
import paho.mqtt.client as paho
client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
print("up", flush=True)
due = time.monotonic()
while True:
    client.publish("bench/x", b'{"ts":1763905000123.5,"values":{"uptime":21.31}}', 1)
    due += 0.01
    time.sleep(max(0.0, due - time.monotonic()))
"""


def main() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory(prefix="ep-") as directory:
        home = Path(directory)
        broker = OwnBroker(home / "broker")
        broker.start()
        try:
            rows = [memory(home, broker.url), first_publish(home, broker.url), cpu(home, broker)]
        finally:
            broker.stop()
    print(f"\n{platform.machine()}, {os.cpu_count()} cores ({model()}), Linux {platform.release()}, "
          f"Python {platform.python_version()}, {broker.name}\n")  # fmt: skip
    print("| what | edgepost | baseline in the same run | ratio |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def memory(home: Path, url: str) -> tuple[str, ...]:
    """RSS with ten sensors at 10 s and no camera, after a while, beside a Python that only imports the libraries."""
    progress(f"memory: {IDLE_S:g} s")
    drivers = ["cpu", "memory", "disk", "network", "temperature", "uptime"]
    sensors = "".join(SENSOR.format(driver=drivers[n % 6], number=n, interval="10s") for n in range(10))
    with Process(agent_command(home, "memory", HEAD.format(url=url) + sensors)) as agent:
        time.sleep(IDLE_S)
        used = agent.rss_mb()
    with Process([sys.executable, "-c", IMPORTS]) as bare:
        bare.wait_for_line()
        baseline = bare.rss_mb()
    return (
        "memory, ten sensors, no camera", f"{used:.1f} MB",
        f"{baseline:.1f} MB (Python that imports the same libraries)",
        f"{used / baseline:.2f}",
    )  # fmt: skip


def first_publish(home: Path, url: str) -> tuple[str, ...]:
    """From the start of the process to the first telemetry at a subscriber, beside the bare imports."""
    progress(f"first publish: {STARTS} starts")
    config = HEAD.format(url=url) + SENSOR.format(driver="uptime", number=0, interval="1s")
    times, imports = [], []
    for number in range(STARTS):
        arrived = Arrival(url, "edgepost/bench/telemetry/#")
        begin = time.monotonic()
        with Process(agent_command(home, f"start{number}", config)):
            times.append(arrived.wait() - begin)
        begin = time.monotonic()
        with Process([sys.executable, "-c", IMPORTS]) as bare:
            bare.wait_for_line()
            imports.append(time.monotonic() - begin)
    used, baseline = statistics.median(times), statistics.median(imports)
    return (
        "start to first publish", f"{used:.2f} s", f"{baseline:.2f} s (start of that Python)", f"{used / baseline:.1f}",
    )  # fmt: skip


def cpu(home: Path, broker: OwnBroker) -> tuple[str, ...]:
    """CPU of ten sensors at 10 Hz, stored durably and published, beside paho publishing 100/s from memory."""
    progress(f"CPU: 2 × {BUSY_S:g} s")
    sensors = "".join(SENSOR.format(driver="uptime", number=n, interval="100ms") for n in range(10))
    with Process(agent_command(home, "cpu", HEAD.format(url=broker.url) + sensors)) as agent:
        used = agent.cpu_percent(BUSY_S)
    with Process([sys.executable, "-c", PUBLISHER, str(broker.port)]) as bare:
        bare.wait_for_line()
        baseline = bare.cpu_percent(BUSY_S)
    return (
        "CPU at 100 readings/s", f"{used:.1f} % of a core",
        f"{baseline:.1f} % (paho alone, from memory, 100 messages/s)",
        f"{used / baseline:.1f}",
    )  # fmt: skip


def agent_command(home: Path, name: str, config: str) -> list[str]:
    """The command line of an agent with directories of its own."""
    place = home / name
    place.mkdir()
    (place / "agent.toml").write_text(config, "utf-8")
    directories = ["--data-dir", str(place / "data"), "--runtime-dir", str(place / "run")]
    return [sys.executable, "-m", "agent", "run", "--config", str(place / "agent.toml"), *directories]


class Process:
    """A process that is measured, and ended with the block."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=20)

    def wait_for_line(self) -> None:
        """Wait for the first line of its output."""
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def rss_mb(self) -> float:
        """Resident memory in MB (10⁶ bytes), from /proc/PID/statm."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    def cpu_percent(self, seconds: float) -> float:
        """User and system time in percent of one core, after two seconds to settle."""
        time.sleep(2)
        before, begin = self._ticks(), time.monotonic()
        time.sleep(seconds)
        spent = (self._ticks() - before) / os.sysconf("SC_CLK_TCK")
        return 100 * spent / (time.monotonic() - begin)

    def _ticks(self) -> int:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])


class Arrival:
    """Notes when the first message of a topic arrives."""

    def __init__(self, url: str, topic: str) -> None:
        self._connection: Connection = connect(lambda protocol: Connection(Broker(url), "", protocol), ("5",), 5.0)
        self._connection.subscribe(topic)
        while not self._connection.step(0.1):
            pass
        self._at = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self) -> float:
        """The moment, on the monotonic clock."""
        self._thread.join(30)
        self._connection.close()
        return self._at

    def _run(self) -> None:
        while not any(isinstance(event, Received) for event in self._connection.step(1.0)):
            pass
        self._at = time.monotonic()


def model() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else "unknown"


def progress(text: str) -> None:
    """Say on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
