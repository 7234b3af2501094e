"""What every sensor that ships promises, whatever it measures."""

import gc
import random
import sys
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from drivers import registry
from drivers.buses.buses import Buses
from drivers.buses.simulated import SimulatedBuses
from drivers.contract import DriverError, Duration, Reading

SENSORS = registry.names("sensor")
ON_A_LINE = [name for name in SENSORS if find_spec(f"drivers.models.{name}")]
WAIT_S = 10

MACHINE = {
    "proc/stat": "cpu  100 0 100 700 100 0 0 0 50 0\n",
    "proc/loadavg": "0.42 0.30 0.20 1/234 5678\n",
    "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    "proc/uptime": "350735.47 234388.90\n",
    "proc/diskstats": "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0\n",
    "proc/net/dev": "Inter-|\n face |\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
}


class Device:
    """A shipped model that can fall silent, and can talk nonsense."""

    def __init__(self, model):
        self._model = model
        self.silent = False
        self.garbage = None

    def step(self, received, t_s):
        answer = self._model.step(received, t_s)
        if self.garbage is not None:
            return bytes(self.garbage.choices(b"0123456789RTSaCHMP=,.$*GNA\r\n\x00\xff", k=self.garbage.randrange(200)))
        return b"" if self.silent else answer


class Bench:
    """One sensor with all that it needs."""

    def __init__(self, name, root):
        self.devices = []
        self.buses = SimulatedBuses(name, root, model=self._device if name in ON_A_LINE else None)
        self._name = name
        self._driver = registry.load("sensor", name)

    def sensor(self, timeout_s=5.0):
        settings = self._driver.Settings
        return self._driver(
            settings(timeout=Duration(timeout_s)) if self._name in ON_A_LINE else settings(), self.buses
        )

    def _device(self, seed):
        model = sys.modules[f"drivers.models.{self._name}"].MODEL(seed)
        self.devices.append(Device(model))
        return self.devices[-1]


