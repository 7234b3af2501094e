"""The control socket `<runtime>/status`: the agent's figures, and what a person asks of a running agent.

One request a connection: a line of JSON `{"command": NAME, "data_dir": DIR, ...}`, at most MAX_REQUEST_BYTES; one
answer of JSON, then the end. No request, or an empty one, asks for the status. Any other command must name the data
directory of the agent that it means. `{"ok": true, "data_dir", "result"}` says what was done,
`{"ok": false, "data_dir", "error"}` why nothing was.
"""

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.errors import EdgepostError
from agent.health import PartHealth
from agent.paths import check_socket_path

log = logging.getLogger(__name__)

NAME = "status"
TIMEOUT_S = 2.0
ANSWER_S = 30.0  # a change waits for the disk
FIRST_BYTE_S = 1.0  # without one, the status is asked for
MAX_REQUEST_BYTES = 8 * 1024 * 1024
MAX_CLIENTS = 8

Answer = Callable[[Mapping[str, Any]], Any]


class NoAgent(EdgepostError):
    """Nobody listens on the socket."""


class ControlServer:
    """A supervised part that answers every connection in a thread of its own and closes it."""

    name = "status"

    def __init__(self, runtime: Path, data: Path, snapshot: Callable[[], dict[str, Any]], answer: Answer) -> None:
        """`answer` is given each request that is not `status`; it raises EdgepostError to refuse it."""
        self._path = runtime / NAME
        self._data = data.resolve()
        self._snapshot = snapshot
        self._answer = answer
        self._free = threading.BoundedSemaphore(MAX_CLIENTS)

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
                    self._free.acquire()  # each client is done within its time limits
                    threading.Thread(target=self._serve, args=(client,), name="control", daemon=True).start()
        self._path.unlink(missing_ok=True)

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(OSError):
                answer = self._reply(_read_request(client))
                client.settimeout(TIMEOUT_S)
                client.sendall(json.dumps(answer).encode())
        finally:
            self._free.release()

    def _reply(self, line: bytes) -> dict[str, Any]:
        data = {"data_dir": str(self._data)}
        try:
            request = _parse(line)
            if request.get("command") == "status":
                return self._snapshot() | data
            self._require_mine(request.get("data_dir"))
            return {"ok": True, **data, "result": self._answer(request)}
        except EdgepostError as error:
            return {"ok": False, **data, "error": str(error)}

    def _require_mine(self, data: object) -> None:
        if data != str(self._data):
            raise EdgepostError(f"this is the agent of {self._data}, not of {data}")


def ask(runtime: Path) -> dict[str, Any]:
    """The figures of the agent that uses `runtime`; raises EdgepostError when none answers."""
    return _exchange(runtime, b"\n", TIMEOUT_S)


def command(runtime: Path, data: Path, request: Mapping[str, Any]) -> Any:
    """Have the agent of `data`, which uses `runtime`, do something; raises EdgepostError, NoAgent when none answers."""
    line = json.dumps({**request, "data_dir": str(data.resolve())}, ensure_ascii=False).encode() + b"\n"
    answer = _exchange(runtime, line, ANSWER_S)
    if answer.get("data_dir") != str(data.resolve()):
        raise EdgepostError(
            f"the agent in {runtime} works on {answer.get('data_dir')}, not on {data}: name the --runtime-dir that "
            f"belongs to this --data-dir"
        )
    if "ok" not in answer:
        raise EdgepostError(f"the agent in {runtime} did not get the request in time: try again")
    if not answer["ok"]:
        raise EdgepostError(str(answer["error"]))
    return answer["result"]


def _exchange(runtime: Path, line: bytes, timeout_s: float) -> dict[str, Any]:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            _connect(client, runtime)
            client.sendall(line)
            content = b"".join(iter(lambda: client.recv(65536), b""))
            answer: dict[str, Any] = json.loads(content)
    except (OSError, ValueError) as error:
        raise EdgepostError(
            f"the agent in {runtime} went away or did not answer in {timeout_s:g} s: it may have done what was asked, "
            f"or not; look with `edgepost queue status`"
        ) from error
    return answer


def _connect(client: socket.socket, runtime: Path) -> None:
    try:
        client.connect(str(runtime / NAME))
    except OSError as error:
        raise NoAgent(
            f"no agent answers in {runtime} ({error.strerror or error}): start one with `edgepost run` or "
            f"`edgepost sim`, or name its --runtime-dir"
        ) from error


def _read_request(client: socket.socket) -> bytes:
    """Up to the end of the line, or of what is sent; b"" when nothing comes."""
    content = bytearray()
    deadline = time.monotonic() + TIMEOUT_S
    client.settimeout(FIRST_BYTE_S)
    with contextlib.suppress(TimeoutError):
        while b"\n" not in content[-65536:] and len(content) <= MAX_REQUEST_BYTES:
            part = client.recv(65536)
            if not part:
                break
            content += part
            client.settimeout(max(0.001, deadline - time.monotonic()))
    return bytes(content)


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_REQUEST_BYTES:
        raise EdgepostError(f"a request may have {MAX_REQUEST_BYTES} bytes")
    if not line.strip():
        return {"command": "status"}
    if not line.endswith(b"\n"):
        raise EdgepostError("the request is not complete: expected a line of JSON")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EdgepostError(f"the request is no JSON: {error}") from error
    if not isinstance(request, dict):
        raise EdgepostError('expected {"command": ...}')
    return request
