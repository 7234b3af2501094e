"""Wind, temperature, humidity, pressure, rain and hail from a Vaisala WXT520 weather transmitter, polled in ASCII."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from drivers import contract
from drivers.buses.buses import Buses
from drivers.contract import BadData, DeviceTimeout, Field, PositiveDuration, Reading, Sensor, Value

_ITEM = re.compile(r"([A-Z][a-z])=(-?\d+(?:\.\d+)?)([A-Za-z#])")


class Wxt520Settings(contract.Settings, frozen=True, kw_only=True):
    device: Annotated[
        str, Meta(description="the serial device, or rfc2217://host:port, or socket://host:port", min_length=1)
    ] = "/dev/ttyUSB0"
    baudrate: Annotated[
        int, Meta(description="speed of the line, as set in the transmitter", ge=1200, le=115_200, extra={"unit": "Bd"})
    ] = 19200
    address: Annotated[
        str, Meta(description="the transmitter's address on the line: one digit or letter", pattern="^[0-9A-Za-z]$")
    ] = "0"
    timeout: Annotated[PositiveDuration, Meta(description="how long the transmitter may take to answer")] = (
        PositiveDuration(2)
    )


class Quantity(Struct, frozen=True):
    """One parameter: its field, its unit letters as (factor, offset) to the field's unit, and what is possible.

    A value outside of `least` to `most` was never measured: the message was damaged on the way.
    """

    field: str
    unit: str
    description: str
    letters: Mapping[str, tuple[float, float]]
    least: float
    most: float


_DEGREES = {"D": (1.0, 0.0)}
_WIND = {"M": (1.0, 0.0), "K": (1 / 3.6, 0.0), "S": (0.44704, 0.0), "N": (1852 / 3600, 0.0)}  # m/s, km/h, mph, knots
_TEMPERATURE = {"C": (1.0, 0.0), "F": (5 / 9, -160 / 9)}
_PRESSURE = {
    "H": (1.0, 0.0),
    "P": (0.01, 0.0),
    "B": (1000.0, 0.0),
    "M": (1.33322387415, 0.0),
    "I": (33.8638866667, 0.0),
}
_DEPTH = {"M": (1.0, 0.0), "I": (25.4, 0.0)}  # mm, in; also per hour
_HITS = {"M": (1.0, 0.0), "I": (1 / 6.4516, 0.0)}  # per cm², per in²; also per hour
_SECONDS = {"s": (1.0, 0.0), "S": (1.0, 0.0)}
_VOLTS = {"V": (1.0, 0.0)}
_HEATER = dict.fromkeys("NVWF", (1.0, 0.0))  # the letter tells what the heater does: the value is in volts

QUANTITIES: Mapping[str, Quantity] = {
    "Dn": Quantity("wind_direction_min", "deg", "least wind direction", _DEGREES, 0, 360),
    "Dm": Quantity("wind_direction", "deg", "average wind direction", _DEGREES, 0, 360),
    "Dx": Quantity("wind_direction_max", "deg", "greatest wind direction", _DEGREES, 0, 360),
    "Sn": Quantity("wind_speed_min", "m/s", "least wind speed", _WIND, 0, 100),
    "Sm": Quantity("wind_speed", "m/s", "average wind speed", _WIND, 0, 100),
    "Sx": Quantity("wind_speed_max", "m/s", "greatest wind speed", _WIND, 0, 100),
    "Ta": Quantity("temperature", "Cel", "air temperature", _TEMPERATURE, -80, 80),
    "Tp": Quantity("internal_temperature", "Cel", "temperature of the pressure sensor", _TEMPERATURE, -80, 100),
    "Ua": Quantity("humidity", "%", "relative humidity", {"P": (1.0, 0.0)}, 0, 110),
    "Pa": Quantity("pressure", "hPa", "air pressure", _PRESSURE, 400, 1200),
    "Rc": Quantity("rain", "mm", "rain since the transmitter's counter was reset", _DEPTH, 0, 1e6),
    "Rd": Quantity("rain_duration", "s", "time that it rained, since then", _SECONDS, 0, 1e9),
    "Ri": Quantity("rain_intensity", "mm/h", "rain per hour, now", _DEPTH, 0, 2000),
    "Rp": Quantity("rain_intensity_max", "mm/h", "greatest rain per hour, since then", _DEPTH, 0, 2000),
    "Hc": Quantity("hail", "/cm2", "hailstones, since then", _HITS, 0, 1e6),
    "Hd": Quantity("hail_duration", "s", "time that it hailed, since then", _SECONDS, 0, 1e9),
    "Hi": Quantity("hail_intensity", "/cm2/h", "hailstones per hour, now", _HITS, 0, 1e5),
    "Hp": Quantity("hail_intensity_max", "/cm2/h", "greatest hailstones per hour, since then", _HITS, 0, 1e5),
    "Th": Quantity("heating_temperature", "Cel", "temperature of the heater", _TEMPERATURE, -80, 150),
    "Vh": Quantity("heating_voltage", "V", "voltage at the heater", _HEATER, 0, 50),
    "Vs": Quantity("supply_voltage", "V", "supply voltage", _VOLTS, 0, 50),
}
"""The parameters of the data messages: WXT520 User's Guide M210906EN-C, chapter 7."""


