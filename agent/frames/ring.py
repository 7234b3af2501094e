"""The writer's side of a ring: a file on tmpfs that a camera decodes into and any number of programs read in place."""

import contextlib
import errno
import mmap
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.errors import NoSpace
from agent.frames import layout, leases
from agent.frames.directory import ring_path
from agent.frames.layout import Announcement, SlotFields
from drivers.contract import Capture, FrameFormat


class RingWriter:
    """Writes frames of one format to `<directory>/<camera>.ring`. For one thread.

    Never waits for a reader: `revoked` counts the frames written over one that was still held.
    """

    def __init__(self, directory: Path, camera: str, format: FrameFormat, slots: int) -> None:  # noqa: A002
        if slots < 2:
            raise ValueError(f"a ring of {slots} slots: expected 2 or more, one to write while the newest is read")
        self.path = ring_path(directory, camera)
        self.format = format
        self.revoked = 0
        self._header = layout.plan(format.nbytes, slots, epoch=secrets.randbits(63) | 1)
        self._order = list(range(slots))  # oldest first; the newest, once there is one, is last
        self._next_seq = 0
        self._fd = -1
        self._inode = 0
        self._mapping: mmap.mmap | None = None

    @property
    def epoch(self) -> int:
        """Names this ring: seq counts from 0 within it."""
        return self._header.epoch

    def open(self) -> None:
        """Make the file; it gets its name when it is complete, in place of any other. Raises NoSpace, OSError."""
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        self._fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            os.fchmod(self._fd, 0o640)  # whatever the umask
            self._allocate()
            os.pwrite(self._fd, msgspec.structs.replace(self._header, pid=os.getpid()).pack(), 0)
            mapping = mmap.mmap(self._fd, self._header.nbytes)
            self._table = layout.Table(mapping, self._header.slots)
            self._doorbell = _address(mapping) + layout.DOORBELL_OFFSET
            self._mapping = mapping
            self._inode = os.fstat(self._fd).st_ino
            temporary.rename(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            self.close()
            raise

    @contextlib.contextmanager
    def slot(self) -> Iterator["Slot"]:
        """Take the oldest slot that nobody holds; when all are held, the oldest all the same.

        Inside, fill `image` and call `publish`. Left without that, or by an exception, the slot holds no frame.
        """
        index, locked = self._take()
        # The generation moves on before the first pixel does: whoever still reads the old frame will see that it went.
        self._table.set_generation(index, layout.whole(self._next_seq) - 1)
        leases.fence()
        slot = Slot(self, index, locked=locked)
        try:
            yield slot
        finally:
            slot.end()

    def close(self) -> None:
        """Tell waiting readers, let go, remove the file if it is still this one. Views of slots stay valid memory."""
        if self._mapping is not None:
            with contextlib.suppress(FileNotFoundError):
                if self.path.stat().st_ino == self._inode:
                    self.path.unlink()
            self._table.clear_pid()
            leases.wake(self._doorbell)
            del self._table
            self._mapping = None  # unmapped when the last view of it goes
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _allocate(self) -> None:
        """Take the memory now: a page that can't be had later would be a SIGBUS in the middle of a frame."""
        needed = self._header.nbytes
        try:
            os.posix_fallocate(self._fd, 0, needed)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            os.ftruncate(self._fd, 0)
            state = os.fstatvfs(self._fd)
            raise NoSpace(
                f"{self.path}: {self._header.slots} frames of {self.format.width}×{self.format.height} "
                f"need {needed} bytes, {state.f_bavail * state.f_frsize} are available in {_mount_point(self.path)}: "
                "use fewer slots or a smaller picture, or make that file system larger"
            ) from error

    def _take(self) -> tuple[int, bool]:
        """Choose a slot: its index, and whether its lock was to be had."""
        candidates = self._order[:-1] if self._next_seq else self._order
        for index in candidates:
            if leases.lock_exclusive(self._fd, layout.slot_offset(index)):
                return index, True
        self.revoked += 1
        return candidates[0], False

    def _view(self, index: int) -> NDArray[np.uint8]:
        assert self._mapping is not None
        offset = self._header.data_offset + index * self._header.stride
        return np.ndarray(self.format.shape, np.uint8, self._mapping, offset)

    def _publish(self, index: int, capture: Capture, *, locked: bool) -> Announcement:
        """Make the slot's frame the newest: generation even, unlock, newest, doorbell (the order: see leases)."""
        seq, table, form = self._next_seq, self._table, self.format
        fourcc = int.from_bytes(form.fourcc.encode("ascii"), "little")
        table.set_fields(
            index,
            SlotFields(
                seq, capture.t_mono_ns, capture.t_real_ns, form.width, form.height, form.row_stride, fourcc, form.nbytes
            ),
        )
        leases.fence()
        table.set_generation(index, layout.whole(seq))
        if locked:
            leases.unlock(self._fd, layout.slot_offset(index))
        self._order.remove(index)
        self._order.append(index)
        self._next_seq += 1
        table.set_newest(seq, index)
        leases.fence()
        published = time.monotonic_ns()
        table.ring()
        leases.wake(self._doorbell)
        return Announcement(self.epoch, seq, index, form.nbytes, capture.t_mono_ns, published)

    def _abandon(self, index: int, *, locked: bool) -> None:
        """Give the slot back with its generation odd; it is the first to be used again."""
        self._order.remove(index)
        self._order.insert(0, index)
        if locked:
            leases.unlock(self._fd, layout.slot_offset(index))


class Slot:
    """A slot while it is written. `image` is height × width × 3 bytes (BGR) of shared memory."""

    def __init__(self, ring: RingWriter, index: int, *, locked: bool) -> None:
        self.image = ring._view(index)  # noqa: SLF001 (the two halves of one writer)
        self._ring = ring
        self._index = index
        self._locked = locked
        self._done = False

    def publish(self, capture: Capture) -> Announcement:
        """The picture is complete: let readers have it. Once."""
        self._done = True
        return self._ring._publish(self._index, capture, locked=self._locked)  # noqa: SLF001

    def end(self) -> None:
        """Give the slot back if it was not published."""
        if not self._done:
            self._done = True
            self._ring._abandon(self._index, locked=self._locked)  # noqa: SLF001


def _address(mapping: mmap.mmap) -> int:
    return int(np.frombuffer(mapping, np.uint8, 1).ctypes.data)


def _mount_point(path: Path) -> Path:
    return next(parent for parent in path.resolve().parents if parent.is_mount())