def resources():
    gc.collect()
    return sorted(thread.name for thread in threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def machine(tmp_path):
    for name, text in MACHINE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def bench(request, machine):
    """A bench for the sensor named by the parameter; checks that nothing is left behind when it is cleared."""
    name = request.param
    if name in ON_A_LINE:
        __import__(f"drivers.models.{name}")
    before = resources()
    bench = Bench(name, machine)
    yield bench
    bench.buses.close()
    assert resources() == before, "a thread or a descriptor was left behind"


every_sensor = pytest.mark.parametrize("bench", SENSORS, indirect=True)
every_sensor_on_a_line = pytest.mark.parametrize("bench", ON_A_LINE, indirect=True)


def first_readings(sensor):
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if readings := sensor.read():
            return readings
        time.sleep(0.05)
    pytest.fail("nothing was read")


class Reader:
    """Reads in a thread until an error ends it or it is told to stop."""

    def __init__(self, sensor):
        self.errors = []
        self._sensor = sensor
        self._stop = threading.Event()
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()
        assert self._began.wait(WAIT_S)
        time.sleep(0.2)  # so that it most likely is inside of read(); the promises hold if it is not

    def join(self, *, stop=False):
        if stop:
            self._stop.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "read() did not end"

    def _run(self):
        try:
            while not self._stop.is_set():
                self._began.set()
                self._sensor.read()
        except BaseException as error:
            self.errors.append(error)


RECORDING = threading.local()
IO_EVENTS = ("open", "os.listdir", "os.scandir", "socket.", "fcntl.", "subprocess.", "termios.", "ctypes.dlopen")


def _watch(event, args):
    seen = getattr(RECORDING, "seen", None)
    if seen is not None and event.startswith(IO_EVENTS):
        seen.append((event, args))


sys.addaudithook(_watch)


@pytest.mark.parametrize("name", SENSORS)
def test_the_constructor_does_no_io(name, machine):
    driver = registry.load("sensor", name)
    RECORDING.seen = []
    try:
        driver(driver.Settings(), Buses(machine))
        seen = list(RECORDING.seen)
        (machine / "proc/uptime").read_text()
        assert RECORDING.seen != seen, "the watch is blind"
    finally:
        RECORDING.seen = None
    assert seen == []


@every_sensor
def test_what_is_read_is_declared_and_of_a_declared_kind(bench):
    sensor = bench.sensor()
    declared = dict(sensor.fields)
    sensor.open()
    readings = [*first_readings(sensor), *sensor.read()]
    sensor.close()
    for reading in readings:
        assert isinstance(reading, Reading)
        assert isinstance(reading.values, Mapping)
        assert set(reading.values) <= set(declared)
        assert all(isinstance(value, (float, int, bool, str)) for value in reading.values.values())
        assert reading.age_s >= 0


@every_sensor
def test_it_can_be_opened_and_closed_again_and_again(bench):
    sensor = bench.sensor()
    for _ in range(3):
        sensor.open()
        assert first_readings(sensor)
        sensor.close()
        sensor.close()


@every_sensor
def test_it_can_be_closed_before_it_was_opened(bench):
    sensor = bench.sensor()
    sensor.close()
    sensor.open()
    assert first_readings(sensor)
    sensor.close()


@pytest.mark.parametrize("name", [name for name in SENSORS if name not in {*ON_A_LINE, "temperature", "disk"}])
def test_on_a_machine_that_lacks_the_file_open_raises_and_close_is_safe(name, tmp_path):
    driver = registry.load("sensor", name)
    sensor = driver(driver.Settings(), Buses(tmp_path))
    with pytest.raises(DriverError):
        sensor.open()
    sensor.close()
    sensor.close()


@every_sensor_on_a_line
def test_it_can_be_closed_after_it_failed_to_open_and_opened_later(bench):
    sensor = bench.sensor()
    bench.buses.unplug()
    with pytest.raises(DriverError):
        sensor.open()
    sensor.close()
    bench.buses.plug()
    sensor.open()
    assert first_readings(sensor)
    sensor.close()


@every_sensor
def test_close_is_safe_while_another_thread_reads(bench):
    sensor = bench.sensor()
    sensor.open()
    reader = Reader(sensor)
    sensor.close()
    reader.join(stop=True)
    assert all(isinstance(error, DriverError) for error in reader.errors)


@every_sensor_on_a_line
def test_close_ends_a_read_that_waits_for_a_silent_device(bench):
    sensor = bench.sensor(timeout_s=600)
    bench.devices[0].silent = True
    sensor.open()
    reader = Reader(sensor)
    sensor.close()
    reader.join()
    assert isinstance(reader.errors[0], DriverError)


@every_sensor_on_a_line
def test_a_device_unplugged_in_mid_read_is_an_error_and_works_again_when_it_is_back(bench):
    sensor = bench.sensor(timeout_s=600)
    bench.devices[0].silent = True
    sensor.open()
    reader = Reader(sensor)
    bench.buses.unplug()
    reader.join()
    assert isinstance(reader.errors[0], DriverError)
    sensor.close()
    bench.devices[0].silent = False
    bench.buses.plug()
    sensor.open()
    assert first_readings(sensor)
    sensor.close()


@every_sensor_on_a_line
def test_a_silent_device_is_an_error_after_its_timeout(bench):
    sensor = bench.sensor(timeout_s=0.2)
    bench.devices[0].silent = True
    sensor.open()
    with pytest.raises(TimeoutError) as raised:
        sensor.read()
    assert isinstance(raised.value, DriverError)
    sensor.close()


@every_sensor_on_a_line
def test_garbage_on_the_line_is_never_published(bench):
    sensor = bench.sensor(timeout_s=0.2)
    bench.devices[0].garbage = random.Random(1)
    sensor.open()
    for _ in range(10):
        try:
            assert list(sensor.read()) == []
        except DriverError:
            sensor.close()
            sensor.open()
    sensor.close()
