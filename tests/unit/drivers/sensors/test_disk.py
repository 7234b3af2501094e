import os

import pytest

from drivers.contract import BadData, DeviceAbsent
from drivers.registry import Buses
from drivers.sensors.disk import Disk, DiskSettings


@pytest.fixture
def diskstats(write, tmp_path):
    """Write /proc/diskstats with counters, in sectors, for the device that really holds the test's directory."""
    device = tmp_path.stat().st_dev

    def write_counters(read, written):
        write(
            "proc/diskstats",
            f"   7       0 loop0 9 9 {read + 9999} 9 9 9 {written + 9999} 9 0 9 9 0 0 0 0 0 0\n"
            f" {os.major(device)} {os.minor(device)} mmcblk0p2 31 8 {read} 92 33 19 {written} 51 0 53 14 0 0 0 0 0 0\n",
        )

    return write_counters


@pytest.fixture
def disk(tmp_path, clock):
    return Disk(DiskSettings(), Buses(tmp_path), monotonic=clock)


def test_rates_are_sectors_of_512_bytes_over_the_time_between_two_readings(disk, diskstats, clock):
    diskstats(read=1000, written=2000)
    disk.open()
    disk.read()
    diskstats(read=1100, written=2400)
    clock.now_s += 10
    values = disk.read()[0].values
    assert (values["read_rate"], values["write_rate"]) == (5120.0, 20480.0)


def test_the_first_reading_after_open_has_no_rates(disk, diskstats, clock):
    diskstats(read=1000, written=2000)
    for _ in range(2):
        disk.open()
        assert set(disk.read()[0].values) == {"total", "available", "used"}
        clock.now_s += 10


def test_rates_are_left_out_when_a_counter_ran_backwards(disk, diskstats, clock):
    diskstats(read=1000, written=2000)
    disk.read()
    diskstats(read=10, written=2400)
    clock.now_s += 10
    assert "write_rate" not in disk.read()[0].values


def test_a_file_system_that_is_on_no_block_device_has_space_and_no_rates(disk, write, clock):
    write("proc/diskstats", "   7       0 loop0 9 9 9 9 9 9 9 9 0 9 9\n")
    disk.read()
    clock.now_s += 10
    assert set(disk.read()[0].values) == {"total", "available", "used"}


def test_space_agrees_with_statvfs(disk, tmp_path):
    space = os.statvfs(tmp_path)
    values = disk.read()[0].values
    assert values["total"] == space.f_blocks * space.f_frsize
    assert 0 <= values["available"] <= values["total"]
    assert 0 <= values["used"] <= 100


def test_a_path_that_is_not_there_is_named_at_open(tmp_path):
    with pytest.raises(DeviceAbsent, match="media/stick"):
        Disk(DiskSettings(path="/media/stick"), Buses(tmp_path)).open()


def test_damaged_counters_are_bad_data(disk, write, tmp_path):
    device = tmp_path.stat().st_dev
    write("proc/diskstats", f"{os.major(device)} {os.minor(device)} sda 1 2\n")
    with pytest.raises(BadData, match="diskstats"):
        disk.read()
