"""A GPS receiver carried on a walk: RMC, VTG, GGA and GSA once a second (NMEA 0183)."""

import datetime as dt
import math
import random

from drivers.models.model import SerialModel

START = dt.datetime(2026, 1, 1, 8, 0, tzinfo=dt.UTC)
LATITUDE_DEG, LONGITUDE_DEG, ALTITUDE_M = 48.1173, 11.5167, 520.0
_METRES_PER_DEGREE = 111_320.0
_KNOTS_PER_MPS = 3600 / 1852
_NOISE_M = 0.5


class GpsReceiver:
    """Walks a figure of eight, 300 m by 120 m in ten minutes, with half a metre of noise on what it reports."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._second = -1

    def step(self, received: bytes, t_s: float) -> bytes:
        """Send one epoch for each whole second; after a pause only the newest, like a receiver whose line was cut."""
        del received  # a plain receiver ignores what it is sent
        if int(t_s) <= self._second:
            return b""
        self._second = int(t_s)
        return epoch(self._second, random.Random(f"{self._seed} {self._second}"))  # noqa: S311 (noise, no secret)


def epoch(second: int, noise: random.Random) -> bytes:
    """The sentences of one second."""
    east_m, north_m = _walked_m(second)
    east_before_m, north_before_m = _walked_m(second - 1)
    speed_mps = math.hypot(east_m - east_before_m, north_m - north_before_m)
    course_deg = math.degrees(math.atan2(east_m - east_before_m, north_m - north_before_m)) % 360
    latitude = LATITUDE_DEG + (north_m + noise.gauss(0, _NOISE_M)) / _METRES_PER_DEGREE
    east_scale = _METRES_PER_DEGREE * math.cos(math.radians(LATITUDE_DEG))
    longitude = LONGITUDE_DEG + (east_m + noise.gauss(0, _NOISE_M)) / east_scale
    altitude_m = ALTITUDE_M + 4 * math.sin(2 * math.pi * second / 600) + noise.gauss(0, _NOISE_M)
    satellites = [2, 5, 7, 9, 13, 15, 20, 27, 30][: noise.choice((7, 8, 9))]
    hdop = 0.8 + 0.1 * (9 - len(satellites))
    now = START + dt.timedelta(seconds=second)
    time, date = f"{now:%H%M%S}.00", f"{now:%d%m%y}"
    position = f"{_minutes(latitude, 2)},{'NS'[latitude < 0]},{_minutes(longitude, 3)},{'EW'[longitude < 0]}"
    speed_knots = speed_mps * _KNOTS_PER_MPS
    used = ",".join([f"{number:02d}" for number in satellites] + [""] * (12 - len(satellites)))
    return b"".join(
        sentence(body)
        for body in (
            f"GPRMC,{time},A,{position},{speed_knots:.3f},{course_deg:.2f},{date},,,A",
            f"GPVTG,{course_deg:.2f},T,,M,{speed_knots:.3f},N,{speed_mps * 3.6:.3f},K,A",
            f"GPGGA,{time},{position},1,{len(satellites):02d},{hdop:.2f},{altitude_m:.1f},M,47.0,M,,",
            f"GPGSA,A,3,{used},{hdop * 1.7:.2f},{hdop:.2f},{hdop * 1.4:.2f}",
        )
    )


def sentence(body: str) -> bytes:
    """Frame a body with "$", its checksum (the exclusive or of its bytes) and CR LF."""
    checksum = 0
    for byte in body.encode("ascii"):
        checksum ^= byte
    return f"${body}*{checksum:02X}\r\n".encode("ascii")


def _walked_m(second: int) -> tuple[float, float]:
    """Metres east and north of the start, at 1.0 to 2.0 m/s."""
    angle = 2 * math.pi * second / 600
    return 150 * math.sin(angle), 60 * math.sin(2 * angle)


def _minutes(degrees: float, digits: int) -> str:
    """(d)ddmm.mmmmm of an angle, without its sign."""
    hundred_thousandths = round(abs(degrees) * 60 * 100_000)  # rounded first, so that 59.999999 never becomes 60
    whole, rest = divmod(hundred_thousandths, 60 * 100_000)
    return f"{whole:0{digits}d}{rest / 100_000:08.5f}"


MODEL: type[SerialModel] = GpsReceiver
