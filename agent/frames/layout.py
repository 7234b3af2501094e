"""The bytes of a ring file and of an announcement. Other programs depend on them: nothing here may move.

All numbers are little-endian, as every machine that edgepost runs on is.

    0                  magic, version, slots, epoch, stride, data offset, pid, doorbell, newest seq, newest slot
    4096 + 64·i        slot i: generation, seq, t_mono_ns, t_real_ns, width, height, row stride, fourcc, bytes, flags
    data offset + s·i  the pixels of slot i, page-aligned, s the slot stride

A slot's generation is 0 before its first use, odd while it is written, and 2·seq + 2 when frame `seq` is whole in it.
The writer pid is 0 once the writer has closed the ring.

Fields that change while others look are loaded and stored through `memoryview.cast`: one aligned access of the
field's own width, where `struct` with "<Q" goes byte by byte. (A 32-bit processor moves a u64 as two words; the upper
one changes once in 2³¹ frames, and the lock of the slot covers that moment.)
"""

import mmap
import os
import struct
import sys
from pathlib import Path

import msgspec

from agent.errors import EdgepostError

MAGIC = b"EPFRAME1"
VERSION = 1
SLOTS_OFFSET = 4096
SLOT_BYTES = 64
PID_OFFSET = 40
DOORBELL_OFFSET = 44
BGR3 = int.from_bytes(b"BGR3", "little")

_HEADER = struct.Struct("<8sIIQQQIIQI")
_ANNOUNCEMENT = struct.Struct("<4sHHQQIIQqq")
_ANNOUNCEMENT_MAGIC = b"EPAN"


class BadRing(EdgepostError, ValueError):
    """A file or message that does not have this layout."""


class Header(msgspec.Struct, frozen=True):
    """A ring's header as it was at one moment."""

    slots: int
    epoch: int
    stride: int
    data_offset: int
    pid: int = 0
    doorbell: int = 0
    newest_seq: int = 0
    newest_slot: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whole file."""
        return self.data_offset + self.slots * self.stride

    def pack(self) -> bytes:
        """The header's bytes, for a file that nobody sees yet."""
        return _HEADER.pack(
            MAGIC, VERSION, self.slots, self.epoch, self.stride, self.data_offset,
            self.pid, self.doorbell, self.newest_seq, self.newest_slot,
        )  # fmt: skip


class SlotFields(msgspec.Struct, frozen=True):
    """What a slot says of its frame besides the generation. `row_stride` and `nbytes` are in bytes."""

    seq: int
    t_mono_ns: int
    t_real_ns: int
    width: int
    height: int
    row_stride: int
    fourcc: int
    nbytes: int
    flags: int = 0


class Announcement(msgspec.Struct, frozen=True):
    """Says that frame `seq` is whole in `slot`; both times are CLOCK_MONOTONIC."""

    epoch: int
    seq: int
    slot: int
    nbytes: int
    t_capture_mono_ns: int
    t_publish_mono_ns: int

    def pack(self, camera: str) -> bytes:
        """The message: name, zero byte, fields."""
        return camera.encode() + b"\0" + _ANNOUNCEMENT.pack(
            _ANNOUNCEMENT_MAGIC, VERSION, 0, self.epoch, self.seq, self.slot, 0, self.nbytes,
            self.t_capture_mono_ns, self.t_publish_mono_ns,
        )  # fmt: skip

    @classmethod
    def unpack(cls, message: bytes) -> tuple[str, "Announcement"]:
        """The camera's name and the fields; raises BadRing."""
        name, _, fields = message.partition(b"\0")
        if len(fields) != _ANNOUNCEMENT.size or not fields.startswith(_ANNOUNCEMENT_MAGIC):
            raise BadRing(
                f"a message of {len(message)} bytes is no announcement: expected name, zero byte, EPAN, 52 bytes"
            )
        _, version, _, epoch, seq, slot, _, nbytes, t_capture, t_publish = _ANNOUNCEMENT.unpack(fields)
        if version != VERSION:
            raise BadRing(f"an announcement of version {version}; this program knows version {VERSION}")
        return name.decode(), cls(epoch, seq, slot, nbytes, t_capture, t_publish)


def plan(frame_bytes: int, slots: int, epoch: int) -> Header:
    """The header of a new ring of `slots` frames of up to `frame_bytes`."""
    page = mmap.PAGESIZE  # 16 KiB on a Pi 5
    return Header(slots, epoch, _round_up(frame_bytes, page), _round_up(SLOTS_OFFSET + slots * SLOT_BYTES, page))


