"""One process at a time in a directory, for as long as it lives."""

import fcntl
import os
from pathlib import Path

from agent.errors import AlreadyRunning


def lock(directory: Path) -> int:
    """Hold a directory for this agent alone, until the process ends however it ends; raises AlreadyRunning."""
    lock = os.open(directory / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise AlreadyRunning(
            f"{directory}: another agent (pid {holder}) is using it: stop that one, or name other directories with "
            f"--data-dir and --runtime-dir"
        ) from error
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock
