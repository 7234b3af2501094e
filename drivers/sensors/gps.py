"""Position, speed and course from a GPS (GNSS) receiver that talks NMEA 0183."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta
from pynmeagps import NMEAReader
from pynmeagps.exceptions import NMEAMessageError, NMEAParseError, NMEATypeError

from drivers import contract
from drivers.buses.buses import Buses
from drivers.contract import DeviceTimeout, Field, PositiveDuration, Reading, Sensor, Value

MPS_PER_KNOT = 1852 / 3600
_MAX_LINE_BYTES = 256  # the standard says 82; some receivers send more digits
_BACKLOG_BYTES = 4096  # the kernel's line buffer: once it was full, what is newest in it may be minutes old
_SILENCE_S, _SKIP_S = 0.1, 1.0  # a receiver that never falls silent has sent the present after a second
_TIMED = ("RMC", "GGA")
_WANTED = (b"RMC", b"GGA", b"GSA", b"VTG")


class GpsSettings(contract.Settings, frozen=True, kw_only=True):
    device: Annotated[
        str, Meta(description="the serial device, or rfc2217://host:port, or socket://host:port", min_length=1)
    ] = "/dev/serial0"
    baudrate: Annotated[int, Meta(description="speed of the line", ge=50, le=4_000_000, extra={"unit": "Bd"})] = 9600
    timeout: Annotated[PositiveDuration, Meta(description="how long it may go without a usable sentence")] = (
        PositiveDuration(5)
    )


class Gps:
    """Combines RMC and GGA of one epoch (and GSA and VTG for what those lack) into one reading, the newest there is.

    The first `read()` after `open()` waits for an epoch, later ones take what has arrived. A line whose checksum is
    wrong is counted and skipped. Without a fix a reading holds `fix_quality` 0 and no position.
    """

    Settings: ClassVar[type[contract.Settings]] = GpsSettings
    fields: ClassVar[Mapping[str, Field]] = {
        "latitude": Field("deg", "north is positive, WGS 84"),
        "longitude": Field("deg", "east is positive, WGS 84"),
        "altitude": Field("m", "above mean sea level"),
        "speed": Field("m/s", "over ground"),
        "course": Field("deg", "over ground, clockwise from true north; left out at rest by many receivers"),
        "satellites": Field("", "satellites used"),
        "hdop": Field("", "horizontal dilution of precision"),
        "fix_quality": Field(
            "", "0 none, 1 GNSS, 2 differential, 4 RTK, 5 float RTK, 6 dead reckoning (NMEA 0183, GGA)"
        ),
    }

    def __init__(self, settings: GpsSettings, buses: Buses, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._port = buses.serial(settings.device, settings.baudrate)
        self._baudrate = settings.baudrate
        self._timeout_s = float(settings.timeout)
        self._monotonic = monotonic
        self._epoch = _Epoch()
        self._heard_s = 0.0
        self._waits = True
        self.bad_lines = 0
        """How many lines could not be used: a wrong checksum, a position that is none."""

    def open(self) -> None:
        self._port.open()
        self._epoch = _Epoch()
        self._heard_s = self._monotonic()
        self._waits = True

    def read(self) -> Sequence[Reading]:
        newest, taken_bytes = self._drain()
        if taken_bytes >= _BACKLOG_BYTES:
            self._skip_backlog()
            newest, self._waits = None, True
        if self._waits and newest is None:
            newest = self._wait()
        if newest is not None:
            self._waits = False
            return [Reading(newest)]
        silent_s = self._monotonic() - self._heard_s
        if silent_s >= self._timeout_s:
            raise DeviceTimeout(
                f"{self._port.device}: no usable RMC or GGA sentence for {silent_s:.0f}s, {self.bad_lines} lines were "
                f"unusable: is it a receiver that talks NMEA at {self._baudrate} baud?"
            )
        return []

    def close(self) -> None:
        self._port.close()

    def _drain(self) -> tuple[dict[str, Value] | None, int]:
        """Take the lines that are there; returns the newest epoch that they complete, and how many bytes they were."""
        newest, taken_bytes = None, 0
        while (line := self._port.read_line(0, _MAX_LINE_BYTES)) is not None:
            taken_bytes += len(line)
            newest = self._take(line) or newest
            if taken_bytes >= _BACKLOG_BYTES:
                return None, taken_bytes
        return self._epoch.finish(whole=True) or newest, taken_bytes

    def _skip_backlog(self) -> None:
        """Read on until the line falls silent: a flush would not reach what waits behind the kernel's line buffer."""
        deadline_s = self._monotonic() + _SKIP_S
        while self._monotonic() < deadline_s and self._port.read_line(_SILENCE_S, _MAX_LINE_BYTES) is not None:
            pass
        self._epoch = _Epoch()

    def _wait(self) -> dict[str, Value] | None:
        """Take lines until one completes an epoch, or until `timeout` has passed."""
        deadline_s = self._monotonic() + self._timeout_s
        while (left_s := deadline_s - self._monotonic()) > 0:
            line = self._port.read_line(left_s, _MAX_LINE_BYTES)
            if line is not None and (values := self._take(line) or self._epoch.finish(whole=True)):
                return values
        return None

    def _take(self, line: bytes) -> dict[str, Value] | None:
        """Add a sentence to its epoch; returns the epoch before when this sentence ends that one."""
        start = line.rfind(b"$")  # after a fault on the line, what is left of the sentence before stands in front
        if start < 0:
            self.bad_lines += bool(line)
            return None
        if line[start + 3 : start + 6] not in _WANTED:
            return None  # the many others (GSV, GLL, …) cost nothing more
        try:
            sentence = NMEAReader.parse(line[start:])
        except (NMEAParseError, NMEATypeError, NMEAMessageError, ValueError):
            sentence = None
        if sentence is None or not _is_sound(sentence):
            self.bad_lines += 1
            return None
        ended = None
        if sentence.msgID in _TIMED:
            self._heard_s = self._monotonic()
            if not self._epoch.takes(sentence):
                ended = self._epoch.finish(whole=False)
                self._epoch = _Epoch()
        self._epoch.add(sentence)
        return ended


