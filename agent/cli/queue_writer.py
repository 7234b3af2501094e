"""How commands change a queue: through the agent that has it, or directly while nobody has it. Never two writers."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent import control_socket
from agent.delivery.disk_queue import DiskQueue
from agent.delivery.inspection import bounds
from agent.delivery.requests import answer
from agent.errors import AlreadyRunning, EdgepostError
from agent.health import PartHealth
from agent.lock import lock

PATIENCE_S = 10.0  # for an agent that is just starting, or another command


class QueueWriter:
    """A context in which `request` reaches the one writer of the queue in `data`."""

    def __init__(self, data: Path, runtime: Path) -> None:
        self._data = data
        self._runtime = runtime
        self._lock: int | None = None
        self._queue: DiskQueue | None = None

    def request(self, request: Mapping[str, Any]) -> Any:
        """Have something done; returns its result, raises EdgepostError when nothing was done."""
        if self._queue is None:
            return control_socket.command(self._runtime, self._data, request)
        return answer(self._queue, request)

    def __enter__(self) -> Self:
        require_own(self._data)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._lock = lock(self._data)
            except AlreadyRunning as held:
                if self._is_served():
                    return self
                if time.monotonic() > deadline:
                    raise EdgepostError(
                        f"{held}; it does not answer in {self._runtime}: if it is an agent, name its --runtime-dir"
                    ) from held
                time.sleep(0.1)
            else:
                self._open()
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._queue is not None:
            self._queue.close()
        if self._lock is not None:
            os.close(self._lock)
        self._queue = self._lock = None

    def _is_served(self) -> bool:
        """Whether an agent answers; raises EdgepostError when it is that of another directory."""
        try:
            of = control_socket.ask(self._runtime).get("data_dir")
        except control_socket.NoAgent:
            return False
        if of != str(self._data.resolve()):
            raise EdgepostError(
                f"the agent in {self._runtime} works on {of}, and {self._data} is in use by another: name the "
                f"--runtime-dir that belongs to this --data-dir"
            )
        return True

    def _open(self) -> None:
        directory = self._data / "queue"
        try:
            max_bytes, durability = bounds(directory)
            self._queue = DiskQueue(directory, PartHealth("queue"), max_bytes=max_bytes, durability=durability)
            self._queue.open()
        except BaseException:
            self.__exit__(None, None, None)
            raise


def require_own(data: Path) -> None:
    """Raise EdgepostError when there is no queue, or it is another user's: files made in it would lock that one out."""
    path = data / "queue/cache.db"
    try:
        owner = path.stat().st_uid
    except FileNotFoundError as error:
        raise EdgepostError(f"{path}: there is no queue here yet; name the agent's --data-dir") from error
    except OSError as error:
        raise EdgepostError(f"{path}: {error.strerror}: run this as the agent's user") from error
    if owner != os.geteuid():
        raise EdgepostError(f"{path}: belongs to user {owner}, not to you ({os.geteuid()}): run this as that user")
