"""The composition root: the only place that knows all parts and wires them.

sensor ─► Sampler ─────────────► DiskQueue ─► Uplink ─► broker
programs ─► Ingest ──────────────────┘  ▲
camera ─► CameraKeeper ─► worker ─► ring (shared memory) ─► readers
                            Board (status, meta, health) ─► Uplink
"""

import json
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from agent import paths
from agent.clock import Clock
from agent.config import CameraConfig, Config, SensorConfig
from agent.control_socket import ControlServer
from agent.delivery.board import Board
from agent.delivery.codec import JsonCodec, Message
from agent.delivery.disk_queue import DiskQueue
from agent.delivery.ingest import Ingest
from agent.delivery.metering import Metering
from agent.delivery.mqtt import Connection, ConnectionLost, Protocol, brokers, connect
from agent.delivery.requests import answer
from agent.delivery.session import Limits
from agent.delivery.uplink import Uplink
from agent.frames.directory import prepare_frames_dir, release_frames_dir
from agent.frames.keeper import CameraKeeper
from agent.health import Health, PartHealth
from agent.identity import device_id
from agent.lock import lock
from agent.memory import give_back
from agent.readings.batch import Batch
from agent.readings.sampler import Sampler
from agent.supervisor import Supervisor
from drivers import registry
from drivers.contract import Sensor

log = logging.getLogger(__name__)

SETTLED_S = 2.0  # after the start
HEALTH_INTERVAL_S = 30.0
UPLINK_BACKOFF_S = 4.5  # a broker that is back is found within this; the jitter spreads a fleet over it


