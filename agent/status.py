"""The status socket: whoever may open it gets the agent's figures as one JSON document."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.errors import EdgepostError
from agent.health import PartHealth
from agent.paths import check_socket_path

NAME = "status"
TIMEOUT_S = 2.0


class StatusServer:
    """A supervised part that answers every connection to `<runtime>/status` and closes it."""

    name = "status"

    def __init__(self, runtime: Path, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._path = runtime / NAME
        self._snapshot = snapshot

    def run(self, stop: threading.Event, health: PartHealth) -> None:
        """Answer until told to stop."""
        check_socket_path(self._path)
        self._path.unlink(missing_ok=True)  # the agent's lock says that it is ours
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(str(self._path))
            self._path.chmod(0o600)
            server.listen()
            server.settimeout(0.5)
            health.ok()
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    client, _ = server.accept()
                    with client, contextlib.suppress(OSError):
                        client.settimeout(TIMEOUT_S)
                        client.sendall(json.dumps(self._snapshot()).encode())
        self._path.unlink(missing_ok=True)


def ask(runtime: Path) -> dict[str, Any]:
    """The figures of the agent that uses `runtime`; raises EdgepostError when none answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(TIMEOUT_S)
            client.connect(str(runtime / NAME))
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    except OSError as error:
        raise EdgepostError(
            f"no agent answers in {runtime} ({error.strerror or error}): start one with `edgepost run` or "
            f"`edgepost sim`, or name its --runtime-dir"
        ) from error
    status: dict[str, Any] = json.loads(answer)
    return status
