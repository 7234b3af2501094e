"""One camera's process: decodes into the ring and announces, until told to stop or the agent is gone.

`python -m agent.frames.worker` reads a WorkerOrder from stdin, prints Reports, and lives as long as its stdin is open:
the kernel closes that with the agent, however the agent ended. A decoder may crash, leak or hang here and take down
nothing else. Exit status 0: stopped, or the source has ended; 1: an error, reported.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import msgspec

from agent.errors import EdgepostError
from agent.frames.announce import Announcer
from agent.frames.directory import camera_lock
from agent.frames.orders import Report, WorkerOrder
from agent.frames.ring import RingWriter
from drivers.contract import Camera, DriverError, EndOfStream, FormatChanged, FrameFormat, decode_quantity
from drivers.registry import Buses, load

_PREDECESSOR_S = 5.0  # how long a worker that was told to end may still hold the camera
_GRACE_S = 0.8  # how long after SIGTERM the camera may take to return; the keeper kills a little later
_REPORT_S = 1.0


class Worker:
    """Runs one camera. `run` belongs to the main thread, `stop` and `abandon` may come from another."""

    def __init__(self, order: WorkerOrder) -> None:
        self._order = order
        self._frames = Path(order.frames)
        self._files = threading.RLock()  # held while files are made or removed
        self._owns = False  # the camera's lock, so whatever bears its name is ours
        self._stopping = threading.Event()
        self._ring: RingWriter | None = None
        self._announcer: Announcer | None = None
        self._announced_revoked = 0
        self._report_at = 0.0
        self._revoked_before = 0  # in rings that are closed
        self.ended = threading.Event()

    def run(self) -> None:
        """Deliver frames until stopped or the source has ended; raises DriverError, EdgepostError and OSError."""
        try:
            with camera_lock(self._frames, self._order.name, _PREDECESSOR_S):
                self._owns = True
                try:
                    self._run_camera()
                finally:
                    self._remove_files()
        finally:
            self.ended.set()

    def stop(self) -> None:
        """Ask `run` to return after the frame at hand."""
        self._stopping.set()

    def abandon(self) -> NoReturn:
        """Remove the files and exit, whatever the main thread is stuck in. The lock goes with the process."""
        if self._files.acquire(timeout=_GRACE_S) and self._owns:
            for kind in ("ring", "announce", f"{os.getpid()}.tmp", "lock"):
                (self._frames / f"{self._order.name}.{kind}").unlink(missing_ok=True)
        os._exit(0)

    def _run_camera(self) -> None:
        camera = _make_camera(self._order)
        try:
            self._deliver(camera)
        except EndOfStream:
            report(Report("ended"))
        finally:
            camera.close()

    def _deliver(self, camera: Camera) -> None:
        form = camera.open()
        self._make_ring(form)
        with self._files:
            self._announcer = Announcer(self._frames, self._order.name, self._order.slots)
            self._announcer.open()
        while not self._stopping.is_set():
            assert self._ring is not None
            try:
                with self._ring.slot() as slot:
                    announcement = slot.publish(camera.grab_into(slot.image))
            except FormatChanged as changed:
                self._make_ring(FrameFormat(changed.image.shape[1], changed.image.shape[0], form.fourcc))
                with self._ring.slot() as slot:
                    slot.image[:] = changed.image
                    announcement = slot.publish(changed.capture)
            self._announcer.send(announcement)
            self._report_revoked()

    def _remove_files(self) -> None:
        with self._files:
            if self._announcer is not None:
                self._announcer.close()
            if self._ring is not None:
                self._ring.close()
            self._owns = False

    def _make_ring(self, form: FrameFormat) -> None:
        """Put a ring of this format in place of the one before, whose memory is given back first."""
        with self._files:
            if self._ring is not None:
                self._revoked_before += self._ring.revoked
                self._ring.close()
            self._ring = RingWriter(self._frames, self._order.name, form, self._order.slots)
            self._ring.open()
        report(Report("opened", form.width, form.height, form.fourcc))

    def _report_revoked(self) -> None:
        assert self._ring is not None
        revoked = self._revoked_before + self._ring.revoked
        if revoked != self._announced_revoked and time.monotonic() >= self._report_at:
            self._announced_revoked = revoked
            self._report_at = time.monotonic() + _REPORT_S
            report(Report("revoked", revoked=revoked))


def main() -> int:
    """Carry out the order that comes by stdin; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group: the agent decides
    try:
        order = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerOrder)
        worker = Worker(order)
        _watch(worker)
        worker.run()
    except (DriverError, EdgepostError, OSError, ValueError) as error:
        with contextlib.suppress(BrokenPipeError):  # the agent is gone: nobody is left to be told
            report(Report("error", error=str(error)))
        return 1
    return 0


def report(what: Report) -> None:
    """Tell the keeper."""
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


def _make_camera(order: WorkerOrder) -> Camera:
    driver: type[Camera] = load("camera", order.driver)
    settings = msgspec.convert(order.settings, driver.Settings, dec_hook=decode_quantity)
    camera: Camera = driver(settings, Buses())  # type: ignore[call-arg]  # a Protocol has no constructor; see the contract
    return camera


def _watch(worker: Worker) -> None:
    """Look out for SIGTERM and for the end of stdin in a thread: the main one may be stuck in a decoder.

    Python runs signal handlers in the main thread alone, but the wake-up descriptor is written at once.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())

    def watch() -> None:
        ready, _, _ = select.select([sys.stdin.fileno(), readable], [], [])
        if readable in ready:
            worker.stop()
            if worker.ended.wait(_GRACE_S):
                return
        worker.abandon()

    threading.Thread(target=watch, name="watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
