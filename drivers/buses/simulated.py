"""The simulated twin of `Buses`: serial devices are models that talk over real kernel ptys.

A driver is given an ordinary `SerialPort` on a link in a private directory. The link points to the pty, so that a
device can vanish and come back, on another pty, at the same path: no link, no device.
"""

import contextlib
import importlib
import os
import select
import tempfile
import threading
import time
import tty
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from drivers.buses.buses import Buses
from drivers.buses.serial_port import SerialPort
from drivers.models.model import SerialModel

_STEP_S = 0.05


class SimulatedBuses(Buses):
    """Gives the driver named `driver` the device model of the same name in `drivers/models/`, if there is one.

    Without a model it behaves like `Buses`. One device path is one model, however often its line is asked for. `model`
    makes another model from a seed, for a driver of another package or for a device that misbehaves.
    """

    def __init__(
        self,
        driver: str,
        root: Path = Path("/"),
        *,
        seed: int = 0,
        model: Callable[[int], SerialModel] | None = None,
    ) -> None:
        super().__init__(root)
        self.driver = driver
        self._seed = seed
        self._model = model
        self._lines: dict[str, _Line] = {}
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def serial(self, device: str, baudrate: int) -> SerialPort:
        """A line to a model that is running already, or to the real `device` where the driver has no model."""
        model = self._model or _shipped_model(self.driver)
        if model is None:
            return super().serial(device, baudrate)
        if device not in self._lines:
            if self._directory is None:
                self._directory = tempfile.TemporaryDirectory(prefix="edgepost-sim-")
            link = Path(self._directory.name, f"{len(self._lines)}-{Path(device).name}")
            self._lines[device] = _Line(model(self._seed + len(self._lines)), link)
            self._lines[device].plug()
        return SerialPort(str(self._lines[device].link), baudrate)

    def unplug(self) -> None:
        """Pull the devices out: whoever has one open sees it hang up, and it can't be opened any more."""
        for line in self._lines.values():
            line.unplug()

    def plug(self) -> None:
        """Put the devices back in, at the same paths."""
        for line in self._lines.values():
            line.plug()

    def close(self) -> None:
        """Stop the models. Safe at any time and twice."""
        self.unplug()
        self._lines.clear()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None


def _shipped_model(driver: str) -> Callable[[int], SerialModel] | None:
    name = f"drivers.models.{driver}"
    if not driver.isidentifier() or find_spec(name) is None:
        return None
    model: Callable[[int], SerialModel] = importlib.import_module(name).MODEL
    return model


class _Line:
    """A model, and while it is plugged in a pty and a thread that moves the bytes between them."""

    def __init__(self, model: SerialModel, link: Path) -> None:
        self.link = link
        self._model = model
        self._powered_at = time.monotonic()
        self._thread: threading.Thread | None = None
        self._descriptors: tuple[int, ...] = ()

    def plug(self) -> None:
        if self._thread is not None:
            return
        device_end, host_end = os.openpty()
        wake_read, wake_write = os.pipe()
        # The host's end stays open here: without it the device's end reports an error until somebody opens the line.
        self._descriptors = (device_end, host_end, wake_read, wake_write)
        tty.setraw(host_end)
        os.set_blocking(device_end, False)
        self._thread = threading.Thread(
            target=self._run, args=(device_end, wake_read), name=f"model {self.link.name}", daemon=True
        )
        self._thread.start()
        self.link.symlink_to(os.ttyname(host_end))

    def unplug(self) -> None:
        if self._thread is None:
            return
        self.link.unlink(missing_ok=True)
        os.write(self._descriptors[-1], b"x")
        self._thread.join()
        self._thread = None
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _run(self, device_end: int, wake: int) -> None:
        while True:
            ready, _, _ = select.select([device_end, wake], [], [], _STEP_S)
            if wake in ready:
                return
            received = os.read(device_end, 4096) if device_end in ready else b""
            sent = self._model.step(received, time.monotonic() - self._powered_at)
            with contextlib.suppress(BlockingIOError):  # nobody reads: the bytes fall off the wire, as on a real one
                os.write(device_end, sent)
