import pytest

from drivers.contract import BadData, DeviceAbsent
from drivers.registry import Buses
from drivers.sensors.cpu import Cpu, CpuSettings

# user nice system idle iowait irq softirq steal guest guest_nice
BEFORE = "cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\n"
AFTER = "cpu  150 0 125 800 120 0 5 0 90 0\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\n"


@pytest.fixture
def cpu(write, tmp_path):
    write("proc/stat", BEFORE)
    write("proc/loadavg", "0.42 0.30 0.20 1/234 5678\n")
    sensor = Cpu(CpuSettings(), Buses(tmp_path))
    yield sensor
    sensor.close()


def test_usage_is_the_busy_share_of_the_ticks_between_two_readings(cpu, write):
    cpu.open()
    cpu.read()
    write("proc/stat", AFTER)
    # Worked out by hand: all 1200 - 1000 = 200 ticks, idle and iowait (800 + 120) - (700 + 100) = 120, busy 80 of 200.
    assert cpu.read()[0].values["usage"] == 40.0


def test_the_first_reading_has_the_load_and_no_usage(cpu):
    cpu.open()
    assert cpu.read()[0].values == {"load1": 0.42}


def test_usage_starts_afresh_after_it_was_closed(cpu, write):
    cpu.open()
    cpu.read()
    cpu.close()
    write("proc/stat", AFTER)
    cpu.open()
    assert "usage" not in cpu.read()[0].values


def test_usage_is_left_out_when_no_tick_has_passed(cpu):
    cpu.open()
    cpu.read()
    assert "usage" not in cpu.read()[0].values


def test_usage_stays_within_0_and_100_when_iowait_runs_backwards(cpu, write):
    cpu.open()
    cpu.read()
    write("proc/stat", "cpu  200 0 120 700 40 0 0 0 0 0\n")
    assert cpu.read()[0].values["usage"] == 100.0


def test_frequency_is_that_of_the_fastest_group_in_mhz(cpu, write):
    write("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "600000\n")
    write("sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq", "1800000\n")
    cpu.open()
    assert cpu.read()[0].values["frequency"] == 1800.0


def test_a_group_of_cores_that_went_offline_is_left_out(cpu, write):
    write("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "600000\n")
    gone = write("sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq", "1800000\n")
    cpu.open()
    gone.unlink()
    assert cpu.read()[0].values["frequency"] == 600.0


def test_a_machine_without_proc_is_named_at_open(tmp_path):
    with pytest.raises(DeviceAbsent, match="proc/stat"):
        Cpu(CpuSettings(), Buses(tmp_path)).open()


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu  1 2 3\n", "cpu  a b c d e f g h\n"])
def test_a_damaged_stat_is_bad_data(cpu, write, text):
    write("proc/stat", text)
    with pytest.raises(BadData, match="cpu"):
        cpu.read()
