"""Runs each part in a thread of its own and starts it again when it fails.

A part is written as if nothing ever failed: it raises, and here alone its failures are caught, counted, logged once
and answered with a back-off that grows while the part gets nothing done (full jitter: a fleet must not move in step).
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import tenacity

from agent.errors import EdgepostError
from agent.health import Health, PartHealth
from drivers.contract import DriverError

log = logging.getLogger(__name__)


class Part(Protocol):
    """Something that runs until it is told to stop."""

    name: str

    def run(self, stop: threading.Event, health: PartHealth) -> None:
        """Work until `stop` is set, calling `health.ok()` at each success; raise what goes wrong, then hold nothing."""


class Supervisor:
    """Starts parts, keeps them running, stops them all within a deadline."""

    def __init__(
        self, health: Health, *, backoff_s: float = 0.5, backoff_max_s: float = 30.0, steady_s: float = 5.0
    ) -> None:
        """The pause grows from `backoff_s` to `backoff_max_s`; it starts anew after a run of `steady_s` that worked."""
        self._health = health
        self._steady_s = steady_s
        self._backoff = tenacity.wait_random_exponential(multiplier=backoff_s, max=backoff_max_s)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, parts: Sequence[Part]) -> None:
        """Start a thread for each part."""
        for part in parts:
            thread = threading.Thread(target=self._keep_running, args=(part,), name=part.name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def ask_to_stop(self) -> None:
        """Ask all parts to end, without waiting."""
        self._stop.set()

    def stop(self, deadline_s: float) -> list[str]:
        """Ask all parts to end and wait; returns the names of those that had not ended in time."""
        self._stop.set()
        deadline = time.monotonic() + deadline_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _keep_running(self, part: Part) -> None:
        health = self._health.part(part.name)
        began = time.monotonic()

        def run() -> None:
            nonlocal began
            began = time.monotonic()
            part.run(self._stop, health)

        def after_failure(state: tenacity.RetryCallState) -> None:
            if health.succeeded.is_set() and time.monotonic() - began >= self._steady_s:
                state.attempt_number = 1  # it worked for a while: this failure is a first one again
            if not self._stop.is_set() and state.outcome is not None:
                _note(part.name, health, state.outcome.exception())

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Exception),
            wait=self._backoff,
            stop=tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            after=after_failure,
            retry_error_callback=lambda _: None,
        )
        retrying(run)
        health.stopped()


def _note(name: str, health: PartHealth, error: BaseException | None) -> None:
    """Count a failure, and log it when it is new: a steady state is silent."""
    text = str(error) if isinstance(error, (OSError, ValueError, EdgepostError, DriverError)) else repr(error)
    if health.failed(text):
        log.warning("%s: %s; trying again", name, text)
        log.debug("%s: where it failed", name, exc_info=error)
