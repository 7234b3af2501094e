"""A part that fails is tried again, told apart from one that works, and ends when it is asked to."""

import logging
import threading

import pytest
import tenacity

from agent.health import Health, PartHealth
from agent.supervisor import Supervisor
from drivers.contract import DeviceAbsent
from tests.support import wait_until


class Flaky:
    """Fails as often as it is told to, then works until it is stopped."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.name = "flaky"
        self.runs = 0
        self._failures = failures
        self._error = error

    def run(self, stop: threading.Event, health: PartHealth) -> None:
        self.runs += 1
        if self.runs <= self._failures:
            raise self._error
        health.ok(runs=self.runs)
        stop.wait()


def test_a_failing_part_is_tried_until_it_works(caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    supervisor = Supervisor(health, backoff_s=0.001, backoff_max_s=0.01)
    part = Flaky(5, DeviceAbsent("/dev/ttyUSB0: is it plugged in?"))
    with caplog.at_level(logging.WARNING):
        supervisor.start([part])
        wait_until(lambda: health.snapshot()["flaky"]["state"] == "ok", "it works")
        assert supervisor.stop(5.0) == []
    report = health.snapshot()["flaky"]
    assert (report["state"], report["errors"], report["runs"]) == ("stopped", 5, 6)
    assert report["last_error"] == "/dev/ttyUSB0: is it plugged in?"
    assert len(caplog.records) == 1, "the same failure again is no news"


def test_an_error_that_nobody_expected_is_contained_and_named(caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    supervisor = Supervisor(health, backoff_s=0.001, backoff_max_s=0.01)
    with caplog.at_level(logging.WARNING):
        supervisor.start([Flaky(1, KeyError("bug"))])
        wait_until(lambda: health.snapshot()["flaky"]["state"] == "ok", "it works")
        supervisor.stop(5.0)
    assert "KeyError('bug')" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_part_that_waits_for_its_next_try_ends_at_once() -> None:
    supervisor = Supervisor(Health(), backoff_s=3600.0, backoff_max_s=3600.0)
    supervisor.start([Flaky(10, OSError("gone"))])
    assert supervisor.stop(10.0) == []


def test_a_part_that_does_not_end_is_named() -> None:
    class Stubborn:
        name = "stubborn"

        def run(self, stop: threading.Event, health: PartHealth) -> None:
            del stop, health
            release.wait(30)

    release = threading.Event()
    supervisor = Supervisor(Health())
    supervisor.start([Stubborn()])
    assert supervisor.stop(0.1) == ["stubborn"]
    release.set()


def test_the_pause_grows_until_a_run_has_lasted() -> None:
    """A part that works for a moment and fails again is not to be started in a tight loop."""
    health = Health()
    pauses: list[float] = []

    class Growing(tenacity.wait.wait_base):
        def __call__(self, retry_state: tenacity.RetryCallState) -> float:
            pauses.append(retry_state.attempt_number)
            return 0.0

    class Short:
        name = "short"

        def run(self, stop: threading.Event, health: PartHealth) -> None:
            health.ok()
            if len(pauses) == 3:
                stop.wait(0.3)
            elif len(pauses) >= 5:
                stop.wait()
                return
            raise OSError("lost")

    supervisor = Supervisor(health, steady_s=0.2)
    supervisor._backoff = Growing()
    supervisor.start([Short()])
    wait_until(lambda: len(pauses) >= 5, "five failures")
    supervisor.stop(5.0)
    assert pauses[:5] == [1, 2, 3, 1, 2]
