"""Real brokers with a configuration of the test's own, to be stopped, killed and brought back."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support import wait_until

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""
NATS = str(Path(sys.executable).with_name("nats-server"))
LOCAL = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


class Server:
    """A program that listens, with all that a test may do to it. `close` ends it in whatever state it is."""

    def __init__(self, command: Sequence[str], directory: Path, listens: tuple[str, int]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "broker.log"
        self._command = command
        self._listens = listens
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output)
        wait_until(self._answers, f"{self._command[0]} listens: {self.log}")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(10)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text("utf-8", "replace")[-1000:]
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(self._listens) == 0


class Mosquitto(Server):
    """A mosquitto with two listeners: one as `lines` say, and a plain one for the witness, at `witness_url`.

    What it knows survives kill -9 as it was when `save` was called.
    """

    def __init__(
        self, directory: Path, *lines: str, host: str = LOCAL, aside: str = LOCAL, prefix: Sequence[str] = ()
    ) -> None:
        self.port = free_port()
        self.witness_url = f"mqtt://{aside}:{(port := free_port())}"
        self._aside = f"listener {port} {aside}\nallow_anonymous true"
        self._host = host
        self._config = directory / "broker.conf"
        self._store = directory / "mosquitto.db"
        super().__init__([*prefix, MOSQUITTO, "-c", str(self._config)], directory, (aside, port))
        self.configure(*lines)

    def url(self, scheme: str = "mqtt", host: str = "") -> str:
        return f"{scheme}://{host or self._host}:{self.port}"

    def configure(self, *lines: str) -> None:
        """What its listener demands from the next start on."""
        own = [
            *(["user root"] if os.geteuid() == 0 else []),  # as another user it could not read our files
            "persistence true",
            f"persistence_location {self._store.parent}/",
            "max_queued_messages 0",
            "max_inflight_messages 0",
            "per_listener_settings true",
            self._aside,
            f"listener {self.port} {self._host}",
            *(lines or ["allow_anonymous true"]),
        ]
        self._config.write_text("\n".join(own) + "\n", "utf-8")

    def save(self) -> None:
        """Have it write what it knows to disk now: sessions and subscriptions."""
        self._store.unlink(missing_ok=True)
        self.signal(signal.SIGUSR1)
        wait_until(self._store.exists, "mosquitto has saved its state")

    def restart(self, *lines: str) -> None:
        self.close()
        self.configure(*lines)
        self.start()


class Nats(Server):
    """A nats-server: MQTT 3.1.1 at `url`, and through WebSockets at `websocket_port`, with TLS where given."""

    def __init__(self, directory: Path, tls: str = "") -> None:
        port, self.websocket_port = free_port(), free_port()
        self.url = f"mqtt://{LOCAL}:{port}"
        config = directory / "nats.conf"
        super().__init__([NATS, "-c", str(config)], directory, (LOCAL, self.websocket_port))
        security = f"tls {{ {tls} }}" if tls else "no_tls: true"
        config.write_text(
            f"""server_name: test
listen: "{LOCAL}:-1"
jetstream {{ store_dir: "{directory / "jetstream"}" }}
mqtt {{ listen: "{LOCAL}:{port}" }}
websocket {{ listen: "{LOCAL}:{self.websocket_port}", {security} }}
""",
            "utf-8",
        )
