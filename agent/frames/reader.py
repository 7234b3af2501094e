"""Reads a camera's frames in place, from any process of this machine. Needs numpy and no decoder.

with FrameReader("gate") as frames:
    for frame in frames:
        look_at(frame.image)
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from agent import paths
from agent.frames.directory import ring_path
from agent.frames.frame import Frame, MappedRing

__all__ = ["Frame", "FrameReader"]

_LOOK_S = 0.1  # how often a silent ring is compared with what its path names now
_ABSENT_S = 0.05  # how often a camera that is not there is looked for
_TRIES = 3  # a slot may be lost between look and lock; more often in a row only to a writer that was stopped just there


class FrameReader:
    """The frames of one camera: the newest each time, or with `every` one after the other. For one thread.

    Waits for a camera that is not there yet, and follows it when it starts again or changes its resolution. A reader
    that is slow, stopped or dead costs neither the camera nor other readers a frame.

    `skipped` counts frames that this reader did not see though it was watching (with `every`: came too late for), and
    `revoked` those that were written over while it held them.
    """

    def __init__(
        self, camera: str, *, runtime_dir: Path | None = None, every: bool = False, timeout_s: float | None = None
    ) -> None:
        self.camera = camera
        self.skipped = 0
        self.revoked = 0
        self._path = ring_path(paths.frames_dir(paths.runtime_dir(runtime_dir)), camera)
        self._every = every
        self._timeout_s = timeout_s
        self._ring: MappedRing | None = None
        self._last_seq = -1
        self._watching = False  # seen a frame before, so a gap is one
        self._held: set[Frame] = set()

    @property
    def alive(self) -> bool:
        """Whether a running camera worker stands behind the ring that is being read."""
        return self._ring is not None and self._ring.writer_alive() and not self._ring.replaced()

    def read(self, timeout_s: float | None = None) -> Frame | None:
        """The next frame, to be released by the caller; None after `timeout_s` (default: the reader's; none: no limit).

        Raises BadRing when what stands in the camera's place is no ring.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = None if limit_s is None else time.monotonic() + limit_s
        while True:
            frame = self._take()
            if frame is not None:
                return frame
            left_s = _LOOK_S if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                return None
            self._wait(min(left_s, _LOOK_S))

    def __iter__(self) -> Iterator[Frame]:
        """Frame after frame, each released as the next is asked for; ends when none came for `timeout_s`."""
        while (frame := self.read()) is not None:
            with frame:
                yield frame

    def close(self) -> None:
        """Release every frame and let go of the ring. Views stay valid memory. Safe at any time and twice."""
        for frame in list(self._held):
            frame.release()
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> Frame | None:
        """Hold the next frame if there is one."""
        if self._ring is None:
            self._ring = self._attach()
            if self._ring is None:
                return None
        self._bell = self._ring.doorbell()  # before the look: a frame that comes after it will wake us
        for _ in range(_TRIES):
            found = self._ring.after(self._last_seq) if self._every else self._ring.newest()
            if found is None or found[1] <= self._last_seq:
                return None
            slot, seq = found
            frame = self._ring.hold(slot, seq, self._released)
            if frame is not None:
                self._held.add(frame)
                self.skipped += seq - self._last_seq - 1 if self._watching else 0
                self._last_seq, self._watching = seq, True
                return frame
        return None

    def _attach(self) -> MappedRing | None:
        """Map the ring that is there now, if there is one."""
        try:
            ring = MappedRing(self._path)
        except FileNotFoundError:
            return None
        self._last_seq = -1
        newest = ring.newest()
        if newest and not ring.writer_alive():
            # What a dead camera left is old. Should it live after all (unseen, in another container), more will come.
            self._last_seq = newest[1]
        return ring

    def _wait(self, timeout_s: float) -> None:
        """Sleep until something may have changed; go over to the camera's new ring when the old one has no more."""
        if self._ring is None:
            time.sleep(min(timeout_s, _ABSENT_S))
            return
        self._ring.wait(self._bell, timeout_s)
        if self._ring.doorbell() == self._bell and self._ring.replaced():
            self._ring.close()  # frames of it that are still held keep it mapped; nobody writes it any more
            self._ring = None

    def _released(self, frame: Frame) -> None:
        self._held.discard(frame)
        self.revoked += not frame.release()