class App:
    """The agent. `start`, then `stop`, once each."""

    def __init__(
        self,
        config: Config,
        data: Path,
        runtime: Path,
        buses_for: Callable[[str], registry.Buses] = lambda _driver: registry.Buses(),
    ) -> None:
        """`buses_for(driver)` gives a driver its buses: the machine's, or the simulator's."""
        self.health = Health()
        self.queue = DiskQueue(
            data / "queue",
            self.health.part("queue"),
            max_bytes=config.queue.max_bytes,
            may_drop=config.queue.on_full == "drop-oldest",
            max_age_s=config.queue.max_age or None,
            durability=config.queue.durability,
            commit_interval_s=config.queue.commit_interval,
        )
        self._config = config
        self._data = data
        self._runtime = runtime
        self._buses_for = buses_for
        self._clock = Clock()
        self._board = Board()
        self._buses: list[registry.Buses] = []
        self._samplers: list[Sampler] = []
        self._locks: list[int] = []
        self._sources = Supervisor(self.health)
        self._delivery = Supervisor(self.health, backoff_max_s=UPLINK_BACKOFF_S)
        self._uplink: Uplink | None = None
        self.device = ""

    def start(self) -> None:
        """Start everything; raises EdgepostError when the directories can't be used."""
        frames = paths.frames_dir(self._runtime)
        for socket in (self._runtime / "ingest", *(frames / f"{each.name}.announce" for each in self._config.cameras)):
            paths.check_socket_path(socket)
        for directory in (self._data, self._runtime):
            self._locks.append(lock(paths.make_private(directory)))
        self.device = device_id(self._config.device.id, self._data)
        self.queue.open()
        codec = JsonCodec(self._config.mqtt.root, self.device, self._config.mqtt.compression)
        ingest = Ingest(self.queue, self._runtime, self._clock)
        self._uplink = self._make_uplink(codec)
        self.queue.on_commit(self._uplink.wake)
        self.queue.on_commit(ingest.wake)
        self._board.on_post(self._uplink.wake)
        self._samplers = [self._make_sampler(sensor, codec) for sensor in self._config.sensors]
        control = ControlServer(self._runtime, self._data, self.snapshot, partial(answer, self.queue))
        self._delivery.start([self._uplink, control])
        self._sources.start([*self._samplers, ingest, *self._make_keepers(codec), _HealthReport(self, codec)])

    def stop(self, deadline_s: float = 4.0) -> None:
        """Stop the sources, publish what the queue holds for a moment, say goodbye and close the queue."""
        late = self.stop_sources(deadline_s / 2)
        if self._uplink is not None:
            self._delivery.ask_to_stop()
            self._uplink.wake()
        late += self._delivery.stop(deadline_s / 2)
        if late:
            log.warning("did not end in time: %s", ", ".join(late))
        self.queue.close()
        for descriptor in self._locks:
            os.close(descriptor)

    def stop_sources(self, deadline_s: float) -> list[str]:
        """End all that puts into the queue and leave the uplink to deliver it; returns what did not end in time."""
        self._sources.ask_to_stop()
        for sampler in self._samplers:
            sampler.interrupt()
        late = self._sources.stop(deadline_s)
        for buses in self._buses:
            buses.close()
        if self._config.cameras:
            release_frames_dir(paths.frames_dir(self._runtime))
        return late

    def expire(self) -> None:
        """Drop what is too old to be worth sending."""
        self.queue.expire(self._clock.boot_ns())

    def snapshot(self) -> dict[str, Any]:
        """The agent's own figures as JSON values."""
        return {
            "device": self.device,
            "pid": os.getpid(),
            "queue": msgspec.to_builtins(self.queue.stats()),
            "parts": self.health.snapshot(),
        }

    def post(self, codec: JsonCodec, topic: str, body: dict[str, Any], *, retain: bool) -> None:
        """Put what is only worth knowing as it is now on the board."""
        self._board.post(Message(f"{codec.prefix}/{topic}", json.dumps(body).encode(), retain=retain))

    def _make_uplink(self, codec: JsonCodec) -> Uplink:
        mqtt = self._config.mqtt
        protocols: tuple[Protocol, ...] = ("5", "3.1.1") if mqtt.protocol == "auto" else (mqtt.protocol,)

        def open_connection(will: Message) -> Connection:
            failures = []
            for broker in brokers(mqtt):
                make = partial(
                    Connection, broker, f"edgepost-{self.device}", keepalive_s=int(mqtt.keepalive), will=will
                )
                try:
                    return connect(make, protocols, mqtt.connect_timeout)
                except ConnectionLost as error:
                    failures.append(str(error))
            raise ConnectionLost("; ".join(failures))

        limits = Limits(window=mqtt.window, ack_timeout_s=mqtt.ack_timeout)
        metering = Metering(
            bytes_per_s=mqtt.max_rate, bytes_per_month=mqtt.monthly_budget, file=self._data / "monthly-budget"
        )
        return Uplink(
            open_connection, queue=self.queue, board=self._board, codec=codec, limits=limits, metering=metering
        )

    def _make_sampler(self, config: SensorConfig, codec: JsonCodec) -> Sampler:
        buses = self._buses_for(config.driver)
        self._buses.append(buses)
        sensor: Sensor = registry.load("sensor", config.driver)(config.settings, buses)
        fields = msgspec.to_builtins(sensor.fields)
        meta = {"driver": config.driver, "fields": fields, "interval_s": float(config.interval)}
        self.post(codec, f"meta/{config.name}", meta, retain=True)
        batch = Batch(
            config.name, lambda record: self.queue.put([record]), time_s=config.batch_time, size=config.batch_size
        )
        return Sampler(config.name, sensor, config.interval, batch, self._clock)

    def _make_keepers(self, codec: JsonCodec) -> list[CameraKeeper]:
        if not self._config.cameras:
            return []
        frames = prepare_frames_dir(self._runtime)
        return [self._make_keeper(camera, frames, codec) for camera in self._config.cameras]

    def _make_keeper(self, config: CameraConfig, frames: Path, codec: JsonCodec) -> CameraKeeper:
        self.post(codec, f"meta/{config.name}", {"driver": config.driver, "slots": config.slots}, retain=True)
        return CameraKeeper(
            config.name, config.driver, config.raw, frames=frames, slots=config.slots, stall_s=config.stall_timeout
        )


class _HealthReport:
    """Posts the agent's own figures from time to time, and keeps its memory small."""

    name = "health"

    def __init__(self, app: App, codec: JsonCodec) -> None:
        self._app = app
        self._codec = codec

    def run(self, stop: threading.Event, health: PartHealth) -> None:
        pause_s = SETTLED_S
        while not stop.wait(pause_s):
            give_back()
            self._app.expire()
            self._app.post(self._codec, "health", self._app.snapshot(), retain=False)
            health.ok()
            pause_s = HEALTH_INTERVAL_S
