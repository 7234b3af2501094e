"""A program that ends when we do, however we end: even after kill -9 nothing is left behind."""

import contextlib
import subprocess
from collections.abc import Sequence
from typing import IO

STOP_S = 5.0

# The shell ends its child when our end of its standard input closes.
SCRIPT = 'exec 3<&0; "$@" </dev/null 3<&- & child=$!; read -r _ <&3; kill "$child" 2>/dev/null; wait "$child"'


class Tethered:
    """A running program. `output` takes what it prints; None lets it print where we do."""

    def __init__(self, command: Sequence[str], output: IO[bytes] | None = None) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "tether", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us: what we started ends when we are done with it
        )

    def stop(self) -> None:
        """End it, gently at first; safe twice."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
