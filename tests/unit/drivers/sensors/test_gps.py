"""The driver against sentences whose values were worked out by hand from the standard, on a real line."""

import functools
import operator
import os
import threading

import msgspec
import pytest

from drivers.contract import DeviceTimeout, Duration
from drivers.registry import Buses
from drivers.sensors.gps import Gps, GpsSettings

WAIT_S = 10


def framed(*bodies):
    """Sentences with their checksums, made without the library under test."""
    return b"".join(
        f"${body}*{functools.reduce(operator.xor, body.encode()):02X}\r\n".encode("ascii") for body in bodies
    )


def rmc(time="123519", status="A", position="4807.038,N,01131.000,E", motion="022.4,084.4"):
    return f"GPRMC,{time},{status},{position},{motion},230394,003.1,W"


def gga(time="123519", quality=1, position="4807.038,N,01131.000,E", rest="08,0.9,545.4,M,46.9,M,,"):
    return f"GPGGA,{time},{position},{quality},{rest}"


# 48° 7.038' = 48.1173°; 11° 31.000' = 11.516667°; 22.4 kn × 1852/3600 = 11.5236 m/s
EXPECTED = {
    "latitude": 48.1173,
    "longitude": 11.5166667,
    "altitude": 545.4,
    "speed": 11.5236,
    "course": 84.4,
    "satellites": 8,
    "hdop": 0.9,
    "fix_quality": 1,
}


class Receiver:
    """A receiver that sends what the test says, and the driver that listens to it."""

    def __init__(self, pty, clock):
        self.send = pty.send
        self.far = pty.far
        self.gps = Gps(GpsSettings(device=pty.path, timeout=Duration(WAIT_S)), Buses(), monotonic=clock)
        self.gps.open()

    def read(self):
        """The values of what the driver returns, a list."""
        return [dict(reading.values) for reading in self.gps.read()]


@pytest.fixture
def receiver(pty, clock):
    receiver = Receiver(pty, clock)
    yield receiver
    receiver.gps.close()


@pytest.mark.parametrize("order", [(rmc(), gga()), (gga(), rmc()), (gga("123519.00"), rmc("123519"))])
def test_rmc_and_gga_of_one_moment_make_one_reading(receiver, order):
    receiver.send(framed(*order))
    assert receiver.read() == [pytest.approx(EXPECTED)]


def test_south_and_west_are_negative(receiver):
    position = "3350.0000,S,07040.5000,W"
    receiver.send(framed(rmc(position=position), gga(position=position)))
    (values,) = receiver.read()
    assert values["latitude"] == pytest.approx(-33.833333, abs=1e-6)
    assert values["longitude"] == pytest.approx(-70.675, abs=1e-6)


def test_vtg_and_gsa_fill_in_what_rmc_and_gga_lack(receiver):
    receiver.send(
        framed(
            rmc(motion=","),
            "GPVTG,054.7,T,034.4,M,005.5,N,010.2,K",
            "GPGSA,A,3,04,05,,09,12,,,24,,,,,2.5,1.3,2.1",
            gga(rest="08,,545.4,M,46.9,M,,"),
        )
    )
    (values,) = receiver.read()
    assert values == pytest.approx({**EXPECTED, "speed": 2.8294, "course": 54.7, "hdop": 1.3})


def test_sentences_of_different_moments_are_never_mixed(receiver):
    receiver.send(framed(rmc("120000"), gga("120001", position="1000.0,N,02000.0,E"), rmc("120002"), gga("120002")))
    assert receiver.read() == [pytest.approx(EXPECTED)]
    receiver.send(framed(gga("120003", position="1000.0,N,02000.0,E"), rmc("120004")))
    (values,) = receiver.read()
    assert values["latitude"] == 10.0
    assert "speed" not in values


@pytest.mark.parametrize(
    "sentences",
    [
        (rmc(status="V", position=",,,", motion=","), gga(quality=0, position=",,,", rest="00,99.9,,,,,,")),
        (rmc("", "V", ",,,", ","), gga("", 0, ",,,", "00,99.9,,,,,,")),
        (rmc(status="V"), gga()),  # a position that the receiver itself warns of
        (rmc(status="V"), gga(rest=",0.9,545.4,M,46.9,M,,")),
    ],
)
def test_without_a_fix_there_is_no_position_and_fix_quality_is_0(receiver, sentences):
    receiver.send(framed(*sentences))
    (values,) = receiver.read()
    assert values["fix_quality"] == 0
    assert set(values) <= {"fix_quality", "satellites"}


def test_before_the_receiver_knows_the_time_each_second_is_a_reading(receiver):
    for _ in range(3):
        receiver.send(framed(rmc("", "V", ",,,", ","), gga("", 0, ",,,", "00,99.9,,,,,,")))
        assert receiver.read() == [{"fix_quality": 0, "satellites": 0}]


