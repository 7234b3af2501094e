"""How long the machine has been up."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from drivers import contract
from drivers.buses.buses import Buses
from drivers.buses.sysfs import read_text
from drivers.contract import BadData, Field, Reading, Sensor


class UptimeSettings(contract.Settings, frozen=True):
    """There is nothing to set."""


class Uptime:
    """Seconds since boot from /proc/uptime (see proc(5)), time asleep included."""

    Settings: ClassVar[type[contract.Settings]] = UptimeSettings
    fields: ClassVar[Mapping[str, Field]] = {"uptime": Field("s", "time since boot, time asleep included")}

    def __init__(self, settings: UptimeSettings, buses: Buses) -> None:
        del settings
        self._path = buses.root / "proc/uptime"

    def open(self) -> None:
        read_text(self._path)

    def read(self) -> Sequence[Reading]:
        text = read_text(self._path)
        try:
            return [Reading({"uptime": float(text.split(maxsplit=1)[0])})]
        except (ValueError, IndexError) as error:
            raise BadData(f"{self._path}: expected seconds at its start, found {text[:40]!r}") from error

    def close(self) -> None:
        """Nothing is held."""


DRIVER: type[Sensor] = Uptime
