"""A process that looks at damaged queues, started again when one of them ends it."""

import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from tests.faults.harness.flip_judge import Finding
from tests.support import ROOT

COMMAND = [sys.executable, "-m", "tests.faults.harness.flip_judge"]
HANG_S = 30.0


class Examiner:
    """Looks at one queue after the other."""

    def __init__(self) -> None:
        self._process = self._start()

    def look(self, directory: Path) -> Finding:
        """What the queue there does; a crash and a hang are findings as well."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(HANG_S, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(f"{directory}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        finally:
            late = watchdog.finished.is_set()
            watchdog.cancel()
        if answer:
            return msgspec.json.decode(answer, type=Finding)
        self.close()
        self._process = self._start()
        return Finding(raised=f"nothing: it hung for {HANG_S:g} s" if late else "nothing: the process crashed")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    @staticmethod
    def _start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
