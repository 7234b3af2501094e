"""A camera's worker and its keeper: what they leave, what they say, whatever ends them."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from agent.frames import FrameReader
from agent.frames.keeper import CameraKeeper
from agent.frames.layout import read_header
from agent.frames.orders import WorkerOrder
from agent.health import Health
from drivers.contract import DeviceTimeout
from tests.frames import CLIP, WAIT_S, runtime_in_memory, script, worker
from tests.support import wait_until

SCENE: dict[str, object] = {"width": 64, "height": 48, "fps": 200}

PARENT = """
import subprocess, sys
process = subprocess.Popen([sys.executable, "-m", "agent.frames.worker"], stdin=subprocess.PIPE)
process.stdin.write(sys.stdin.readline().encode())
process.stdin.flush()
print(process.pid, flush=True)
process.wait()
"""


@pytest.fixture
def runtime():
    with runtime_in_memory() as path:
        yield path


def files(runtime) -> list[str]:
    return sorted(path.name for path in (runtime / "frames").iterdir())


def next_report(process: subprocess.Popen[bytes]) -> dict[str, object]:
    return json.loads(process.stdout.readline())


def test_a_worker_ends_with_its_parent_and_leaves_nothing(runtime):
    order = msgspec.json.encode(WorkerOrder("gate", "scene", SCENE, str(runtime / "frames"), 4))
    with script(PARENT) as parent:
        parent.stdin.write(order + b"\n")
        pid = int(parent.stdout.readline())
        try:
            wait_until(lambda: files(runtime) == ["gate.announce", "gate.lock", "gate.ring"], "the worker's files")
            parent.kill()
            wait_until(lambda: not files(runtime), "the worker to remove its files")
            wait_until(lambda: not _runs(pid), "the worker to end")
        finally:
            if _runs(pid):  # nobody else would end it
                os.kill(pid, signal.SIGKILL)


def test_a_worker_that_is_told_to_end_removes_everything(runtime):
    with worker(runtime, "scene", SCENE) as camera:
        assert next_report(camera) == {"event": "opened", "width": 64, "height": 48, "fourcc": "BGR3"}
        camera.terminate()
        assert camera.wait(WAIT_S) == 0
        assert camera.stdout.read() == b""
    assert files(runtime) == []


def test_a_worker_stuck_in_its_camera_ends_all_the_same(runtime):
    with worker(runtime, "scene", SCENE | {"fps": 0.001}) as camera:
        assert next_report(camera)["event"] == "opened"
        wait_until(lambda: read_header(runtime / "frames/gate.ring").doorbell == 1, "the first frame")
        camera.terminate()
        assert camera.wait(WAIT_S) == 0
    assert files(runtime) == []


@pytest.mark.parametrize(
    ("driver", "settings", "error"),
    [
        ("file", {"path": "/nowhere.avi"}, "/nowhere.avi: no such file"),
        ("file", {"pth": "x"}, "pth"),
        ("scnee", {}, "did you mean 'scene'"),
    ],
)
def test_what_goes_wrong_is_one_line_and_no_traceback(runtime, driver, settings, error):
    with worker(runtime, driver, settings) as camera:
        report = next_report(camera)
        assert report["event"] == "error"
        assert error in report["error"]
        assert camera.wait(WAIT_S) == 1
        assert camera.stdout.read() == b""
    assert files(runtime) == []


def test_a_second_worker_waits_for_the_first_to_end(runtime):
    with worker(runtime, "scene", SCENE) as first, FrameReader("gate", runtime_dir=runtime) as frames:
        epoch = frames.read(WAIT_S).epoch
        with worker(runtime, "scene", SCENE) as second:
            first.terminate()
            assert next_report(second)["event"] == "opened"
            wait_until(
                lambda: (frame := frames.read(1)) and frame.release() and frame.epoch != epoch, "the second's frames"
            )


class Kept:
    """A keeper in a thread, started again whenever it raises, as its supervisor does."""

    def __init__(self, runtime, driver, settings, stall_s=5.0):
        self.health = Health().part("gate")
        self.keeper = CameraKeeper("gate", driver, settings, frames=runtime / "frames", slots=4, stall_s=stall_s)
        self.errors: list[Exception] = []
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.stop.is_set():
            try:
                self.keeper.run(self.stop, self.health)
            except Exception as error:
                self.errors.append(error)
                self.stop.wait(0.05)

    def figure(self, name):
        return self.health.snapshot().get(name)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


def test_a_killed_worker_is_started_again_and_readers_follow(runtime):
    with Kept(runtime, "scene", SCENE) as kept, FrameReader("gate", runtime_dir=runtime) as frames:
        first = frames.read(WAIT_S)
        wait_until(lambda: kept.figure("frames"), "figures")
        pid = kept.figure("pid")
        os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: (frame := frames.read(1)) and frame.release() and frame.epoch != first.epoch, "the next ring"
        )
        wait_until(lambda: kept.figure("pid") != pid, "the next worker's report")
        assert "killed by signal 9" in str(kept.errors[0])
        assert first.image.shape == (48, 64, 3)  # still to be read
    assert files(runtime) == []


def test_a_camera_that_delivers_nothing_is_ended_and_said_to_have_stalled(runtime):
    with Kept(runtime, "scene", SCENE | {"fps": 0.001}, stall_s=0.5) as kept:
        wait_until(lambda: kept.errors, "the stall")
        pid = kept.figure("pid")
        assert isinstance(kept.errors[0], DeviceTimeout)
        assert "no frame for 0.5 s" in str(kept.errors[0])
        assert not _runs(pid)
    assert files(runtime) == []


def test_a_stopped_worker_is_ended_for_good(runtime):
    with Kept(runtime, "scene", SCENE, stall_s=0.5) as kept:
        wait_until(lambda: kept.figure("pid"), "the worker")
        pid = kept.figure("pid")
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: kept.errors, "the stall")
        assert not _runs(pid)
    assert files(runtime) == []


def test_a_camera_that_can_not_run_says_why(runtime):
    with Kept(runtime, "file", {"path": "/nowhere.avi"}) as kept:
        wait_until(lambda: kept.errors, "the error")
    assert "/nowhere.avi: no such file" in str(kept.errors[0])


def test_a_source_that_has_ended_is_no_failure(runtime):
    if not CLIP.is_file():
        pytest.skip(f"no clip at {CLIP}: set EDGEPOST_TEST_CLIP")
    with Kept(runtime, "file", {"path": str(CLIP), "rate": 1000, "loop": False}) as kept:
        wait_until(lambda: kept.figure("ended"), "the end")
        assert kept.figure("state") == "ok"
        assert kept.errors == []


def test_the_agent_that_keeps_cameras_loads_no_decoder():
    code = "import sys, agent.frames.keeper, agent.frames.directory; print(sorted({'numpy', 'cv2'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"[]\n"


def test_the_command_line_lists_saves_and_measures(runtime, tmp_path):
    def edgepost(*words):
        command = [sys.executable, "-m", "agent", "frames", *words, "--runtime-dir", str(runtime)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "no camera" in edgepost("list").stdout
    with worker(runtime, "scene", SCENE), FrameReader("gate", runtime_dir=runtime) as frames:
        frames.read(WAIT_S).release()
        (camera,) = json.loads(edgepost("list", "--json").stdout)
        assert (camera["camera"], camera["size"], camera["fourcc"], camera["alive"]) == ("gate", "64x48", "BGR3", True)
        assert camera["fps"] > 0
        assert edgepost("save", "gate", str(tmp_path / "x.png")).returncode == 0
        assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
        figures = json.loads(edgepost("stats", "gate", "--seconds", "1", "--json").stdout)
        assert figures["frames"] > 0
        assert 0 < figures["handoff_p50_us"] <= figures["handoff_p99_us"]
        missing = edgepost("save", "yard", str(tmp_path / "x.png"))
        assert (missing.returncode, missing.stdout) == (1, "")
        assert "there are: gate" in missing.stderr
        assert edgepost("save", "gate", str(tmp_path / "x.gif")).returncode == 2


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
