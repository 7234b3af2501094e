"""Beats time for sources that have no clock of their own."""

import time

_LATE_S = 1.0


class Pace:
    """Lets a caller through `rate` times a second. One that comes late catches up, but for no more than a second."""

    def __init__(self, rate: float) -> None:
        self._period_s = 1.0 / rate
        self._due = time.monotonic()

    def wait(self) -> None:
        """Sleep until the next beat; the first is at once."""
        now = time.monotonic()
        if now < self._due:
            time.sleep(self._due - now)
        elif now > self._due + _LATE_S:
            self._due = now
        self._due += self._period_s
