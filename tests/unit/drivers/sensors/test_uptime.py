import pytest

from drivers.contract import BadData, DeviceAbsent
from drivers.registry import Buses
from drivers.sensors.uptime import Uptime, UptimeSettings


@pytest.fixture
def uptime(tmp_path):
    return Uptime(UptimeSettings(), Buses(tmp_path))


def test_uptime_is_the_first_number_in_seconds(uptime, write):
    write("proc/uptime", "350735.47 234388.90\n")
    uptime.open()
    assert uptime.read()[0].values == {"uptime": 350735.47}


def test_a_damaged_file_is_bad_data(uptime, write):
    write("proc/uptime", "\n")
    with pytest.raises(BadData, match="proc/uptime"):
        uptime.read()


def test_a_machine_without_proc_is_named_at_open(uptime):
    with pytest.raises(DeviceAbsent, match="proc/uptime"):
        uptime.open()