class _Epoch:
    """The sentences of one moment."""

    def __init__(self) -> None:
        self._time: object = None
        self._timed: dict[str, Any] = {}
        self._values: dict[str, Value] = {}
        self._finished = False

    def takes(self, sentence: Any) -> bool:
        """Whether a timed sentence belongs to this epoch. Before the first fix its time is blank: then by its kind."""
        return not self._timed or (sentence.time == self._time and sentence.msgID not in self._timed)

    def add(self, sentence: Any) -> None:
        kind = sentence.msgID
        if kind in _TIMED:
            self._time = sentence.time
            self._timed[kind] = sentence
            self._set("latitude", sentence.lat)
            self._set("longitude", sentence.lon)
        if kind == "GGA":
            self._set("altitude", sentence.alt)
            self._set("satellites", sentence.numSV)
            self._set("hdop", sentence.HDOP)
        elif kind == "GSA":
            self._set("hdop", getattr(sentence, "HDOP", None))
        elif kind == "RMC":
            self._set("speed", sentence.spd, MPS_PER_KNOT)
            self._set("course", sentence.cog)
        elif kind == "VTG":
            self._set("speed", getattr(sentence, "sogn", None), MPS_PER_KNOT)
            self._set("course", getattr(sentence, "cogt", None))

    def finish(self, *, whole: bool) -> dict[str, Value] | None:
        """The reading, once; None where there is nothing to read yet (`whole`: unless RMC and GGA are both there)."""
        if self._finished or not self._timed or (whole and len(self._timed) < len(_TIMED)):
            return None
        self._finished = True
        quality = self._fix_quality()
        if quality == 0:
            self._values = {name: value for name, value in self._values.items() if name == "satellites"}
        return {**self._values, "fix_quality": quality}

    def _fix_quality(self) -> int:
        rmc, gga = self._timed.get("RMC"), self._timed.get("GGA")
        if (rmc is not None and rmc.status != "A") or "latitude" not in self._values:
            return 0
        return int(gga.quality or 0) if gga is not None else 1

    def _set(self, name: str, value: object, scale: float = 1.0) -> None:
        """Keep what is a number and not known yet; a blank in a sentence is "" here."""
        if name not in self._values and isinstance(value, (int, float)):
            self._values[name] = value if scale == 1.0 else round(value * scale, 4)


def _is_sound(sentence: Any) -> bool:
    """Whether a timed sentence has all of its fields, and a position that exists if it claims a fix."""
    if sentence.msgID not in _TIMED:
        return True
    if not hasattr(sentence, "cog" if sentence.msgID == "RMC" else "alt"):
        return False
    if sentence.msgID == "GGA":
        if not isinstance(sentence.quality, int):
            return False
        claims_fix = sentence.quality > 0
    else:
        claims_fix = sentence.status == "A"
    if not claims_fix:
        return True
    latitude, longitude = sentence.lat, sentence.lon
    return (
        isinstance(latitude, float) and isinstance(longitude, float) and abs(latitude) <= 90 and abs(longitude) <= 180
    )


DRIVER: type[Sensor] = Gps
