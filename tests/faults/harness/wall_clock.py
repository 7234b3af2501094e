"""A wall clock that jumps: `time.time` and `time.time_ns` of this process, moved by up to ten years."""

import random
import time

TEN_YEARS_S = 10 * 365.25 * 86400


class WallClock:
    """Once installed, whoever asks `time` for the wall clock is told one that is `offset_s` away from the true one."""

    def __init__(self, chance: random.Random) -> None:
        self.offset_s = 0.0
        self._chance = chance

    def install(self) -> None:
        """Replace the functions of `time` in this process; the first time told is wrong already."""
        seconds, nanoseconds = time.time, time.time_ns
        time.time = lambda: seconds() + self.offset_s
        time.time_ns = lambda: nanoseconds() + int(self.offset_s * 1e9)
        self.jump()

    def jump(self) -> float:
        """Move it to somewhere within ten years of the true time; returns by how many seconds it moved."""
        before = self.offset_s
        self.offset_s = self._chance.uniform(-TEN_YEARS_S, TEN_YEARS_S)
        return self.offset_s - before
