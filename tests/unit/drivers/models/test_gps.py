"""The receiver's sentences, checked without the library that the driver reads them with."""

import functools
import itertools
import math
import operator

import pytest

from drivers.models.gps import GpsReceiver, sentence


def lines(data):
    return data.decode("ascii").split("\r\n")[:-1]


def metres_east_north(line):
    """The position of an RMC line, roughly in metres."""
    words = line.split(",")
    latitude = int(words[3][:2]) + float(words[3][2:]) / 60
    longitude = int(words[5][:3]) + float(words[5][3:]) / 60
    return longitude * 111_320 * math.cos(math.radians(48.1)), latitude * 111_320


def test_a_sentence_carries_the_checksum_of_the_textbook():
    # The example of the NMEA FAQ (P. Bennett, revision 6.3): *47 for this GGA.
    body = "GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,"
    assert sentence(body) == f"${body}*47\r\n".encode()


def test_every_sentence_has_a_right_checksum():
    for line in lines(GpsReceiver(3).step(b"", 5.0)):
        body, _, checksum = line.removeprefix("$").partition("*")
        assert functools.reduce(operator.xor, body.encode()) == int(checksum, 16)


def test_each_second_has_one_of_each_sentence():
    receiver = GpsReceiver(0)
    for second in range(3):
        sent = lines(receiver.step(b"", second + 0.01))
        assert sorted(line[3:6] for line in sent) == ["GGA", "GSA", "RMC", "VTG"]
        assert receiver.step(b"", second + 0.5) == b""


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    runs = [b"".join(receiver.step(b"", t) for t in range(20)) for receiver in map(GpsReceiver, (1, 1, 2))]
    assert runs[0] == runs[1] != runs[2]


def test_it_moves_at_a_walkers_pace_and_reports_the_speed_it_moves_at():
    receiver = GpsReceiver(0)
    rmc = [lines(receiver.step(b"", t))[0] for t in range(0, 600, 60)]
    for line, later in itertools.pairwise(rmc):
        moved = math.dist(metres_east_north(line), metres_east_north(later))
        assert 0.2 < moved / 60 < 2.5
        assert 0.3 < float(line.split(",")[7]) * 1852 / 3600 < 2.5


@pytest.mark.parametrize("t_s", [0, 86_399, 86_400, 1e6])
def test_minutes_stay_below_sixty(t_s):
    for line in lines(GpsReceiver(0).step(b"", t_s)):
        if line[3:6] == "RMC":
            assert float(line.split(",")[3][2:]) < 60
            assert float(line.split(",")[5][3:]) < 60
