"""What a ring promises to the programs that read it, whatever they do. They know the bytes alone; so do some tests."""

import contextlib
import errno
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from agent.errors import NoSpace
from agent.frames import FrameReader, leases
from agent.frames.ring import RingWriter
from drivers.contract import Capture, DriverError, FrameFormat
from tests.frames import SMALL, publish, runtime_in_memory, value_of

SLOTS = 4


@pytest.fixture
def runtime():
    with runtime_in_memory() as path:
        yield path


@pytest.fixture
def ring(runtime):
    writer = RingWriter(runtime / "frames", "gate", SMALL, SLOTS)
    writer.open()
    yield writer
    writer.close()


@pytest.fixture
def reader(runtime):
    with FrameReader("gate", runtime_dir=runtime, timeout_s=20) as frames:
        yield frames


def generations(ring: RingWriter) -> list[int]:
    data = ring.path.read_bytes()
    return [struct.unpack_from("<Q", data, 4096 + 64 * slot)[0] for slot in range(SLOTS)]


def test_the_file_reads_as_the_layout_says(ring):
    seq = [publish(ring) for _ in range(6)][-1]
    data = ring.path.read_bytes()
    magic, version, slots, epoch, stride, offset, pid, doorbell, newest, slot = struct.unpack_from("<8sIIQQQIIQI", data)
    assert (magic, version, slots, epoch, pid) == (b"EPFRAME1", 1, SLOTS, ring.epoch, os.getpid())
    assert (doorbell, newest) == (6, seq)
    fields = struct.unpack_from("<QQqqIIIIQI", data, 4096 + 64 * slot)
    assert fields[:2] == (2 * seq + 2, seq)
    assert fields[4:] == (32, 16, 96, int.from_bytes(b"BGR3", "little"), 1536, 0)
    pixels = np.frombuffer(data, np.uint32, 1536 // 4, offset + slot * stride)
    assert (pixels == seq).all()
    assert len(data) == offset + slots * stride


def test_the_file_appears_complete_and_for_owner_and_group(runtime):
    writer = RingWriter(runtime / "frames", "yard", SMALL, 2)
    assert not writer.path.exists()
    before = os.umask(0o077)
    writer.open()
    os.umask(before)
    assert [path.name for path in (runtime / "frames").iterdir()] == ["yard.ring"]
    assert writer.path.stat().st_mode & 0o777 == 0o640
    assert writer.path.stat().st_blocks * 512 >= writer.path.stat().st_size  # its memory is there already
    writer.close()
    writer.close()
    assert not writer.path.exists()


def test_closing_leaves_a_successors_file_alone(runtime, ring):
    successor = RingWriter(runtime / "frames", "gate", SMALL, SLOTS)
    successor.open()
    ring.close()
    assert successor.path.exists()
    successor.close()


def test_the_oldest_is_written_over_and_never_the_newest(ring):
    for _ in range(SLOTS):
        publish(ring)
    for seq in range(SLOTS, 3 * SLOTS):
        publish(ring)
        assert sorted(generations(ring)) == [2 * kept + 2 for kept in range(seq - SLOTS + 1, seq + 1)]


def test_a_held_frame_stays_while_others_are_written(ring, reader):
    publish(ring)
    frame = reader.read()
    for _ in range(50):
        publish(ring)
    assert value_of(frame.image) == 0
    assert frame.release()
    assert ring.revoked == 0
    for _ in range(SLOTS):
        publish(ring)
    assert min(generations(ring)) > 2  # its slot is used again


def test_a_lease_of_another_language_counts_as_well(ring):
    publish(ring)
    with ring.path.open("rb") as other:
        assert leases.lock_shared(other.fileno(), 4096 + 64 * ring._order[-1])
        for _ in range(50):
            publish(ring)
        assert 2 in generations(ring)


def test_when_all_are_held_the_writer_takes_the_oldest_back_and_its_holder_learns(ring, reader):
    held = [reader.read() for _ in range(SLOTS) if publish(ring) >= 0]
    assert not any(frame.revoked for frame in held)
    assert publish(ring) == SLOTS
    assert ring.revoked == 1
    assert [frame.revoked for frame in held] == [True, False, False, False]
    assert [frame.release() for frame in held] == [False, True, True, True]


def test_the_newest_stays_even_when_all_others_are_held(ring, reader):
    held = [reader.read() for _ in range(SLOTS) if publish(ring) >= 0]
    assert held[-1].release()
    publish(ring)
    assert ring.revoked == 1
    assert 2 * held[-1].seq + 2 in generations(ring)
    assert not held[0].release()


def test_a_frame_is_revoked_before_its_first_pixel_changes(ring, reader):
    held = [reader.read() for _ in range(SLOTS) if publish(ring) >= 0]
    with ring.slot() as slot:
        assert value_of(held[0].image) == 0
        assert held[0].revoked
        slot.image[:] = 255


def test_a_frame_that_is_being_written_can_not_be_read(ring, reader):
    publish(ring)
    reader.read().release()
    with ring.slot() as slot:
        index = slot._index
        assert generations(ring)[index] == 2 * 1 + 1
        with ring.path.open("rb") as other:
            assert not leases.lock_shared(other.fileno(), 4096 + 64 * index)
        assert reader.read(timeout_s=0.02) is None
        slot.image[:] = 1
        slot.publish(Capture(1, 1))
    assert reader.read().seq == 1


def test_an_aborted_frame_is_never_read_and_its_slot_is_the_next(ring, runtime):
    for _ in range(SLOTS):
        publish(ring)
    index = ring._order[0]
    with contextlib.suppress(DriverError), ring.slot() as slot:
        slot.image[:] = 99
        raise DriverError("lens cap")
    assert generations(ring)[index] % 2 == 1
    with FrameReader("gate", runtime_dir=runtime, every=True, timeout_s=0.05) as frames:
        assert [frame.seq for frame in frames] == [1, 2, 3]
        assert publish(ring) == SLOTS
        assert ring._order[-1] == index
        assert frames.read().seq == SLOTS


def test_an_aborted_frame_over_a_held_one_revokes_that(ring, reader):
    held = [reader.read() for _ in range(SLOTS) if publish(ring) >= 0]
    with contextlib.suppress(DriverError), ring.slot():
        raise DriverError("gone")
    assert not held[0].release()


def test_a_ring_needs_two_slots(runtime):
    with pytest.raises(ValueError, match="2 or more"):
        RingWriter(runtime / "frames", "gate", SMALL, 1)


@pytest.fixture
def tiny(tmp_path):
    """A tmpfs of 1 MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_no_room_is_told_in_bytes_and_leaves_nothing(tiny: Path):
    ring = RingWriter(tiny, "gate", FrameFormat(640, 480), 8)
    with pytest.raises(
        NoSpace, match=rf"need {ring._header.nbytes} bytes, 1048576 are available in {tiny}: "
    ) as caught:
        ring.open()
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert not list(tiny.iterdir())
    ring.close()
