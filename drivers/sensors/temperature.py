"""How warm the parts of the machine are that have a thermometer."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from drivers import contract
from drivers.buses.buses import Buses
from drivers.buses.sysfs import read_int, read_text
from drivers.contract import BadData, DriverError, Field, Reading, Sensor, Value

_ABSOLUTE_ZERO_CEL = -273.15


class TemperatureSettings(contract.Settings, frozen=True):
    """There is nothing to set."""


class Temperature:
    """All thermal zones and hwmon inputs of /sys (kernel: driver-api/thermal/sysfs-api.rst, hwmon/sysfs-interface.rst).

    A machine without any is no fault: there are no readings then. A thermometer that can't be read at the moment (a
    modem that sleeps) is left out of the reading.
    """

    Settings: ClassVar[type[contract.Settings]] = TemperatureSettings

    def __init__(self, settings: TemperatureSettings, buses: Buses) -> None:
        del settings
        self._root = buses.root / "sys/class"
        self._inputs: dict[str, Path] | None = None

    @property
    def fields(self) -> Mapping[str, Field]:
        """One field a thermometer, named after it: which there are is looked up in /sys, at `open()` at the latest."""
        if self._inputs is None:
            self._inputs = _named(_inputs(self._root))
        return {name: Field("Cel", f"{path.parent.name}/{path.name}") for name, path in self._inputs.items()}

    def open(self) -> None:
        self._inputs = _named(_inputs(self._root))

    def read(self) -> Sequence[Reading]:
        values: dict[str, Value] = {}
        for name, path in (self._inputs or {}).items():
            try:
                temperature_cel = read_int(path) / 1000
            except BadData:
                raise
            except DriverError:  # asleep or gone; the others are still worth reading
                continue
            if temperature_cel >= _ABSOLUTE_ZERO_CEL:  # some drivers answer -274 °C for "not known"
                values[name] = temperature_cel
        return [Reading(values)] if values else []

    def close(self) -> None:
        """Nothing is held."""


def _inputs(root: Path) -> Iterator[tuple[str, Path]]:
    """Every thermometer's name and the file that holds its temperature in thousandths of a degree Celsius."""
    for zone in sorted((root / "thermal").glob("thermal_zone*"), key=_number):
        yield _text(zone / "type") or zone.name, zone / "temp"
    for chip in sorted((root / "hwmon").glob("hwmon*"), key=_number):
        if (chip / "device/temp").exists():  # the kernel's mirror of a thermal zone that we have already
            continue
        name = _text(chip / "name") or chip.name
        for path in sorted(chip.glob("temp*_input"), key=_number):
            label = _text(chip / path.name.replace("_input", "_label"))
            yield f"{name} {label}".strip(), path


def _named(inputs: Iterator[tuple[str, Path]]) -> dict[str, Path]:
    """Make names fit for fields, "cpu-thermal" → "cpu_thermal", and number those that occur again."""
    named: dict[str, Path] = {}
    for name, path in inputs:
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "temperature"
        unique, count = plain, 1
        while unique in named:
            count += 1
            unique = f"{plain}_{count}"
        named[unique] = path
    return named


def _number(path: Path) -> int:
    """The number in a name such as "thermal_zone10", so that 10 comes after 9."""
    return int(match[0]) if (match := re.search(r"\d+", path.name)) else 0


def _text(path: Path) -> str:
    """A file's text, or "" where there is none: names and labels are optional."""
    try:
        return read_text(path).strip()
    except DriverError:
        return ""


DRIVER: type[Sensor] = Temperature
