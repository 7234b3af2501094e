"""Frames between real processes, some of which are stopped or killed in the worst moment."""

import hashlib
import json
import signal

import pytest

from agent.frames import FrameReader
from agent.frames.ring import RingWriter
from drivers.contract import FrameFormat
from tests.frames import CLIP, SMALL, WAIT_S, publish, runtime_in_memory, script, worker

SCENE: dict[str, object] = {"width": 64, "height": 48, "fps": 200}

HASH_EVERY = """
import hashlib, sys
from pathlib import Path
from agent.frames import FrameReader
with FrameReader("gate", runtime_dir=Path(sys.argv[1]), every=True, timeout_s=3) as frames:
    print("ready", flush=True)
    while (frame := frames.read(20 if frames._last_seq < 0 else 3)) is not None:
        seq, digest = frame.seq, hashlib.sha256(frame.image).hexdigest()
        print(seq, digest if frame.release() else "revoked", frames.skipped, flush=True)
"""

HOLD = """
import sys, time
from pathlib import Path
from agent.frames import FrameReader
reader = FrameReader("gate", runtime_dir=Path(sys.argv[1]))
frame = reader.read(20)
print(frame.seq, flush=True)
sys.stdin.readline()
print("revoked" if not frame.release() else "whole", flush=True)
"""

HANDOFF = """
import json, random, sys
from pathlib import Path
import numpy as np
from agent.frames import FrameReader
chance, held, counts = random.Random(int(sys.argv[2])), [], {"whole": 0, "torn": 0, "revoked": 0, "mixed_revoked": 0}

def judge(frame):
    words = frame.image.reshape(-1).view(np.uint32)
    pure = bool((words == frame.seq).all())
    if frame.release():
        counts["whole" if pure else "torn"] += 1
    else:
        counts["revoked"] += 1
        counts["mixed_revoked"] += not pure

with FrameReader("gate", runtime_dir=Path(sys.argv[1]), every=int(sys.argv[2]) % 2 == 1) as frames:
    print("ready", flush=True)
    while (frame := frames.read(3)) is not None:
        held.append(frame)
        while held and (len(held) > 4 or chance.random() < 0.4):
            judge(held.pop(chance.randrange(len(held))))
    for frame in held:
        judge(frame)
print(json.dumps(counts), flush=True)
"""


@pytest.fixture
def runtime():
    with runtime_in_memory() as path:
        yield path


def files(runtime) -> list[str]:
    return sorted(path.name for path in (runtime / "frames").iterdir())


def test_every_frame_of_a_recording_reaches_a_consumer_bit_for_bit(runtime):
    if not CLIP.is_file():
        pytest.skip(f"no clip at {CLIP}: set EDGEPOST_TEST_CLIP")
    import cv2

    capture, expected = cv2.VideoCapture(str(CLIP)), []
    while (frame := capture.read())[0]:
        expected.append(hashlib.sha256(frame[1]).hexdigest())
    settings = {"path": str(CLIP), "loop": False, "rate": 120}
    with script(HASH_EVERY, runtime) as consumer:
        assert consumer.stdout.readline() == b"ready\n"
        with worker(runtime, "file", settings, slots=64) as camera:
            got = [line.decode().split() for line in consumer.stdout]
            assert json.loads(camera.stdout.readline())["event"] == "opened"
            assert json.loads(camera.stdout.readline()) == {"event": "ended"}
            assert camera.wait(WAIT_S) == 0
    assert len(expected) > 100
    assert [(int(seq), digest) for seq, digest, _ in got] == list(enumerate(expected))
    assert got[-1][2] == "0"
    assert files(runtime) == []


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_a_consumer_that_dies_or_stops_while_it_holds_a_frame_costs_nobody_one(runtime, fate):
    with worker(runtime, "scene", SCENE, slots=64), script(HOLD, runtime) as holder:
        held = int(holder.stdout.readline())
        with FrameReader("gate", runtime_dir=runtime, every=True, timeout_s=WAIT_S) as frames:
            frames.read().release()
            holder.send_signal(fate)
            for frame in frames:
                if frame.seq > held + 100:
                    break
            assert (frames.skipped, frames.revoked) == (0, 0)
        if fate == signal.SIGSTOP:  # its lease held all the while
            holder.send_signal(signal.SIGCONT)
            holder.stdin.write(b"\n")
            assert holder.stdout.readline() == b"whole\n"


def test_the_slot_of_a_killed_consumer_is_used_again(runtime):
    ring = RingWriter(runtime / "frames", "gate", SMALL, 2)
    ring.open()
    publish(ring)
    with script(HOLD, runtime) as holder:
        holder.stdout.readline()
        publish(ring)
        publish(ring)
        assert ring.revoked == 1
        holder.kill()
        holder.wait(WAIT_S)
    for _ in range(10):
        publish(ring)
    assert ring.revoked == 1
    ring.close()


def test_a_writer_whose_slots_are_all_held_goes_on_and_the_holders_learn(runtime):
    ring = RingWriter(runtime / "frames", "gate", SMALL, 2)
    ring.open()
    publish(ring)
    with script(HOLD, runtime) as first:
        first.stdout.readline()
        publish(ring)
        with script(HOLD, runtime) as second:
            second.stdout.readline()
            first.send_signal(signal.SIGSTOP)
            second.send_signal(signal.SIGSTOP)
            for _ in range(100):
                publish(ring)
            assert ring.revoked == 100
            for holder in (first, second):
                holder.send_signal(signal.SIGCONT)
                holder.stdin.write(b"\n")
                assert holder.stdout.readline() == b"revoked\n"
    ring.close()


def test_no_torn_frame_passes_for_a_whole_one(runtime):
    ring = RingWriter(runtime / "frames", "gate", FrameFormat(160, 120), 4)
    ring.open()
    with script(HANDOFF, runtime, 1) as one, script(HANDOFF, runtime, 2) as two:
        for reader in (one, two):
            assert reader.stdout.readline() == b"ready\n"
        for _ in range(20_000):
            publish(ring)
        counts = [json.loads(reader.stdout.readline()) for reader in (one, two)]
    ring.close()
    assert [count["torn"] for count in counts] == [0, 0]
    assert all(count["whole"] > 100 for count in counts)
    assert sum(count["revoked"] for count in counts) > 100  # the test has reached what it is about
