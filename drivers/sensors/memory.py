"""How much memory and swap is in use."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from drivers import contract
from drivers.buses.buses import Buses
from drivers.buses.sysfs import read_text
from drivers.contract import BadData, Field, Reading, Sensor, Value


class MemorySettings(contract.Settings, frozen=True):
    """There is nothing to set."""


class Memory:
    """Main memory and swap from /proc/meminfo (see proc(5)); "available" is what programs can still have unswapped."""

    Settings: ClassVar[type[contract.Settings]] = MemorySettings
    fields: ClassVar[Mapping[str, Field]] = {
        "total": Field("By", "main memory that the kernel manages"),
        "available": Field("By", "what programs can still be given without swapping"),
        "used": Field("%", "share of the main memory that is not available"),
        "swap_total": Field("By", "size of the swap space, 0 where there is none"),
        "swap_used": Field("%", "share of the swap space in use; left out where there is none"),
    }

    def __init__(self, settings: MemorySettings, buses: Buses) -> None:
        del settings
        self._path = buses.root / "proc/meminfo"

    def open(self) -> None:
        read_text(self._path)

    def read(self) -> Sequence[Reading]:
        wanted = dict.fromkeys(("MemTotal", "MemAvailable", "SwapTotal", "SwapFree"), -1)
        missing = len(wanted)
        for line in read_text(self._path).splitlines():
            name, _, amount = line.partition(":")
            if name in wanted:
                number = amount.removesuffix("kB").strip()
                wanted[name] = int(number) * 1024 if number.isdecimal() else -1
                missing -= 1
                if not missing:
                    break
        absent = [name for name, value in wanted.items() if value < 0]
        if absent or not wanted["MemTotal"]:
            raise BadData(f"{self._path}: no number of kB for {', '.join(absent) or 'MemTotal'}")
        total, available, swap_total, swap_free = wanted.values()
        values: dict[str, Value] = {
            "total": total,
            "available": available,
            "used": round(100 * (total - available) / total, 1),
            "swap_total": swap_total,
        }
        if swap_total:
            values["swap_used"] = round(100 * (swap_total - swap_free) / swap_total, 1)
        return [Reading(values)]

    def close(self) -> None:
        """Nothing is held."""


DRIVER: type[Sensor] = Memory