class Wxt520:
    """Asks for the composite data message (aR0) at each `read()` and converts it to the units of `fields`.

    Which parameters come is configured in the transmitter. A value that it marks invalid ("#") is left out.
    Source: WXT520 User's Guide M210906EN-C, page 76.
    """

    Settings: ClassVar[type[contract.Settings]] = Wxt520Settings
    fields: ClassVar[Mapping[str, Field]] = {q.field: Field(q.unit, q.description) for q in QUANTITIES.values()}

    def __init__(self, settings: Wxt520Settings, buses: Buses) -> None:
        self._port = buses.serial(settings.device, settings.baudrate)
        self._settings = settings
        self._command = f"{settings.address}R0"

    def open(self) -> None:
        self._port.open()

    def read(self) -> Sequence[Reading]:
        self._port.discard_input()  # a late answer to the question before is no answer to this one
        self._port.write(f"{self._command}\r\n".encode("ascii"))
        reply = self._port.read_line(float(self._settings.timeout))
        if reply is None:
            raise DeviceTimeout(
                f"{self._port.device}: the WXT520 did not answer {self._command!r} within {self._settings.timeout}: "
                f"are address {self._settings.address!r}, {self._settings.baudrate} baud and its protocol "
                "(polled ASCII) right?"
            )
        values = self._parse(reply)
        return [Reading(values)] if values else []

    def close(self) -> None:
        self._port.close()

    def _parse(self, reply: bytes) -> dict[str, Value]:
        """Turn a whole message into values; raises BadData if any part of it is not as expected."""
        command, *items = reply.decode("ascii", "replace").split(",")
        if command != self._command or not items:
            raise BadData(f"{self._port.device}: expected the answer to {self._command!r}, found {reply[:60]!r}")
        values: dict[str, Value] = {}
        for item in items:
            quantity = QUANTITIES.get(item[:2])
            if quantity is None and re.fullmatch(r"[A-Z][a-z]=[ -~]*", item):
                continue  # what is no measurement: the reference voltage, the information field
            match = _ITEM.fullmatch(item)
            if quantity is None or match is None:
                raise BadData(f"{self._port.device}: expected such as 'Ta=21.3C', found {item[:40]!r}")
            if match[3] == "#" or (item[0] == "H" and match[3] == "H"):  # invalid; hits without an area
                continue
            values[quantity.field] = self._converted(quantity, float(match[2]), match[3])
        return values

    def _converted(self, quantity: Quantity, number: float, letter: str) -> float:
        if letter not in quantity.letters:
            known = ", ".join(quantity.letters)
            raise BadData(f"{self._port.device}: {quantity.field}: expected a unit of {known}, found {letter!r}")
        factor, offset = quantity.letters[letter]
        value = round(number * factor + offset, 4)
        if not quantity.least <= value <= quantity.most:
            raise BadData(f"{self._port.device}: {quantity.field}: {value:g} {quantity.unit} is not possible")
        return value


DRIVER: type[Sensor] = Wxt520
