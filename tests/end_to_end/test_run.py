"""`edgepost run` as a process, a real broker, real ptys: what the agent promises on good days and bad ones."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from agent.delivery.disk_queue import inspect
from agent.frames import FrameReader
from agent.paths import ingest_address
from agent.simulator.broker import OwnBroker
from drivers.buses.simulated import SimulatedBuses
from tests.support import ROOT, Agent, Receiver, agent, edgepost, receiver, wait_until

FAST = """
[device]
id = "{device}"
[mqtt]
urls = ["{url}"]
[[sensor]]
name = "uptime"
driver = "uptime"
interval = "20ms"
batch_time = "0s"
"""


@pytest.fixture
def simulated() -> Iterator[SimulatedBuses]:
    """A GPS receiver behind a real pty of this process."""
    buses = SimulatedBuses("gps")
    yield buses
    buses.close()


def fast(url: str, device: str = "pi") -> str:
    return FAST.format(url=url, device=device)


def is_gapless(seqs: list[int]) -> bool:
    """Whether every seq from the first to the last is there, in order once duplicates are left out."""
    unique = list(dict.fromkeys(seqs))
    return unique == list(range(unique[0], unique[-1] + 1))


def test_readings_go_from_a_pty_to_a_subscriber(short_dir: Path, broker: OwnBroker, simulated: SimulatedBuses) -> None:
    device = simulated.serial("/dev/ttyUSB0", 9600).device
    config = f"""
