import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from agent.frames import FrameReader
from agent.frames.layout import BadRing
from agent.frames.ring import RingWriter
from drivers.contract import Capture, FrameFormat
from tests.frames import SMALL, publish, runtime_in_memory, value_of
from tests.support import wait_until


@pytest.fixture
def runtime():
    with runtime_in_memory() as path:
        yield path


@pytest.fixture
def ring(runtime):
    writer = RingWriter(runtime / "frames", "gate", SMALL, 4)
    writer.open()
    yield writer
    writer.close()


@pytest.fixture
def reader(runtime):
    with FrameReader("gate", runtime_dir=runtime, timeout_s=20) as frames:
        yield frames


def test_a_camera_that_is_not_there_yet_is_waited_for(runtime, reader):
    assert reader.read(timeout_s=0.1) is None
    assert not reader.alive
    late = RingWriter(runtime / "frames", "gate", SMALL, 4)
    timer = threading.Timer(0.2, lambda: (late.open(), publish(late, 9)))
    timer.start()
    assert value_of(reader.read().image) == 9
    assert reader.alive
    timer.join()
    late.close()


def test_a_frame_says_when_and_what_it_is(ring, reader):
    with ring.slot() as slot:
        slot.image[:] = 1
        slot.publish(Capture(123, 1_700_000_000_123_456_789))
    with reader.read() as frame:
        assert (frame.seq, frame.epoch, frame.t_mono_ns) == (0, ring.epoch, 123)
        assert (frame.width, frame.height, frame.fourcc) == (32, 16, "BGR3")
        assert frame.captured == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
        assert frame.image.shape == (16, 32, 3)
        assert frame.image.dtype == np.uint8
        assert frame.copy().flags.writeable


def test_the_pixels_are_read_in_place_and_can_not_be_written(ring, reader):
    publish(ring)
    frame = reader.read()
    assert not frame.image.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        frame.image.flags.writeable = True


def test_the_newest_is_read_once_and_what_was_passed_over_is_counted(ring, reader):
    publish(ring)
    assert reader.read().release()
    assert reader.read(timeout_s=0.05) is None
    for _ in range(3):
        publish(ring)
    assert reader.read().seq == 3
    assert (reader.skipped, reader.revoked) == (2, 0)


def test_every_frame_is_read_in_turn_and_what_came_too_late_is_counted(ring, runtime):
    with FrameReader("gate", runtime_dir=runtime, every=True, timeout_s=0.1) as frames:
        for _ in range(4):
            publish(ring)
        assert [frame.seq for frame in frames] == [0, 1, 2, 3]
        for _ in range(6):
            publish(ring)
        assert [frame.seq for frame in frames] == [6, 7, 8, 9]
        assert frames.skipped == 2


def test_iterating_releases_the_frame_before(ring, reader):
    publish(ring)
    kept = None
    for frame in reader:
        if kept is not None:
            assert kept._was_whole
            break
        kept = frame
        publish(ring)


def test_a_revoked_frame_is_counted_and_says_so_every_time(ring, reader):
    publish(ring)
    frame = reader.read()
    assert not frame.revoked
    others = []
    while not ring.revoked:
        publish(ring)
        others.append(reader.read())
    assert frame.revoked
    assert not frame.release()
    assert not frame.release()
    assert reader.revoked == 1


def test_two_frames_in_one_slot_do_not_take_each_others_lease(ring, reader):
    """A revoked frame and the one that replaced it share a slot, and with it one lock."""
    held = [reader.read() for _ in range(4) if publish(ring) >= 0]
    publish(ring)
    replacement = reader.read()
    assert replacement._slot == held[0]._slot
    assert not held[0].release()
    for frame in held[1:]:
        frame.release()
    for _ in range(12):
        publish(ring)
    assert replacement.release()


def test_a_reader_follows_to_a_ring_of_another_size_and_its_old_views_stay(runtime, ring, reader):
    publish(ring, 7)
    old = reader.read()
    ring.close()
    larger = RingWriter(runtime / "frames", "gate", FrameFormat(64, 32), 3)
    larger.open()
    publish(larger, 8)
    new = reader.read()
    assert new.image.shape == (32, 64, 3)
    assert new.epoch != old.epoch
    assert value_of(old.image) == 7
    assert old.release()
    larger.close()


def test_every_frame_of_a_closed_ring_is_read_before_the_next_ring(runtime, ring):
    with FrameReader("gate", runtime_dir=runtime, every=True, timeout_s=20) as frames:
        publish(ring, 1)
        frames.read().release()
        publish(ring, 2)
        publish(ring, 3)
        ring.close()
        after = RingWriter(runtime / "frames", "gate", SMALL, 4)
        after.open()
        publish(after, 4)
        assert [value_of(frames.read().image) for _ in range(3)] == [2, 3, 4]
        assert frames.skipped == 0
        after.close()


def test_what_a_dead_camera_left_is_not_taken_for_news(runtime, ring, reader, monkeypatch):
    publish(ring)
    monkeypatch.setattr("agent.frames.layout.alive", lambda _: False)
    assert reader.read(timeout_s=0.1) is None
    assert not reader.alive
    publish(ring)  # it lived after all, in another container perhaps
    assert reader.read().seq == 1


def test_closing_releases_everything_and_keeps_views(ring, reader):
    publish(ring, 5)
    frame = reader.read()
    reader.close()
    reader.close()
    assert frame._was_whole
    assert value_of(frame.image) == 5


def test_a_file_that_is_no_ring_is_refused_by_name(runtime, reader):
    (runtime / "frames/gate.ring").write_bytes(b"junk" * 4096)
    with pytest.raises(BadRing, match=r"gate\.ring"):
        reader.read()


@pytest.mark.parametrize("every", [False, True])
def test_a_waiting_reader_is_woken(runtime, ring, every, monkeypatch):
    monkeypatch.setattr("agent.frames.reader._LOOK_S", 60)  # it has nothing but the doorbell
    seen = []

    def read():
        with FrameReader("gate", runtime_dir=runtime, every=every, timeout_s=20) as frames:
            for frame in frames:
                seen.append(frame.seq)
                if frame.seq >= 20:
                    return

    thread = threading.Thread(target=read)
    thread.start()
    for seq in range(21):
        publish(ring)
        wait_until(lambda seq=seq: seen and seen[-1] == seq, f"frame {seq}")
    thread.join()
