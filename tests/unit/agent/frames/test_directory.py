import fcntl
import shutil
from pathlib import Path

import pytest

from agent.errors import AlreadyRunning, EdgepostError
from agent.frames import directory
from agent.frames.announce import Announcer, Listener
from agent.frames.directory import announce_path, camera_lock, is_tmpfs, prepare_frames_dir
from agent.frames.layout import Announcement
from tests.frames import runtime_in_memory
from tests.support import wait_until


@pytest.fixture
def runtime():
    with runtime_in_memory() as path:
        yield path


@pytest.fixture
def on_disk(tmp_path):
    if is_tmpfs(tmp_path):
        pytest.skip(f"{tmp_path} is on tmpfs")
    yield tmp_path / "run"
    link = tmp_path / "run/frames"
    if link.is_symlink():
        shutil.rmtree(link.readlink())


def litter(frames: Path, camera: str) -> list[Path]:
    paths = [frames / f"{camera}.{kind}" for kind in ("ring", "announce", "77.tmp", "lock")]
    for path in paths:
        path.touch()
    return paths


def test_what_a_crash_left_is_swept_and_what_lives_is_not(runtime):
    dead, live = litter(runtime / "frames", "dead"), litter(runtime / "frames", "live")
    with camera_lock(runtime / "frames", "live", wait_s=0):
        assert prepare_frames_dir(runtime) == runtime / "frames"
        assert not any(path.exists() for path in dead)
        assert all(path.exists() for path in live)


def test_one_process_at_a_time_owns_a_camera(runtime):
    frames = runtime / "frames"
    with (
        camera_lock(frames, "gate", wait_s=0),
        pytest.raises(AlreadyRunning, match=r"gate\.lock"),
        camera_lock(frames, "gate", wait_s=0.05),
    ):
        pass
    assert not list(frames.iterdir())
    with camera_lock(frames, "gate", wait_s=0):
        pass


def test_a_lock_won_on_a_file_that_its_last_owner_has_removed_is_none(runtime, monkeypatch):
    path, flock = runtime / "frames/gate.lock", fcntl.flock
    removed = []

    def remove_first(fd, how):
        if not removed:
            removed.append(path.unlink())
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with camera_lock(runtime / "frames", "gate", wait_s=1):
        assert path.exists()
        with pytest.raises(AlreadyRunning), camera_lock(runtime / "frames", "gate", wait_s=0):
            pass


def test_rings_go_to_memory_when_the_runtime_directory_is_on_a_disk(on_disk):
    frames = prepare_frames_dir(on_disk)
    target = frames.readlink()
    assert is_tmpfs(frames)
    assert target.stat().st_mode & 0o777 == 0o700
    litter(frames, "gate")
    assert prepare_frames_dir(on_disk) == frames
    assert frames.readlink() == target
    assert not list(frames.iterdir())


def test_a_directory_that_others_may_enter_is_refused(on_disk):
    target = prepare_frames_dir(on_disk).readlink()
    target.chmod(0o755)
    with pytest.raises(EdgepostError, match=r"mode 0700, found drwxr-xr-x"):
        prepare_frames_dir(on_disk)


def test_a_directory_gives_way_to_the_link_unless_it_holds_something(on_disk):
    (on_disk / "frames").mkdir(parents=True)
    litter(on_disk / "frames", "gate")
    assert prepare_frames_dir(on_disk).is_symlink()
    (on_disk / "frames").unlink()
    (on_disk / "frames").mkdir()
    (on_disk / "frames/mine.txt").touch()
    with pytest.raises(EdgepostError, match="not empty"):
        prepare_frames_dir(on_disk)
    (on_disk / "frames/mine.txt").unlink()
    prepare_frames_dir(on_disk)


def test_without_shared_memory_rings_stay_where_they_are(on_disk, monkeypatch, tmp_path):
    monkeypatch.setattr(directory, "SHARED_MEMORY", tmp_path / "nowhere")
    assert not prepare_frames_dir(on_disk).is_symlink()


def test_a_socket_path_that_is_too_long_is_refused_with_the_bytes():
    with pytest.raises(EdgepostError, match=r"3 bytes too long.*--runtime-dir"):
        announce_path(Path("/" + "x" * (110 - 1 - len("/gate.announce"))), "gate")


def test_announcements_reach_who_listens_in_order(runtime):
    announcer, listener = Announcer(runtime / "frames", "gate", 8), Listener(runtime / "frames", "gate")
    announcer.open()
    listener.open()
    sent, heard = [], []

    def arrived() -> bool:
        sent.append(Announcement(1, len(sent), 0, 10, 20, 30))
        announcer.send(sent[-1])
        heard.extend(listener.drain())
        return len(heard) >= 3

    wait_until(arrived, "three announcements")
    assert heard == sent[heard[0].seq :][: len(heard)]
    listener.close()
    announcer.close()
    announcer.close()
    assert not list((runtime / "frames").iterdir())
