"""How full a file system is, and how much its device reads and writes."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from drivers import contract
from drivers.buses.buses import Buses
from drivers.buses.sysfs import read_text
from drivers.contract import BadData, DeviceAbsent, DriverError, Field, Reading, Sensor, Value

SECTOR_BYTES = 512
"""The unit of /proc/diskstats, whatever the sectors of the device are (Documentation/admin-guide/iostats.rst)."""


class DiskSettings(contract.Settings, frozen=True, kw_only=True):
    path: Annotated[str, Meta(description="any path on the file system that is watched", pattern="^/")] = "/"


class Disk:
    """Space by statvfs(3), traffic from /proc/diskstats.

    Traffic needs two samples, so the first reading after `open()` has none. There is never any where the file system
    is not on one block device (tmpfs, overlay, btrfs).
    """

    Settings: ClassVar[type[contract.Settings]] = DiskSettings
    fields: ClassVar[Mapping[str, Field]] = {
        "total": Field("By", "size of the file system"),
        "available": Field("By", "space that an ordinary user can still fill"),
        "used": Field("%", "share in use of what an ordinary user can have, as df(1) counts it"),
        "read_rate": Field("By/s", "read from the device since the reading before"),
        "write_rate": Field("By/s", "written to the device since the reading before"),
    }

    def __init__(
        self, settings: DiskSettings, buses: Buses, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = buses.root / settings.path.lstrip("/")
        self._diskstats = buses.root / "proc/diskstats"
        self._monotonic = monotonic
        self._before: tuple[float, int, int] | None = None

    def open(self) -> None:
        self._before = None
        self._space()

    def read(self) -> Sequence[Reading]:
        values = self._space()
        traffic = self._traffic()
        before, self._before = self._before, traffic
        if before is not None and traffic is not None:
            elapsed_s, read, written = (now - then for now, then in zip(traffic, before, strict=True))
            if elapsed_s > 0 and read >= 0 and written >= 0:  # less than before: the device was replaced
                values["read_rate"] = round(read / elapsed_s, 1)
                values["write_rate"] = round(written / elapsed_s, 1)
        return [Reading(values)]

    def close(self) -> None:
        """Nothing is held."""

    def _space(self) -> dict[str, Value]:
        try:
            space = os.statvfs(self._path)
        except FileNotFoundError as error:
            raise DeviceAbsent(f"{self._path}: there is no such path: is it mounted?") from error
        except OSError as error:
            raise DriverError(f"{self._path}: can't be looked at: {error.strerror}") from error
        used = space.f_blocks - space.f_bfree
        values: dict[str, Value] = {
            "total": space.f_blocks * space.f_frsize,
            "available": space.f_bavail * space.f_frsize,
        }
        if used + space.f_bavail:  # a pseudo file system has no blocks at all
            values["used"] = round(100 * used / (used + space.f_bavail), 1)
        return values

    def _traffic(self) -> tuple[float, int, int] | None:
        """When, bytes read and bytes written since boot, of the device that holds the path."""
        try:
            device = os.stat(self._path).st_dev  # noqa: PTH116 (beside statvfs, which pathlib has not)
            text = read_text(self._diskstats)
        except OSError:  # it went away between two calls; DeviceAbsent is one too: a kernel without block devices
            return None
        numbers = [str(os.major(device)), str(os.minor(device))]
        for line in text.splitlines():
            words = line.split(maxsplit=10)
            if words[:2] == numbers:
                try:
                    return self._monotonic(), int(words[5]) * SECTOR_BYTES, int(words[9]) * SECTOR_BYTES
                except (ValueError, IndexError) as error:
                    raise BadData(f"{self._diskstats}: expected counters, found {line!r}") from error
        return None


DRIVER: type[Sensor] = Disk
