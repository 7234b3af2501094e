"""From a sensor to the queue: reads on schedule, stamps by both clocks, joins, hands on."""

import threading
import time
from collections.abc import Sequence

from agent.clock import Clock, Stamp
from agent.health import PartHealth
from agent.readings.batch import Batch, Stamped
from drivers.contract import Reading, Sensor


class Sampler:
    """A supervised part that owns one sensor. Its schedule does not drift, and what was missed is not made up for."""

    def __init__(self, name: str, sensor: Sensor, interval_s: float, batch: Batch, clock: Clock) -> None:
        self.name = f"sensor/{name}"
        self._sensor = sensor
        self._interval_s = interval_s
        self._batch = batch
        self._clock = clock

    def run(self, stop: threading.Event, health: PartHealth) -> None:
        """Open the sensor and read it until told to stop; raises what the driver raises."""
        try:
            self._sensor.open()
            due = time.monotonic()
            while not stop.is_set():
                readings = self._sensor.read()
                stamp = self._clock.now()
                health.add(readings=len(readings))
                now = time.monotonic()
                due = _next_due(due, self._interval_s, now)
                self._batch.add(_stamped(readings, stamp), stamp.boot_ns, due - now)
                stop.wait(due - time.monotonic())
        finally:
            self._sensor.close()
            self._batch.flush()

    def interrupt(self) -> None:
        """End a read that is under way: closing is allowed at any time."""
        self._sensor.close()


def _stamped(readings: Sequence[Reading], now: Stamp) -> list[Stamped]:
    stamped: list[Stamped] = []
    for reading in readings:
        age_ns = int(reading.age_s * 1e9)
        stamped.append((Stamp(now.boot_ns - age_ns, now.real_ns - age_ns), reading.values))
    return stamped


def _next_due(due: float, interval_s: float, now: float) -> float:
    """The next moment of the schedule that is not past."""
    return due + interval_s * max(1, -((due - now) // interval_s))
