"""The real agent on simulated devices, with a verifier that receives from the broker and consumers that read frames."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agent.app import App
from agent.config import Config
from agent.delivery.mqtt import brokers
from agent.errors import EdgepostError
from agent.health import Health
from agent.simulator.tether import Tethered
from agent.simulator.verifier import Verifier
from agent.supervisor import Supervisor
from drivers import registry

FIRST_TELEMETRY_S = 30.0
DRAIN_S = 10.0


class Simulation:
    """The agent, the verifier that receives from the broker, and an example consumer for each camera."""

    def __init__(self, config: Config, data: Path, runtime: Path) -> None:
        self._config = config
        self._runtime = runtime
        self.verifier = Verifier(brokers(config.mqtt)[0], config.mqtt.root)
        self._receiving = Supervisor(Health(), backoff_s=0.1, backoff_max_s=1.0)
        self.app = App(config, data, runtime, registry.simulated_buses)
        self._consumers: list[Tethered] = []
        self._started = False

    def start(self, started_s: float, stop: threading.Event) -> None:
        """Start all and wait for the first telemetry, or for `stop`; the process began at `started_s`."""
        self._receiving.start([self.verifier])
        if not _wait_for(self.verifier.ready.is_set, FIRST_TELEMETRY_S, stop):
            if stop.is_set():
                return
            raise EdgepostError(f"{self._config.mqtt.urls[0]}: no broker answers there")
        self.app.start()
        self._started = True
        names = [s.name for s in self._config.sensors] + [c.name for c in self._config.cameras]
        say("agent", f"{self.app.device} reads {', '.join(names)}")
        if _wait_for(self.verifier.first_telemetry.is_set, FIRST_TELEMETRY_S, stop):
            took_s = self.verifier.first_telemetry_at_s - started_s
            say("first telemetry", f"at the broker {took_s:.2f} s after the start")
        elif not stop.is_set():
            say("first telemetry", f"has not come in {FIRST_TELEMETRY_S:g} s; `edgepost status` tells more")
        for camera in self._config.cameras:
            command = [sys.executable, "-m", "agent.consumers.motion", camera.name, "--runtime-dir", str(self._runtime)]
            self._consumers.append(Tethered(command))
            say("consumer", f"motion detection reads the frames of {camera.name} and posts to event/{camera.name}")

    def figures(self) -> dict[str, int]:
        """What has happened so far."""
        stats = self.app.queue.stats()
        parts = self.app.health.snapshot()
        readings = sum(part.get("readings", 0) for name, part in parts.items() if name.startswith("sensor/"))
        return {
            "readings": readings,
            "messages": stats.put - self.app.queue.put_before,
            **self.verifier.totals(self._prefix(), self.app.queue.epoch),
            "waiting": stats.waiting,
        }

    def finish(self, *, kept: bool) -> int:
        """End the sources, let the queue drain, print what became of it all; returns the exit status.

        What still waits then is lost, unless the data directory is `kept` for another run.
        """
        self._stop_consumers()
        if not self._started:
            return 1
        self.app.stop_sources(2.0)
        _drain(self.app.queue.is_empty, "draining", lambda: f"{self.app.queue.stats().waiting} messages wait")
        _drain(lambda: self._missing() == 0, "receiving", lambda: f"{self._missing()} to come")
        figures = self.figures()
        lost = max(0, self._missing() - (figures["waiting"] if kept else 0)) + figures["unreadable"]
        peak = self.app.queue.peak
        waiting = f" waiting={figures['waiting']}" if figures["waiting"] else ""
        disorder = f" out_of_order={figures['out_of_order']}" if figures["out_of_order"] else ""
        print(
            f"readings={figures['readings']} messages={figures['messages']} received={figures['received']} lost={lost} "
            f"duplicates={figures['duplicates']} queue_peak={peak}{waiting}{disorder}",
            flush=True,
        )
        return 1 if lost else 0

    def close(self) -> None:
        """End everything; safe after a failed start."""
        self._stop_consumers()
        if self._started:
            self.app.stop()
            self._started = False
        self._receiving.stop(2.0)

    def _prefix(self) -> str:
        return f"{self._config.mqtt.root}/{self.app.device}"

    def _missing(self) -> int:
        queue = self.app.queue
        return self.verifier.missing(self._prefix(), queue.epoch, queue.last_seqs(), queue.seqs_before)

    def _stop_consumers(self) -> None:
        while self._consumers:
            self._consumers.pop().stop()


def say(stage: str, text: str) -> None:
    """Print the line of a stage."""
    print(f"{stage:16} {text}", flush=True)


def _wait_for(done: Callable[[], bool], limit_s: float, stop: threading.Event) -> bool:
    """Wait until `done`, for at most `limit_s` and not once `stop` is set; returns whether it is."""
    deadline = time.monotonic() + limit_s
    while not done() and time.monotonic() < deadline:
        if stop.wait(0.01):
            return False
    return done()


def _drain(done: Callable[[], bool], what: str, progress: Callable[[], str]) -> None:
    """Wait up to DRAIN_S, telling so when it takes over a second."""
    begin = time.monotonic()
    told_s = 0.0
    while not done() and (waited := time.monotonic() - begin) < DRAIN_S:
        if waited - told_s >= 1.0:
            told_s = waited
            say(what, progress())
        time.sleep(0.02)
