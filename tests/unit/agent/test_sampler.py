"""Readings are taken on schedule and stamped by both clocks."""

import threading
from collections.abc import Sequence
from typing import ClassVar

import pytest

from agent.clock import Clock, Stamp
from agent.delivery.record import Telemetry
from agent.health import PartHealth
from agent.readings.batch import Batch
from agent.readings.sampler import Sampler, _next_due
from drivers.contract import DeviceAbsent, Field, Reading, Settings


class Script:
    """A sensor that answers from a list and then raises."""

    Settings: ClassVar[type[Settings]] = Settings
    fields: ClassVar[dict[str, Field]] = {"n": Field()}

    def __init__(self, *answers: Sequence[Reading]) -> None:
        self._answers = list(answers)
        self.closed = 0

    def open(self) -> None: ...

    def read(self) -> Sequence[Reading]:
        if not self._answers:
            raise DeviceAbsent("gone")
        return self._answers.pop(0)

    def close(self) -> None:
        self.closed += 1


class FixedClock(Clock):
    def now(self) -> Stamp:
        return Stamp(5_000_000_000, 1_763_905_000_000_000_000)


def sample(sensor: Script) -> tuple[list[Telemetry], PartHealth]:
    records: list[Telemetry] = []
    health = PartHealth("sensor/s")
    with pytest.raises(DeviceAbsent):
        Sampler("s", sensor, 0.001, Batch("s", records.append, time_s=1.0, size=100), FixedClock()).run(
            threading.Event(), health
        )
    return records, health


def test_a_reading_is_stamped_by_both_clocks_less_its_age() -> None:
    records, _ = sample(Script([Reading({"n": 1}, age_s=0.5), Reading({"n": 2})]))
    assert records == [
        Telemetry(
            "s",
            [
                (Stamp(4_500_000_000, 1_763_904_999_500_000_000), {"n": 1}),
                (Stamp(5_000_000_000, 1_763_905_000_000_000_000), {"n": 2}),
            ],
        )
    ]


def test_nothing_new_makes_no_message_and_is_no_failure() -> None:
    records, health = sample(Script([], [Reading({"n": 1})], []))
    assert len(records) == 1
    assert health.snapshot()["state"] == "ok"
    assert health.snapshot()["readings"] == 1


def test_the_sensor_is_closed_when_it_fails() -> None:
    sensor = Script()
    sample(sensor)
    assert sensor.closed == 1


@pytest.mark.parametrize(
    ("due", "now", "expected"),
    [(10.0, 10.1, 11.0), (10.0, 10.999, 11.0), (10.0, 13.4, 14.0), (10.0, 10.0, 11.0), (10.0, 9.9, 11.0)],
)
def test_the_schedule_does_not_drift_and_does_not_make_up_for_what_it_missed(
    due: float, now: float, expected: float
) -> None:
    assert _next_due(due, 1.0, now) == pytest.approx(expected)