def unpack_header(data: bytes, path: Path) -> Header:
    """Read a header from the first bytes of the file at `path`; raises BadRing."""
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise BadRing(f"{path}: no ring: it starts with {data[:8]!r}, expected {MAGIC!r}")
    _, version, *fields = _HEADER.unpack(data[: _HEADER.size])
    if version != VERSION:
        raise BadRing(f"{path}: a ring of version {version}; this program knows version {VERSION}")
    return Header(*fields)


def read_header(path: Path) -> Header:
    """The header of a ring file by plain reads; raises OSError (nothing there) and BadRing."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return unpack_header(os.pread(fd, _HEADER.size, 0), path)
    finally:
        os.close(fd)


def read_slot(path: Path, slot: int) -> SlotFields:
    """What slot `slot` of a ring file says of its frame, by plain reads, whole or not; raises OSError and BadRing."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(fd, SLOT_BYTES, slot_offset(slot))
    finally:
        os.close(fd)
    if len(data) < SLOT_BYTES:
        raise BadRing(f"{path}: ends before slot {slot}")
    return SlotFields(*struct.unpack_from("<QqqIIIIQI", data, 8))


def slot_offset(slot: int) -> int:
    """Where a slot's fields begin; that byte is also the one that is locked."""
    return SLOTS_OFFSET + slot * SLOT_BYTES


def whole(seq: int) -> int:
    """The generation of a slot that holds frame `seq` whole."""
    return 2 * seq + 2


def alive(pid: int) -> bool:
    """Whether the writer `pid` of a header still runs; 0 is one that closed its ring."""
    if pid == 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


class Table:
    """The fields of a mapped ring that change, each loaded and stored whole. Stores need a writable mapping."""

    def __init__(self, mapping: mmap.mmap, slots: int) -> None:
        if sys.byteorder != "little":
            raise BadRing("rings are little-endian; this machine is not")
        fields = memoryview(mapping)[: slot_offset(slots)]
        self._u32 = fields.cast("I")
        self._u64 = fields.cast("Q")
        self._i64 = fields.cast("q")

    def doorbell(self) -> int:
        """How many frames were published, modulo 2³²."""
        return self._u32[DOORBELL_OFFSET // 4]

    def pid(self) -> int:
        """The writer, 0 once it has closed the ring."""
        return self._u32[PID_OFFSET // 4]

    def newest_slot(self) -> int:
        """The slot published last; its generation tells whether there is one, and its seq."""
        return self._u32[14]

    def generation(self, slot: int) -> int:
        """A slot's generation."""
        return self._u64[slot_offset(slot) // 8]

    def fields(self, slot: int) -> SlotFields:
        """What a slot says of its frame: worth something if the generation is the same before and after."""
        q, i = slot_offset(slot) // 8, slot_offset(slot) // 4
        u32 = self._u32
        return SlotFields(
            self._u64[q + 1], self._i64[q + 2], self._i64[q + 3],
            u32[i + 8], u32[i + 9], u32[i + 10], u32[i + 11], self._u64[q + 6], u32[i + 14],
        )  # fmt: skip

    def set_generation(self, slot: int, generation: int) -> None:
        """Store a slot's generation."""
        self._u64[slot_offset(slot) // 8] = generation

    def set_fields(self, slot: int, fields: SlotFields) -> None:
        """Store all of a slot's fields but the generation."""
        q, i = slot_offset(slot) // 8, slot_offset(slot) // 4
        self._u64[q + 1] = fields.seq
        self._i64[q + 2] = fields.t_mono_ns
        self._i64[q + 3] = fields.t_real_ns
        for offset, value in enumerate((fields.width, fields.height, fields.row_stride, fields.fourcc), start=8):
            self._u32[i + offset] = value
        self._u64[q + 6] = fields.nbytes
        self._u32[i + 14] = fields.flags

    def set_newest(self, seq: int, slot: int) -> None:
        """Store which frame is the newest and where it is."""
        self._u64[6] = seq
        self._u32[14] = slot

    def ring(self) -> None:
        """Count one more frame on the doorbell."""
        self._u32[DOORBELL_OFFSET // 4] = (self.doorbell() + 1) & 0xFFFFFFFF

    def clear_pid(self) -> None:
        """Say that the writer has closed the ring."""
        self._u32[PID_OFFSET // 4] = 0


def _round_up(value: int, to: int) -> int:
    return -(-value // to) * to
