"""Metered links: a bound in bytes a second, and one in bytes a month that survives restarts."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

SAVE_S = 60.0


class Metering:
    """Says when the next message may be sent. For one thread; lives as long as the uplink, over its connections.

    The rate is kept on average: a message goes when the ones before it are paid for, however large it is itself. The
    month is that of the wall clock, in UTC; at most a minute's worth is forgotten in a crash.
    """

    def __init__(
        self,
        *,
        bytes_per_s: int = 0,
        bytes_per_month: int = 0,
        file: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        month: Callable[[], str] = lambda: time.strftime("%Y-%m", time.gmtime()),
    ) -> None:
        """0 is no bound. `file` keeps what the month has cost so far."""
        self._bytes_per_s = bytes_per_s
        self._bytes_per_month = bytes_per_month
        self._file = file
        self._monotonic = monotonic
        self._month_now = month
        self._paid_at = 0.0  # when everything sent so far is paid for
        self._month, self._spent = self._load()
        self._saved_at = monotonic()

    def ready_in_s(self) -> float:
        """How long the next message has to wait: 0, or seconds, or infinity until the month is over."""
        if self.left_this_month() == 0:
            return math.inf
        return max(0.0, self._paid_at - self._monotonic()) if self._bytes_per_s else 0.0

    def left_this_month(self) -> int | None:
        """Bytes that may still be sent this month; None without a bound."""
        if not self._bytes_per_month:
            return None
        if self._month != self._month_now():
            self._month, self._spent = self._month_now(), 0
        return max(0, self._bytes_per_month - self._spent)

    def spend(self, size: int) -> None:
        """Note that `size` bytes go out."""
        now = self._monotonic()
        if self._bytes_per_s:
            self._paid_at = max(self._paid_at, now) + size / self._bytes_per_s
        if self._bytes_per_month:
            self._spent += size
            if now - self._saved_at >= SAVE_S:
                self.save()

    def save(self) -> None:
        """Keep what the month has cost; a disk that takes nothing is tried again later."""
        self._saved_at = self._monotonic()
        if self._file is None or not self._bytes_per_month:
            return
        beside = self._file.with_suffix(".tmp")
        try:
            beside.write_text(json.dumps({"month": self._month, "spent": self._spent}), "ascii")
            beside.rename(self._file)
        except OSError:
            beside.unlink(missing_ok=True)

    def _load(self) -> tuple[str, int]:
        try:
            kept = json.loads(self._file.read_text("ascii")) if self._file else {}
            return str(kept["month"]), int(kept["spent"])
        except (OSError, ValueError, KeyError, TypeError):
            return self._month_now(), 0
