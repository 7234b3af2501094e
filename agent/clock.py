"""The clocks: boot time for order and age, wall time for people, and which boot this is."""

import time
from functools import cache
from pathlib import Path

import msgspec


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """One moment by both clocks, in nanoseconds: since boot (counting sleep) and since 1970 (as far as it was set)."""

    boot_ns: int
    real_ns: int


class Clock:
    """Reads the machine's clocks; a test passes another."""

    def now(self) -> Stamp:
        """This moment."""
        return Stamp(self.boot_ns(), time.time_ns())

    def boot_ns(self) -> int:
        """Nanoseconds since boot, CLOCK_BOOTTIME where there is one."""
        return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@cache
def boot_id() -> str:
    """Names this boot, 8 hex digits: stamps of one boot can be compared by their boot clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        return "unknown"
