"""Starts workers, listens to them, and kills them."""

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from tests.faults.harness.worker import Line, Plan
from tests.support import ROOT

WORKER = [sys.executable, "-m", "tests.faults.harness.worker"]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Child:
    """A worker process. It loads its libraries while it waits for its plan, so it may be started in advance."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, env=os.environ | dict(environment or {}),
        )  # fmt: skip
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._readers = [threading.Thread(target=each, daemon=True) for each in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def begin(self, plan: Plan) -> None:
        """Give it its plan."""
        self.order(msgspec.json.encode(plan).decode())

    def order(self, text: str) -> None:
        """Give it an order; one that comes too late is lost."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(text + "\n")
            self._process.stdin.flush()

    def heard(self, timeout_s: float = 0.0) -> Line | None:
        """The next line that it said; None when there is none in time or none any more."""
        try:
            return self._lines.get(timeout=timeout_s) if timeout_s > 0 else self._lines.get_nowait()
        except queue.Empty:
            return None

    def wait_for(self, kind: str, timeout_s: float) -> list[Line]:
        """All lines up to the first of that kind; fails when there is none in time."""
        deadline = time.monotonic() + timeout_s
        lines: list[Line] = []
        while not lines or lines[-1].kind != kind:
            line = self.heard(deadline - time.monotonic())
            if line is None:
                raise TimeoutError(f"the worker did not say {kind!r} in {timeout_s:g} s: {self.complaint()}")
            lines.append(line)
        return lines

    def all_heard(self) -> list[Line]:
        """Everything that it has said and nobody has heard yet."""
        lines = []
        while (line := self.heard()) is not None:
            lines.append(line)
        return lines

    def runs(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status, or None when it has not ended in time."""
        try:
            status = self._process.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            return None
        self._end()
        return status

    def kill(self) -> None:
        """kill -9; what it had said can still be heard."""
        self._process.kill()
        self._process.wait(10)
        self._end()

    def complaint(self) -> str:
        """The end of what it wrote to stderr."""
        return " | ".join(self._errors[-3:]) or "it wrote nothing to stderr"

    def cpu_percent(self, seconds: float) -> float:
        """User and system time over so many seconds, in percent of one core."""
        before, begin = self._ticks(), time.monotonic()
        time.sleep(seconds)
        return 100 * (self._ticks() - before) / TICKS_PER_S / (time.monotonic() - begin)

    def _ticks(self) -> int:
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text("ascii")
        except FileNotFoundError:
            return 0
        fields = stat.rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            if text.endswith("\n"):  # else it was killed in the middle of it
                self._lines.put(msgspec.json.decode(text, type=Line))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for text in self._process.stderr:
            self._errors.append(text.rstrip())

    def _end(self) -> None:
        for reader in self._readers:
            reader.join(10)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
