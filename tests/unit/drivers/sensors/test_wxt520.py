"""The driver against messages in the form of the WXT520 User's Guide M210906EN-C, chapter 7, on a real line."""

import pytest

from drivers.buses.buses import Buses
from drivers.buses.simulated import SimulatedBuses
from drivers.contract import BadData, DeviceTimeout, Duration
from drivers.sensors.wxt520 import Wxt520, Wxt520Settings

# The values are spread over the guide's examples: page 76 in Fahrenheit, aR0 with hail and heating.
COMPOSITE = b"0R0,Dx=005D,Sx=2.8M,Ta=23.0C,Ua=30.0P,Pa=1028.2H,Hc=0.00M,Rd=10s,Th=23.6C"


class Scripted:
    """A transmitter that answers every command with what the test says, and remembers the commands."""

    def __init__(self):
        self.answers = b""
        self.asked = []

    def step(self, received, t_s):
        if received:
            self.asked.append(received)
        return self.answers if received else b""


@pytest.fixture
def scripted():
    return Scripted()


@pytest.fixture
def ask(scripted):
    """Ask the driver for its readings, the transmitter answering with the message."""
    buses = SimulatedBuses("wxt520", model=lambda seed: scripted)
    opened = []

    def ask_once(message, **settings):
        scripted.answers = message + b"\r\n" if message else b""
        sensor = Wxt520(Wxt520Settings(**{"timeout": Duration(5), **settings}), buses)
        opened.append(sensor)
        sensor.open()
        try:
            return [dict(reading.values) for reading in sensor.read()]
        finally:
            sensor.close()

    yield ask_once
    buses.close()


def test_the_guides_composite_message_is_read(ask, scripted):
    assert ask(COMPOSITE) == [
        {
            "wind_direction_max": 5.0,
            "wind_speed_max": 2.8,
            "temperature": 23.0,
            "humidity": 30.0,
            "pressure": 1028.2,
            "hail": 0.0,
            "rain_duration": 10.0,
            "heating_temperature": 23.6,
        }
    ]
    assert scripted.asked == [b"0R0\r\n"]


@pytest.mark.parametrize(
    ("item", "field", "expected"),
    [  # worked out by hand
        (b"Sm=36.0K", "wind_speed", 10.0),
        (b"Sm=10.0S", "wind_speed", 4.4704),
        (b"Sm=10.0N", "wind_speed", 5.1444),
        (b"Sm=10.0M", "wind_speed", 10.0),
        (b"Ta=74.6F", "temperature", 23.6667),
        (b"Ta=-4.0F", "temperature", -20.0),
        (b"Ta=-4.0C", "temperature", -4.0),
        (b"Pa=101320.0P", "pressure", 1013.2),
        (b"Pa=1.0132B", "pressure", 1013.2),
        (b"Pa=760.0M", "pressure", 1013.25),
        (b"Pa=29.92I", "pressure", 1013.2075),
        (b"Rc=1.00I", "rain", 25.4),
        (b"Ri=0.10I", "rain_intensity", 2.54),
        (b"Hc=6.4516I", "hail", 1.0),
    ],
)
def test_every_unit_becomes_the_declared_one(ask, item, field, expected):
    assert ask(b"0R0," + item) == [{field: pytest.approx(expected, abs=1e-3)}]


def test_a_value_marked_invalid_is_left_out(ask):
    assert ask(b"0R0,Dm=106#,Sm=4.0#,Ta=16.0C") == [{"temperature": 16.0}]


def test_a_message_of_invalid_values_alone_is_no_reading(ask):
    assert ask(b"0R0,Dm=000#,Sm=0.0#") == []


def test_what_is_no_measurement_is_passed_over(ask):
    assert ask(b"0R0,Ta=16.0C,Vr=3.498V,Id=HEL/___") == [{"temperature": 16.0}]


def test_another_address_is_asked_for_and_expected(ask, scripted):
    assert ask(b"BR0,Ta=16.0C", address="B") == [{"temperature": 16.0}]
    assert scripted.asked == [b"BR0\r\n"]


@pytest.mark.parametrize(
    "message",
    [
        b"1R0,Ta=16.0C",  # another address
        b"0R2,Ta=16.0C",  # another command
        b"0R0",  # nothing in it
        b"0TX,Unknown cmd error",
        b"R0,Ta=16.0C",  # its beginning was lost
        b"0R0,Ta=16.0",  # its end was lost
        b"0R0,Ta=16.0C,Ua=5",
        b"0R0,Ta=16.0C,",
        b"0R0,Ta=16.0C,\xff\x80=1.0P",
        b"0R0,Ta=1 .0C",
        b"0R0,Ta=16.0H",  # a temperature in hPa
        b"0R0,Ta=960.0C",  # no such weather
        b"0R0,Dm=999D",
        b"0R0,Sm=-1.0M",
    ],
)
def test_a_damaged_or_foreign_reply_is_bad_data_as_a_whole(ask, message):
    with pytest.raises(BadData):
        ask(message)


def test_a_silent_transmitter_times_out_and_names_what_to_check(ask):
    with pytest.raises(DeviceTimeout, match=r"'0R0'.*19200 baud"):
        ask(b"", timeout=Duration(0.2))


def test_a_late_answer_is_not_taken_for_the_next(pty):
    sensor = Wxt520(Wxt520Settings(device=pty.path, timeout=Duration(0.2)), Buses())
    sensor.open()
    pty.send(b"0R0,Ta=1.0C\r\n")  # to a question long ago
    with pytest.raises(DeviceTimeout):
        sensor.read()
    sensor.close()
