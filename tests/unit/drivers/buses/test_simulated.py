import threading
from pathlib import Path

import pytest

from drivers.buses.simulated import SimulatedBuses
from drivers.contract import DeviceAbsent

WAIT_S = 10


class Echo:
    """Answers each line with its seed and the line."""

    def __init__(self, seed):
        self.seed = seed

    def step(self, received, t_s):
        return str(self.seed).encode() + received if received else b""


@pytest.fixture
def buses():
    buses = SimulatedBuses("echo", seed=7, model=Echo)
    yield buses
    buses.close()


def answer(port, question):
    port.write(question + b"\n")
    return port.read_line(WAIT_S)


def test_a_model_answers_on_a_real_line(buses):
    port = buses.serial("/dev/ttyUSB0", 9600)
    port.open()
    assert answer(port, b"hello") == b"7hello"
    port.close()


def test_the_model_of_the_drivers_name_is_found():
    buses = SimulatedBuses("wxt520")
    port = buses.serial("/dev/ttyUSB0", 19200)
    port.open()
    assert answer(port, b"?\r") == b"0"
    port.close()
    buses.close()


@pytest.mark.parametrize("driver", ["uptime", "no.such", "model-less"])
def test_a_driver_without_a_model_gets_the_real_line(driver):
    assert SimulatedBuses(driver).serial("/dev/there-is-no-such-device", 9600).device == "/dev/there-is-no-such-device"


def test_each_device_is_a_model_of_its_own_and_the_same_device_the_same_model(buses):
    first, again, second = (buses.serial(f"/dev/ttyUSB{number}", 9600) for number in (0, 0, 1))
    assert first.device == again.device
    for port, seed in ((first, b"7"), (second, b"8")):
        port.open()
        assert answer(port, b"") == seed
        port.close()


def test_an_unplugged_device_is_absent_until_it_is_plugged_in_at_the_same_path(buses):
    port = buses.serial("/dev/ttyUSB0", 9600)
    port.open()
    path = port.device
    buses.unplug()
    with pytest.raises(DeviceAbsent):
        port.read_line(0)
    port.close()
    with pytest.raises(DeviceAbsent):
        port.open()
    buses.plug()
    port.open()
    assert port.device == path
    assert answer(port, b"back") == b"7back"
    port.close()


def test_plug_and_unplug_can_be_repeated(buses):
    port = buses.serial("/dev/ttyUSB0", 9600)
    for _ in range(3):
        buses.unplug()
        buses.unplug()
        buses.plug()
        buses.plug()
    port.open()
    assert answer(port, b"x") == b"7x"
    port.close()


def test_a_model_that_nobody_reads_does_not_stop():
    class Flood:
        steps = 0

        def __init__(self, seed):
            del seed

        def step(self, received, t_s):
            Flood.steps += 1
            if Flood.steps > 20:
                enough.set()
            return b"x" * 4096

    enough = threading.Event()
    buses = SimulatedBuses("flood", model=Flood)
    buses.serial("/dev/ttyUSB0", 9600)
    assert enough.wait(WAIT_S)
    buses.close()


def test_close_leaves_no_thread_no_descriptor_and_no_file():
    def resources():
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    before = resources()
    buses = SimulatedBuses("echo", model=Echo)
    path = buses.serial("/dev/ttyUSB0", 9600).device
    buses.serial("/dev/ttyUSB1", 9600)
    buses.close()
    buses.close()
    assert resources() == before
    assert not Path(path).parent.exists()