[device]
id = "pi"
[mqtt]
urls = ["{broker.url}"]
[[sensor]]
name = "position"
driver = "gps"
device = "{device}"
interval = "500ms"
"""
    with receiver(broker.url) as subscriber, agent(short_dir / "a", config):
        wait_until(lambda: len(subscriber.bodies("telemetry/position")) >= 3, "three positions")
        wait_until(lambda: subscriber.bodies("meta/position"), "the description of the source")
        wait_until(lambda: {"state": "online"} in subscriber.bodies("pi/status"), "the status")
    first = subscriber.bodies("telemetry/position")[0]
    assert first.keys() == {"device", "source", "epoch", "seq", "readings"}
    assert (first["device"], first["source"], first["seq"]) == ("pi", "position", 1)
    reading = first["readings"][0]
    assert -90 <= reading["values"]["latitude"] <= 90
    assert abs(reading["ts"] / 1000 - time.time()) < 60
    meta = subscriber.bodies("meta/position")[0]
    assert meta["driver"] == "gps"
    assert meta["interval_s"] == 0.5
    assert set(reading["values"]) <= set(meta["fields"])
    assert meta["fields"]["latitude"]["unit"] == "deg"


def test_sigterm_stops_cleanly(short_dir: Path, broker: OwnBroker) -> None:
    with receiver(broker.url) as subscriber, agent(short_dir / "a", fast(broker.url)) as process:
        wait_until(lambda: len(subscriber.seqs("telemetry/uptime")) > 20, "telemetry")
        assert process.terminate() == 0
        wait_until(lambda: {"state": "stopped"} in subscriber.bodies("pi/status"), "the status")
        assert is_gapless(subscriber.seqs("telemetry/uptime"))
        assert inspect(process.data / "queue").waiting == 0
        assert "Traceback" not in process.log.read_text()
        assert not (process.runtime / "status").exists()
        left = [path.name for path in process.runtime.rglob("*") if path.suffix in {".ring", ".announce"}]
        assert left == []


def test_sigterm_stops_cleanly_though_no_broker_is_there(short_dir: Path) -> None:
    with agent(short_dir / "a", fast("mqtt://127.0.0.1:9")) as process:
        wait_until(lambda: _waiting(process) > 20, "readings in the queue")
        begin = time.monotonic()
        assert process.terminate() == 0
        assert time.monotonic() - begin < 5.0, "the five seconds are a promise, not a speed"
        assert "Traceback" not in process.log.read_text()


def test_the_will_says_offline_after_a_kill(short_dir: Path, broker: OwnBroker) -> None:
    with receiver(broker.url) as subscriber, agent(short_dir / "a", fast(broker.url)) as process:
        wait_until(lambda: {"state": "online"} in subscriber.bodies("pi/status"), "the status")
        process.kill()
        wait_until(lambda: {"state": "offline"} in subscriber.bodies("pi/status"), "the will")


def test_kill_9_in_the_middle_loses_nothing(short_dir: Path, broker: OwnBroker) -> None:
    with receiver(broker.url) as subscriber:
        for _ in range(5):
            with agent(short_dir / "a", fast(broker.url)) as process:
                so_far = len(subscriber.seqs("telemetry/uptime"))
                wait_until(lambda n=so_far: len(subscriber.seqs("telemetry/uptime")) > n + 25, "telemetry")
                process.kill()
        with agent(short_dir / "a", fast(broker.url)) as process:
            wait_until(lambda: 0 <= _waiting(process) < 20, "the queue is as good as drained")
            process.terminate()
        _assert_nothing_lost(subscriber, process)
        assert min(subscriber.seqs("telemetry/uptime")) == 1


def test_without_a_broker_it_starts_and_keeps_and_later_delivers_everything(short_dir: Path) -> None:
    later = OwnBroker(short_dir / "broker")
    with agent(short_dir / "a", fast(later.url)) as process:
        wait_until(lambda: _waiting(process) > 50, "readings in the queue")
        assert process.status()["parts"]["uplink"]["state"] == "failing"
        later.start()
        try:
            with receiver(later.url) as subscriber:
                wait_until(lambda: len(subscriber.seqs("telemetry/uptime")) > 60, "the backlog", 40)
                process.terminate()
                _assert_nothing_lost(subscriber, process)
        finally:
            later.stop()


def test_two_agents_live_side_by_side(short_dir: Path, broker: OwnBroker) -> None:
    with (
        receiver(broker.url) as subscriber,
        agent(short_dir / "a", fast(broker.url, "one")),
        agent(short_dir / "b", fast(broker.url, "two")),
    ):
        for device in ("one", "two"):
            wait_until(lambda d=device: len(subscriber.seqs(f"{d}/telemetry/uptime")) > 20, f"telemetry of {device}")


def test_a_second_agent_on_the_same_directory_is_refused(short_dir: Path, broker: OwnBroker) -> None:
    with agent(short_dir / "a", fast(broker.url)) as process:
        wait_until(process.status, "the agent answers")
        for data, runtime in ((process.data, short_dir / "other"), (short_dir / "another", process.runtime)):
            second = edgepost("run", "--config", process.config, "--data-dir", data, "--runtime-dir", runtime)
            assert second.returncode == 1
            assert f"another agent (pid {process.process.pid}) is using it" in second.stderr
            assert "Traceback" not in second.stderr


def test_a_device_that_vanishes_is_retried_and_disturbs_nobody(
    short_dir: Path, broker: OwnBroker, simulated: SimulatedBuses
) -> None:
    device = simulated.serial("/dev/ttyUSB0", 9600).device
    config = (
        fast(broker.url)
        + f"""
