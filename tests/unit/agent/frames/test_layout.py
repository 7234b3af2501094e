import mmap
import struct
from pathlib import Path

import pytest

from agent.frames import layout
from agent.frames.layout import Announcement, BadRing, Header, SlotFields, Table

FIELDS = SlotFields(7, -1, 2**62, 640, 480, 1920, layout.BGR3, 921600, 3)


def test_an_announcement_has_the_bytes_that_other_programs_expect():
    message = Announcement(1, 2, 3, 4, 5, 6).pack("gate")
    assert message == b"gate\0" + struct.pack("<4sHHQQIIQqq", b"EPAN", 1, 0, 1, 2, 3, 0, 4, 5, 6)
    assert Announcement.unpack(message) == ("gate", Announcement(1, 2, 3, 4, 5, 6))


@pytest.mark.parametrize(
    "message", [b"", b"gate\0", b"gate", Announcement(1, 2, 3, 4, 5, 6).pack("g")[:-1], b"g\0EPAN" + b"\xff" * 52]
)
def test_what_is_no_announcement_is_refused(message):
    with pytest.raises(BadRing):
        Announcement.unpack(message)


def test_a_header_has_the_bytes_that_other_programs_expect():
    packed = Header(8, 11, 4096, 8192, 12, 13, 14, 15).pack()
    assert packed == b"EPFRAME1" + struct.pack("<IIQQQIIQI", 1, 8, 11, 4096, 8192, 12, 13, 14, 15)
    assert layout.unpack_header(packed, Path("x")) == Header(8, 11, 4096, 8192, 12, 13, 14, 15)


@pytest.mark.parametrize("data", [b"", b"EPFRAME1", b"JUNKJUNK" + bytes(60), b"EPFRAME1\x02" + bytes(60)])
def test_what_is_no_ring_is_refused_by_its_name(data):
    with pytest.raises(BadRing, match=r"gate\.ring"):
        layout.unpack_header(data, Path("gate.ring"))


def test_slots_and_pixels_are_where_the_layout_says():
    header = layout.plan(1000, 100, epoch=1)
    assert layout.slot_offset(2) == 4096 + 128
    assert header.data_offset % mmap.PAGESIZE == header.stride % mmap.PAGESIZE == 0
    assert header.data_offset >= 4096 + 6400
    assert header.stride >= 1000


def test_the_table_stores_each_field_at_its_offset(tmp_path):
    mapping = mmap.mmap(-1, 8192)
    table = Table(mapping, 4)
    table.set_fields(2, FIELDS)
    table.set_generation(2, 2**63)
    table.set_newest(2**40, 2)
    table.ring()
    assert struct.unpack_from("<QQqqIIIIQI", mapping, 4096 + 128) == (
        2**63, 7, -1, 2**62, 640, 480, 1920, layout.BGR3, 921600, 3,
    )  # fmt: skip
    assert struct.unpack_from("<IIQI", mapping, 40) == (0, 1, 2**40, 2)
    assert table.fields(2) == FIELDS
    file = tmp_path / "ring"
    file.write_bytes(mapping[:])
    assert layout.read_slot(file, 2) == FIELDS


def test_the_doorbell_wraps():
    mapping = mmap.mmap(-1, 8192)
    struct.pack_into("<I", mapping, 44, 2**32 - 1)
    table = Table(mapping, 1)
    table.ring()
    assert table.doorbell() == 0
