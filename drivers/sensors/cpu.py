"""How busy the processor is, its run queue and its clock."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from drivers import contract
from drivers.buses.buses import Buses
from drivers.buses.sysfs import read_int, read_text
from drivers.contract import BadData, DriverError, Field, Reading, Sensor, Value


class CpuSettings(contract.Settings, frozen=True):
    """There is nothing to set."""


class Cpu:
    """All cores together, from /proc/stat, /proc/loadavg (see proc(5)) and cpufreq in /sys.

    `usage` needs two samples, so the first reading after `open()` has none.
    """

    Settings: ClassVar[type[contract.Settings]] = CpuSettings
    fields: ClassVar[Mapping[str, Field]] = {
        "usage": Field("%", "time not idle since the reading before, of all cores"),
        "load1": Field("", "processes that run or wait to run, averaged over one minute"),
        "frequency": Field("MHz", "clock of the fastest core group at this moment"),
    }

    def __init__(self, settings: CpuSettings, buses: Buses) -> None:
        del settings
        self._root = buses.root
        self._clocks: list[Path] = []
        self._before: tuple[int, int] | None = None

    def open(self) -> None:
        self._before = None
        read_text(self._root / "proc/stat")
        self._clocks = sorted((self._root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_cur_freq"))

    def read(self) -> Sequence[Reading]:
        values: dict[str, Value] = {}
        now = _jiffies(self._root / "proc/stat")
        if self._before is not None and now[1] > self._before[1]:
            busy, total = now[0] - self._before[0], now[1] - self._before[1]
            values["usage"] = round(100 * min(max(busy / total, 0.0), 1.0), 1)  # iowait may run backwards: proc(5)
        self._before = now
        load = self._root / "proc/loadavg"
        try:
            values["load1"] = float(read_text(load).split(maxsplit=1)[0])
        except (ValueError, IndexError) as error:
            raise BadData(f"{load}: expected a number at its start") from error
        if frequencies_khz := [khz for path in self._clocks if (khz := _frequency_khz(path))]:
            values["frequency"] = max(frequencies_khz) / 1000
        return [Reading(values)]

    def close(self) -> None:
        """Nothing is held."""


def _jiffies(path: Path) -> tuple[int, int]:
    """Busy and all ticks since boot, from the first line of /proc/stat."""
    line = read_text(path).split("\n", 1)[0]
    try:
        # user nice system idle iowait irq softirq steal; the two for guests are counted in user and nice already
        ticks = [int(word) for word in line.removeprefix("cpu ").split()[:8]]
        total = sum(ticks)
        return total - ticks[3] - ticks[4], total
    except (ValueError, IndexError) as error:
        raise BadData(f"{path}: expected a line 'cpu' with at least 5 numbers, found {line[:60]!r}") from error


def _frequency_khz(path: Path) -> int | None:
    try:
        return read_int(path)
    except DriverError:  # a core that was taken offline: its clock can't be read, the others can
        return None


DRIVER: type[Sensor] = Cpu