[[sensor]]
name = "position"
driver = "gps"
device = "{device}"
interval = "200ms"
"""
    )
    simulated.unplug()
    with receiver(broker.url) as subscriber, agent(short_dir / "a", config) as process:

        def state() -> str:
            return str(process.status().get("parts", {}).get("sensor/position", {}).get("state"))

        wait_until(lambda: state() == "failing", "the absence shows in the status")
        assert device in process.status()["parts"]["sensor/position"]["last_error"]
        wait_until(lambda: len(subscriber.seqs("telemetry/uptime")) > 10, "the others go on")
        simulated.plug()
        wait_until(lambda: subscriber.seqs("telemetry/position"), "a position once it is there", 40)
        simulated.unplug()
        wait_until(lambda: state() == "failing", "pulled out again")
        before = len(subscriber.seqs("telemetry/uptime"))
        wait_until(lambda: len(subscriber.seqs("telemetry/uptime")) > before + 10, "the others go on")


def test_an_event_posted_by_another_program_arrives(short_dir: Path, broker: OwnBroker) -> None:
    with receiver(broker.url) as subscriber, agent(short_dir / "a", fast(broker.url)) as process:
        wait_until(process.status, "the agent answers")
        with zmq.Context() as context:
            for kind in (zmq.DEALER, zmq.REQ):
                with context.socket(kind) as socket:
                    socket.linger = 0
                    socket.rcvtimeo = 10_000
                    socket.connect(ingest_address(process.runtime))
                    socket.send(b'{"source":"gate","type":"motion","ts":1763905000123.5,"data":{"boxes":[[1,2,3,4]]}}')
                    answer = json.loads(socket.recv())
                    assert answer["ok"] is True
                    wait_until(lambda s=answer["seq"]: s in subscriber.seqs("event/gate"), "the event")
        event = subscriber.bodies("event/gate")[0]
        assert event == {
            "device": "pi",
            "source": "gate",
            "epoch": answer["epoch"],
            "seq": 1,
            "ts": 1763905000123.5,
            "type": "motion",
            "data": {"boxes": [[1, 2, 3, 4]]},
        }


@pytest.mark.parametrize(
    "post",
    [
        b"garbage",
        b"\xff\xfe",
        b"{}",
        b'{"source":"../etc","type":"x"}',
        b'{"source":"a","type":"x","more":1}',
        b"[" * 10_000,
    ],
)
def test_a_bad_post_is_refused_with_its_reason(short_dir: Path, broker: OwnBroker, post: bytes) -> None:
    with agent(short_dir / "a", fast(broker.url)) as process:
        wait_until(process.status, "the agent answers")
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.rcvtimeo = 10_000
            socket.connect(ingest_address(process.runtime))
            socket.send(post)
            answer = json.loads(socket.recv())
            assert answer["ok"] is False
            assert "expected" in answer["error"]
            socket.send(b'{"source":"a","type":"x"}')
            assert json.loads(socket.recv())["ok"] is True


def test_an_agent_loads_neither_numpy_nor_cv2(short_dir: Path, broker: OwnBroker) -> None:
    config = fast(broker.url) + '[[camera]]\nname = "gate"\ndriver = "scene"\n'
    with agent(short_dir / "a", config) as process:
        wait_until(lambda: process.status().get("parts", {}).get("camera/gate", {}).get("state") == "ok", "the camera")
        mapped = Path(f"/proc/{process.process.pid}/maps").read_text()
        assert "numpy" not in mapped
        assert "cv2" not in mapped


CAMERA = """
[[camera]]
name = "gate"
driver = "scene"
width = 64
height = 48
fps = 30
"""


def test_a_killed_camera_worker_and_a_killed_consumer_disturb_nobody(short_dir: Path, broker: OwnBroker) -> None:
    with receiver(broker.url) as subscriber, agent(short_dir / "a", fast(broker.url) + CAMERA) as process:

        def camera() -> dict[str, Any]:
            part: dict[str, Any] = process.status().get("parts", {}).get("camera/gate", {})
            return part

        with FrameReader("gate", runtime_dir=process.runtime, timeout_s=20.0) as frames:
            frame = frames.read()
            assert frame is not None
            first_epoch = frame.epoch
            frame.release()
            holder = (
                "import sys, time; from pathlib import Path; from agent.frames import FrameReader; "
                "frame = FrameReader('gate', runtime_dir=Path(sys.argv[1])).read(); print('holds', flush=True); "
                "time.sleep(60)"
            )
            consumer = subprocess.Popen(
                [sys.executable, "-c", holder, str(process.runtime)], stdout=subprocess.PIPE, cwd=ROOT
            )
            with consumer:
                assert consumer.stdout is not None
                consumer.stdout.readline()
                consumer.kill()
            wait_until(lambda: camera().get("pid"), "the worker's id")
            os.kill(camera()["pid"], signal.SIGKILL)

            def from_the_next_worker() -> bool:
                found = frames.read()
                return found is not None and found.release() and found.epoch != first_epoch

            wait_until(from_the_next_worker, "frames of the next worker", 40)
        assert camera()["errors"] == 1
        before = len(subscriber.seqs("telemetry/uptime"))
        wait_until(lambda: len(subscriber.seqs("telemetry/uptime")) > before + 10, "telemetry goes on")
        assert is_gapless(subscriber.seqs("telemetry/uptime"))
        assert process.terminate() == 0
        left = [str(path) for path in (process.runtime / "frames").glob("*")]
        assert left == [], "ring files are removed at the stop"


def test_a_camera_that_can_not_be_opened_is_tried_again_and_disturbs_nobody(short_dir: Path, broker: OwnBroker) -> None:
    config = fast(broker.url) + f'[[camera]]\nname = "gate"\ndriver = "file"\npath = "{short_dir}/none.avi"\n'
    with receiver(broker.url) as subscriber, agent(short_dir / "a", config) as process:

        def failures() -> int:
            return int(process.status().get("parts", {}).get("camera/gate", {}).get("errors", 0))

        wait_until(lambda: failures() >= 2, "it is tried again", 40)
        assert "none.avi: no such file" in process.status()["parts"]["camera/gate"]["last_error"]
        assert is_gapless(subscriber.seqs("telemetry/uptime"))


def test_the_agent_publishes_its_own_figures(short_dir: Path, broker: OwnBroker) -> None:
    with receiver(broker.url) as subscriber, agent(short_dir / "a", fast(broker.url)):
        wait_until(lambda: subscriber.bodies("pi/health"), "its health")
    health = subscriber.bodies("pi/health")[0]
    assert health["parts"]["sensor/uptime"]["state"] == "ok"
    assert health["queue"]["put"] > 0
    assert health["queue"]["dropped"] == {}


def test_directories_are_private(short_dir: Path, broker: OwnBroker) -> None:
    with agent(short_dir / "a", fast(broker.url)) as process:
        wait_until(process.status, "the agent answers")
        for path in (process.data, process.runtime):
            assert path.stat().st_mode & 0o077 == 0
        for name in ("ingest", "status"):
            assert (process.runtime / name).stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a directory of another user")
def test_a_directory_of_another_user_is_refused(short_dir: Path) -> None:
    data = short_dir / "theirs"
    data.mkdir()
    os.chown(data, 12345, 12345)
    config = short_dir / "agent.toml"
    config.write_text(fast("mqtt://127.0.0.1:9"))
    refused = edgepost("run", "--config", config, "--data-dir", data, "--runtime-dir", short_dir / "run")
    assert refused.returncode == 1
    assert "belongs to user 12345" in refused.stderr


def _waiting(process: Agent) -> int:
    try:
        return inspect(process.data / "queue").waiting
    except Exception:  # the queue is not made yet
        return -1


def _assert_nothing_lost(subscriber: Receiver, process: Agent) -> None:
    """All from the first that arrived has arrived, but for what a stopped agent still keeps on disk."""
    stats = inspect(process.data / "queue")
    before = min(subscriber.seqs("telemetry/uptime")) - 1  # delivered to the broker before we had subscribed

    def arrived() -> int:
        return len(set(subscriber.seqs("telemetry/uptime")))

    wait_until(lambda: before + arrived() + stats.waiting >= stats.put, "everything that was put and does not wait")
    assert stats.waiting < stats.put
    assert stats.dropped == {}
    assert is_gapless(subscriber.seqs("telemetry/uptime"))


def test_a_runtime_directory_that_is_too_long_for_sockets_is_refused(short_dir: Path) -> None:
    config = short_dir / "agent.toml"
    config.write_text(fast("mqtt://127.0.0.1:9"))
    refused = edgepost(
        "run", "--config", config, "--data-dir", short_dir / "d", "--runtime-dir", short_dir / ("r" * 100)
    )
    assert refused.returncode == 2
    assert "bytes too long for a socket: name a shorter --runtime-dir" in refused.stderr