def test_of_several_moments_that_wait_only_the_newest_is_read(receiver):
    receiver.send(b"".join(framed(rmc(f"12000{n}"), gga(f"12000{n}", rest=f"0{n},0.9,1,M,1,M,,")) for n in range(5)))
    receiver.read()
    receiver.send(b"".join(framed(rmc(f"12001{n}"), gga(f"12001{n}", rest=f"0{n},0.9,1,M,1,M,,")) for n in range(5)))
    assert [values["satellites"] for values in receiver.read()] == [4]


def test_nothing_new_is_no_reading_and_no_error(receiver):
    receiver.send(framed(rmc(), gga()))
    receiver.read()
    assert receiver.read() == []
    receiver.send(framed("GPGSV,1,1,00"))
    assert receiver.read() == []


def test_a_moment_is_read_once_though_its_sentences_come_late(receiver):
    receiver.send(framed(rmc(), gga()))
    receiver.read()
    receiver.send(framed("GPVTG,054.7,T,034.4,M,005.5,N,010.2,K"))
    assert receiver.read() == []


def test_a_sentence_that_was_damaged_is_counted_and_never_read(receiver):
    good = framed(rmc(), gga())
    for position in range(1, len(good)):
        if good[position : position + 1] not in b"\r\n":
            damaged = bytearray(framed(rmc()) + framed(gga()))
            damaged[position] ^= 0x01
            rmc_line, gga_line = bytes(damaged).split(b"\r\n")[:2]
            damaged_line = rmc_line if position < len(framed(rmc())) else gga_line
            assert receiver.gps._take(damaged_line) is None
    assert receiver.gps._epoch.finish(whole=False) is None
    assert receiver.gps.bad_lines > 100


def test_what_a_fault_left_in_front_of_a_sentence_does_not_hide_it(receiver):
    receiver.send(b"$GPGSV,1,1,\xff\x00" + framed(rmc(), gga()))
    assert receiver.read() == [pytest.approx(EXPECTED)]


@pytest.mark.parametrize(
    "position", ["48x7.038,N,01131.000,E", "9107.038,N,01131.000,E", "4807.038,N,18131.000,E", ",N,01131.000,E"]
)
def test_a_fix_without_a_position_that_exists_is_never_read(receiver, position):
    receiver.send(framed(gga(position=position), rmc(position=position)))
    receiver.send(framed(rmc("123520"), gga("123520")))
    assert receiver.read() == [pytest.approx(EXPECTED)]
    assert receiver.gps.bad_lines == 2


@pytest.mark.parametrize(
    "body", ["GPRMC", "GPGGA", "GPGGA,123519,4807.038,N", "GPRMC,123519,A", "GPGGA,,,,,,x,,,,,,,,"]
)
def test_a_sentence_that_lacks_fields_is_counted_and_skipped(receiver, body):
    receiver.send(framed(body, rmc("123520"), gga("123520")))
    assert receiver.read() == [pytest.approx(EXPECTED)]
    assert receiver.gps.bad_lines == 1


def test_a_silent_receiver_times_out_after_its_timeout(receiver, clock):
    receiver.send(framed(rmc(), gga()))
    receiver.read()
    clock.now_s += WAIT_S - 1
    assert receiver.read() == []
    clock.now_s += 2
    with pytest.raises(DeviceTimeout, match="9600 baud"):
        receiver.read()


def test_a_receiver_at_another_speed_times_out_and_tells_how_much_was_unusable(receiver, clock):
    receiver.send(framed(rmc(), gga()))
    receiver.read()
    for _ in range(3):
        receiver.send(b"\xf8\x80x\xf8\n")
    clock.now_s += WAIT_S + 1
    with pytest.raises(DeviceTimeout, match="3 lines were unusable"):
        receiver.read()


def test_a_backlog_that_filled_the_kernels_buffer_is_not_taken_for_the_present(receiver):
    receiver.send(framed(rmc(), gga()))
    receiver.read()
    receiver.send(framed(*([rmc("110000"), gga("110000", rest="04,0.9,1,M,1,M,,")] * 40)))
    done = threading.Event()

    def go_on():
        for second in range(1, 60):
            if done.wait(0.3):
                return
            os.write(receiver.far, framed(rmc(f"1200{second:02d}"), gga(f"1200{second:02d}")))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        assert receiver.read() == [pytest.approx(EXPECTED)]
    finally:
        done.set()
        thread.join()


def test_a_timeout_of_nothing_is_refused():
    with pytest.raises(msgspec.ValidationError, match="above zero"):
        msgspec.convert({"timeout": "0s"}, GpsSettings, dec_hook=lambda kind, text: kind.parse(text))
