"""What the tests of frames share: a place in memory, small rings, worker processes that are cleaned up by their id."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from agent.frames.directory import prepare_frames_dir
from agent.frames.orders import WorkerOrder
from agent.frames.ring import RingWriter
from drivers.contract import Capture, FrameFormat

SMALL = FrameFormat(32, 16)
CLIP = Path(os.environ.get("EDGEPOST_TEST_CLIP") or Path(__file__).resolve().parents[2] / "shared/data/vtest.avi")
WAIT_S = 20.0


@contextlib.contextmanager
def runtime_in_memory() -> Iterator[Path]:
    """A runtime directory on tmpfs with its frames directory."""
    path = Path(tempfile.mkdtemp(prefix="edgepost-test-", dir="/dev/shm"))
    try:
        prepare_frames_dir(path)
        yield path
    finally:
        shutil.rmtree(path)


def publish(ring: RingWriter, value: int | None = None) -> int:
    """Publish a frame filled with `value`, by default its seq, in every four bytes; returns the seq."""
    with ring.slot() as slot:
        slot.image.reshape(-1).view(np.uint32)[:] = ring._next_seq if value is None else value
        return slot.publish(Capture(time.monotonic_ns(), time.time_ns())).seq


def value_of(image: np.ndarray) -> int | None:
    """What `publish` filled an image with, or None when it is not the same throughout."""
    words = np.ascontiguousarray(image).reshape(-1).view(np.uint32)
    return int(words[0]) if (words == words[0]).all() else None


@contextlib.contextmanager
def worker(
    runtime: Path, driver: str, settings: dict[str, object], slots: int = 8
) -> Iterator[subprocess.Popen[bytes]]:
    """A camera worker named "gate", started as its keeper does."""
    order = WorkerOrder("gate", driver, settings, str(runtime / "frames"), slots)
    with child([sys.executable, "-m", "agent.frames.worker"]) as process:
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        yield process


@contextlib.contextmanager
def script(text: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that runs `text`."""
    with child([sys.executable, "-c", text, *map(str, arguments)]) as process:
        yield process


@contextlib.contextmanager
def child(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process with pipes to it; killed in the end if it has not ended."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdin.close()
        process.stdout.close()
