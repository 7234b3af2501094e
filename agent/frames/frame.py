"""The reader's side of one ring file, and a frame held in it."""

import mmap
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from agent.frames import layout, leases
from agent.frames.layout import BadRing, SlotFields

_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


class Frame:
    """One frame, held in the ring until it is released: its pixels are read where the camera wrote them.

    While it is held the camera writes elsewhere, unless every slot is held: then the oldest is taken back, and
    `revoked` and `release()` say so. What was made of a revoked frame is to be thrown away.
    """

    def __init__(
        self, ring: "MappedRing", slot: int, fields: SlotFields, on_release: Callable[["Frame"], None]
    ) -> None:
        self.image = ring.view(slot, fields)
        """Read-only, uint8, height × width × 3 (blue, green, red); other formats than BGR3 as plain bytes."""
        self.epoch = ring.header.epoch
        self.seq = fields.seq
        self.t_mono_ns = fields.t_mono_ns
        self.t_real_ns = fields.t_real_ns
        self.width = fields.width
        self.height = fields.height
        self.fourcc = fields.fourcc.to_bytes(4, "little").decode("ascii", "replace")
        self._ring = ring
        self._slot = slot
        self._on_release = on_release
        self._was_whole: bool | None = None

    @property
    def captured(self) -> datetime:
        """When it was captured, in UTC, as far as the machine's clock was set."""
        return _UNIX + timedelta(microseconds=self.t_real_ns // 1000)

    @property
    def revoked(self) -> bool:
        """Whether the frame was written over while it was held."""
        if self._was_whole is not None:
            return not self._was_whole
        return not self._ring.holds(self._slot, self.seq)

    def copy(self) -> NDArray[np.uint8]:
        """The pixels in memory of your own, writable. Still to be judged by `release()`."""
        return self.image.copy()

    def release(self) -> bool:
        """Let the camera have the slot back; True if the frame was whole all the time. Again: the same answer."""
        if self._was_whole is None:
            self._ring.let_go(self._slot)
            self._was_whole = self._ring.holds(self._slot, self.seq)
            self._on_release(self)
        return self._was_whole

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class MappedRing:
    """A ring file, mapped for reading. Views of it stay valid memory after `close()` and after the file is gone."""

    def __init__(self, path: Path) -> None:
        """Open and map; raises FileNotFoundError while there is none, BadRing and OSError."""
        self.path = path
        self._held: Counter[int] = Counter()
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._state = os.fstat(self._fd)
            self.header = layout.unpack_header(os.pread(self._fd, 64, 0), path)
            self._mapping = mmap.mmap(self._fd, self.header.nbytes, access=mmap.ACCESS_READ)
            self._table = layout.Table(self._mapping, self.header.slots)
        except ValueError as error:
            os.close(self._fd)
            raise BadRing(f"{path}: {self._state.st_size} bytes are no ring: {error}") from error
        self._doorbell = int(np.frombuffer(self._mapping, np.uint8, 1).ctypes.data) + layout.DOORBELL_OFFSET

    def newest(self) -> tuple[int, int] | None:
        """Slot and seq of the newest frame, or None when there is none yet or it is just being replaced."""
        leases.fence()
        slot = self._table.newest_slot()
        generation = self._table.generation(slot)
        return (slot, generation // 2 - 1) if generation and generation % 2 == 0 else None

    def after(self, seq: int) -> tuple[int, int] | None:
        """Slot and seq of the oldest frame in the ring that is newer than `seq`, or None."""
        leases.fence()
        generations = enumerate(map(self._table.generation, range(self.header.slots)))
        later = [(generation, slot) for slot, generation in generations if generation > layout.whole(seq)]
        whole = [(generation // 2 - 1, slot) for generation, slot in later if generation % 2 == 0]
        return min(whole)[::-1] if whole else None

    def hold(self, slot: int, seq: int, on_release: Callable[[Frame], None]) -> Frame | None:
        """Take the lease on frame `seq`, without waiting; None when the writer has already taken the slot back."""
        if not self._held[slot] and not leases.lock_shared(self._fd, layout.slot_offset(slot)):
            return None
        self._held[slot] += 1
        # The lease does not say what is in the slot: the generation does, before and after the fields are read.
        if self._table.generation(slot) == layout.whole(seq):
            leases.fence()
            fields = self._table.fields(slot)
            if self.holds(slot, seq):
                return Frame(self, slot, fields, on_release)
        self.let_go(slot)
        return None

    def holds(self, slot: int, seq: int) -> bool:
        """Whether frame `seq` is whole in `slot`, and was when all earlier loads were made."""
        leases.fence()
        return self._table.generation(slot) == layout.whole(seq)

    def let_go(self, slot: int) -> None:
        """Give up one hold on a slot; the lock goes with the last: a revoked frame may share its slot with a later."""
        self._held[slot] -= 1
        if not self._held[slot] and self._fd >= 0:
            leases.unlock(self._fd, layout.slot_offset(slot))

    def view(self, slot: int, fields: SlotFields) -> NDArray[np.uint8]:
        """A slot's pixels, read-only, in place; raises BadRing when they would reach beyond the slot."""
        used = max(fields.nbytes, fields.height * fields.row_stride)
        if used > self.header.stride or (fields.fourcc == layout.BGR3 and fields.row_stride < fields.width * 3):
            raise BadRing(f"{self.path}: slot {slot} says it holds {fields}, a slot has {self.header.stride} bytes")
        offset = self.header.data_offset + slot * self.header.stride
        if fields.fourcc != layout.BGR3:
            return np.ndarray((fields.nbytes,), np.uint8, self._mapping, offset)
        shape, strides = (fields.height, fields.width, 3), (fields.row_stride, 3, 1)
        return np.ndarray(shape, np.uint8, self._mapping, offset, strides)

    def doorbell(self) -> int:
        """Changes with every frame published."""
        return self._table.doorbell()

    def wait(self, doorbell: int, timeout_s: float) -> None:
        """Sleep until the doorbell is no longer `doorbell`, for at most `timeout_s`; may return early."""
        leases.wait(self._doorbell, doorbell, timeout_s)

    def writer_alive(self) -> bool:
        """Whether the process that made the ring still runs and has not closed it."""
        return layout.alive(self._table.pid())

    def replaced(self) -> bool:
        """Whether the path names another file by now, or none."""
        try:
            return not os.path.samestat(self._state, self.path.stat())
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Close the file. Leases go one by one: the mapping keeps the open file alive, and with it the locks."""
        for slot, holds in self._held.items():
            if holds:
                leases.unlock(self._fd, layout.slot_offset(slot))
        os.close(self._fd)
        self._fd = -1  # the mapping goes with the last view
