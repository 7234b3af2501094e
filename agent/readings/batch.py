"""Joins the readings of one source into messages, so that a sensor at 100 Hz does not make 100 messages a second."""

from collections.abc import Callable, Mapping, Sequence

from agent.clock import Stamp
from agent.delivery.record import Telemetry
from drivers.contract import Value

PUNCTUAL = 0.95  # a sensor that is read each second is not to wait for its next reading because it was a bit late

Stamped = tuple[Stamp, Mapping[str, Value]]


class Batch:
    """Holds readings until `time_s` have passed since the first, or there are `size` of them. For one thread.

    It has no timer: it is asked at every reading, and hands on what it holds when the next one would come too late.
    A sensor that is read more rarely than `time_s` is therefore never held back.
    """

    def __init__(self, source: str, put: Callable[[Telemetry], object], *, time_s: float, size: int) -> None:
        self._source = source
        self._put = put
        self._time_ns = int(time_s * 1e9)
        self._size = size
        self._held: list[Stamped] = []
        self._since_ns = 0

    def add(self, readings: Sequence[Stamped], now_ns: int, next_in_s: float) -> None:
        """Take readings, oldest first, at `now_ns` of the boot clock; the next come in about `next_in_s`."""
        if not self._held:
            self._since_ns = now_ns
        self._held += readings
        while len(self._held) >= self._size:
            self._put(Telemetry(self._source, self._held[: self._size]))
            self._held = self._held[self._size :]
            self._since_ns = now_ns
        if now_ns + int(next_in_s * 1e9) - self._since_ns >= self._time_ns * PUNCTUAL:
            self.flush()

    def flush(self) -> None:
        """Hand on what is held."""
        if self._held:
            self._put(Telemetry(self._source, self._held))
            self._held = []
