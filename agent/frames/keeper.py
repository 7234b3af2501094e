"""Keeps one camera's worker process running, for the supervisor. Loads neither numpy nor a decoder."""

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from agent.errors import EdgepostError
from agent.frames.directory import ring_path, sweep
from agent.frames.layout import BadRing, Header, read_header
from agent.frames.orders import Report, WorkerOrder
from agent.health import PartHealth
from drivers.contract import DeviceTimeout

_START_S = 30.0  # loading a decoder from an SD card and connecting takes a while; drivers have shorter limits
_LOOK_S = 0.2
_FIGURES_S = 1.0
_TERMINATE_S = 1.2
_KILL_S = 0.5


class CameraFailed(EdgepostError):
    """A camera's worker has ended, for the reason in the text."""


class CameraKeeper:
    """A supervisor's part: runs the worker of camera `name` and raises when it fails or delivers nothing for `stall_s`.

    Health figures: `fps` (frames/s over the last second), `frames` (since the agent started), `revoked`, `size`, `pid`;
    `ended` when the source has no more.
    """

    def __init__(
        self, name: str, driver: str, settings: dict[str, object], *, frames: Path, slots: int, stall_s: float
    ) -> None:
        self.name = f"camera/{name}"
        self._camera = name
        self._order = msgspec.json.encode(WorkerOrder(name, driver, settings, str(frames), slots)) + b"\n"
        self._frames = frames
        self._stall_s = stall_s
        self._delivered = 0

    def run(self, stop: threading.Event, health: PartHealth) -> None:
        """Run a worker until `stop`, leaving nothing; raises CameraFailed, DeviceTimeout (stalled) and OSError."""
        process = self._start()
        try:
            self._watch(process, stop, health)
        finally:
            _end(process)
            sweep(self._frames, self._camera)  # what a worker that was killed could not remove

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.frames.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the agent, which then ends its workers
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died already, and is about to be found so
            process.stdin.write(self._order)
        return process

    def _watch(self, process: "subprocess.Popen[bytes]", stop: threading.Event, health: PartHealth) -> None:
        reports = _Reports(process)
        progress = _Progress(ring_path(self._frames, self._camera), process.pid, self._delivered)
        limit_s = max(self._stall_s, _START_S)
        while not stop.is_set():
            for report in reports.read(_LOOK_S):
                if report.event == "error":
                    raise CameraFailed(report.error)
                if report.event == "ended":
                    health.ok(ended=True, fps=0.0)
                    stop.wait()
                    return
                if report.event == "opened":
                    limit_s = self._stall_s
                    progress.moved_at = time.monotonic()
                    health.ok(ended=False, size=f"{report.width}x{report.height}", pid=process.pid)
                else:
                    health.ok(revoked=report.revoked)
            if reports.closed:
                raise CameraFailed(f"the camera's worker has died: {_how(process.wait())}")
            self._delivered = progress.look(health)
            if time.monotonic() - progress.moved_at > limit_s:
                raise DeviceTimeout(f"no frame for {limit_s:g} s: its worker (process {process.pid}) is ended")


class _Reports:
    """Reads a worker's lines without blocking for long."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._rest = b""
        self.closed = False

    def read(self, timeout_s: float) -> list[Report]:
        """The reports that come within a wait of `timeout_s` for the first."""
        if not self._poll.poll(timeout_s * 1000):
            return []
        data = os.read(self._fd, 65536)
        self.closed = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [msgspec.json.decode(line, type=Report) for line in lines]


class _Progress:
    """Watches the doorbell of a ring file from outside."""

    def __init__(self, path: Path, pid: int, delivered: int) -> None:
        self._path = path
        self._pid = pid
        self._seen = Header(0, 0, 0, 0)
        self._delivered = delivered
        self._figures_at = self.moved_at = time.monotonic()
        self._figures_delivered = delivered

    def look(self, health: PartHealth) -> int:
        """Note what was delivered since the last look, and each second the figures; returns the frames so far."""
        try:
            header = read_header(self._path)
        except (OSError, BadRing):  # not made yet, or just going
            return self._delivered
        if header.pid != self._pid:  # a predecessor's
            return self._delivered
        now = time.monotonic()
        before = self._seen.doorbell if header.epoch == self._seen.epoch else 0
        self._seen = header
        if new := (header.doorbell - before) & 0xFFFFFFFF:
            self._delivered += new
            self.moved_at = now
        if (span_s := now - self._figures_at) >= _FIGURES_S:
            if frames := self._delivered - self._figures_delivered:
                health.ok(fps=round(frames / span_s, 1), frames=self._delivered)
            self._figures_at, self._figures_delivered = now, self._delivered
        return self._delivered


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a worker by its own id, whatever state it is in, within two seconds; no descriptor stays open."""
    process.terminate()
    try:
        process.wait(_TERMINATE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it goes when that returns
            process.wait(_KILL_S)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _how(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}, see the log"
