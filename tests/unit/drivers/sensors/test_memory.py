import pytest

from drivers.contract import BadData
from drivers.registry import Buses
from drivers.sensors.memory import Memory, MemorySettings

MEMINFO = """MemTotal:        1000000 kB
MemFree:          100000 kB
MemAvailable:     250000 kB
Buffers:           10000 kB
SwapCached:            0 kB
SwapTotal:        {swap_total} kB
SwapFree:         {swap_free} kB
Dirty:                 4 kB
"""


@pytest.fixture
def memory(tmp_path):
    return Memory(MemorySettings(), Buses(tmp_path))


def test_used_is_what_is_not_available_and_amounts_are_in_bytes(memory, write):
    write("proc/meminfo", MEMINFO.format(swap_total=200000, swap_free=150000))
    assert memory.read()[0].values == {
        "total": 1_024_000_000,
        "available": 256_000_000,
        "used": 75.0,
        "swap_total": 204_800_000,
        "swap_used": 25.0,
    }


def test_a_machine_without_swap_has_no_share_of_it_in_use(memory, write):
    write("proc/meminfo", MEMINFO.format(swap_total=0, swap_free=0))
    values = memory.read()[0].values
    assert values["swap_total"] == 0
    assert "swap_used" not in values


@pytest.mark.parametrize("line", ["", "MemAvailable: many kB\n", "MemAvailable: -5 kB\n"])
def test_a_missing_or_damaged_line_is_named(memory, write, line):
    write("proc/meminfo", f"MemTotal: 1000 kB\n{line}SwapTotal: 0 kB\nSwapFree: 0 kB\n")
    with pytest.raises(BadData, match="MemAvailable"):
        memory.read()
