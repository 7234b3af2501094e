"""A serial line through pyserial, the only importer of it: a device node, `rfc2217://host:port` or `socket://host:port`."""

import contextlib
import errno
import grp
import os
import termios
import threading
import time
from collections.abc import Iterator
from typing import Any

import serial

from drivers.contract import DeviceAbsent, DeviceTimeout, DriverError

MAX_LINE_BYTES = 1024
_SLICE_S = 0.1  # how long pyserial waits at a time: its network lines know no cancel, so this bounds close()
_WRITE_TIMEOUT_S = 5.0
_ABSENT = {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO}
_BUSY = {errno.EBUSY, errno.EAGAIN}
_FAULTS = (OSError, termios.error)  # SerialException is an OSError; termios raises its own, which is none


class SerialPort:
    """A line of bytes, opened exclusively; no I/O before `open()`.

    One thread reads and writes. Any other may call `close()`: what waits in the line then raises DriverError.
    """

    def __init__(self, device: str, baudrate: int) -> None:
        self.device = device
        self.baudrate = baudrate
        self.overlong_lines = 0
        """How many lines were thrown away because they were longer than `max_bytes`."""
        self._port: Any = None
        self._received = bytearray()
        self._skipping = False
        self._closing = threading.Event()
        self._in_use = threading.Lock()
        self._close_lock = threading.Lock()

    def open(self) -> None:
        """Take hold of the line; nothing happens when it is open. Raises DeviceAbsent or DriverError."""
        with self._in_use:
            if self._port is not None:
                return
            self._closing.clear()
            self._received.clear()
            self._skipping = False
            try:
                port = serial.serial_for_url(
                    self.device, self.baudrate, timeout=_SLICE_S, exclusive=True, do_not_open=True
                )
                if not self.device.startswith("rfc2217:"):  # pyserial knows no such limit there
                    port.write_timeout = _WRITE_TIMEOUT_S
                port.open()
            except (*_FAULTS, ValueError) as error:
                raise self._refused(error) from error
            self._port = port

    def close(self) -> None:
        """Let go of the line and wake whoever waits in it. Never raises; safe at any time, twice, from any thread."""
        with self._close_lock:
            port = self._port
            if port is None:
                return
            self._closing.set()
            for cancel in ("cancel_read", "cancel_write"):
                with contextlib.suppress(*_FAULTS, AttributeError):  # network lines can't be cancelled
                    getattr(port, cancel)()
            with (
                self._in_use,
                contextlib.suppress(OSError),
            ):  # a reader must be out: its descriptor may become another's
                self._port = None
                port.close()

    def read_line(self, timeout_s: float, max_bytes: int = MAX_LINE_BYTES) -> bytes | None:
        """Return the next line without its end, or None if none was complete within `timeout_s` (to about 0.1 s).

        Half a line is kept for the next call. One longer than `max_bytes` is thrown away up to its end and counted
        in `overlong_lines`. `timeout_s=0` takes what is there. Raises DeviceAbsent when the device went away.
        """
        deadline = time.monotonic() + timeout_s
        with self._using() as port:
            while True:
                line = self._take_line(max_bytes)
                if line is not None:
                    return line
                waiting = port.in_waiting
                if not waiting and time.monotonic() >= deadline:
                    return None
                self._received += port.read(waiting or 1)
                if self._closing.is_set():
                    raise DriverError(f"{self.device}: was closed while it was read")

    def write(self, data: bytes) -> None:
        """Send all of `data`; raises DeviceTimeout when the line does not take it, DeviceAbsent when it went away."""
        with self._using() as port:
            try:
                port.write(data)
            except serial.SerialTimeoutException as error:
                raise DeviceTimeout(
                    f"{self.device}: took no data for {_WRITE_TIMEOUT_S:g}s: is its flow control right?"
                ) from error

    def discard_input(self) -> None:
        """Forget what was received and not read yet."""
        with self._using() as port:
            port.reset_input_buffer()
            self._received.clear()
            self._skipping = False

    def _take_line(self, max_bytes: int) -> bytes | None:
        while (end := self._received.find(b"\n")) >= 0:
            line = bytes(self._received[:end])
            del self._received[: end + 1]
            if not self._skipping and end <= max_bytes:
                return line.removesuffix(b"\r")
            self.overlong_lines += not self._skipping
            self._skipping = False
        if len(self._received) > max_bytes:
            self.overlong_lines += not self._skipping
            self._skipping = True
        if self._skipping:
            self._received.clear()
        return None

    @contextlib.contextmanager
    def _using(self) -> Iterator[Any]:
        """Lend the open port to one thread, and tell what goes wrong with it in the contract's errors."""
        with self._in_use:
            if self._port is None or self._closing.is_set():
                raise DriverError(f"{self.device}: is not open")
            try:
                yield self._port
            except DriverError:
                raise
            except _FAULTS as error:
                raise DeviceAbsent(f"{self.device}: went away ({error}): is it plugged in?") from error

    def _refused(self, error: Exception) -> DriverError:
        """Why `open()` failed, as one of the contract's errors."""
        if "://" in self.device:
            if isinstance(error.__context__, OSError):  # pyserial hides the socket's error there
                return DeviceAbsent(f"{self.device}: {error}: is the host up, and the port right?")
            return DriverError(f"{self.device}: {error}")
        number = error.errno if isinstance(error, OSError) else next(iter(error.args), None)  # termios: (number, text)
        if number in _ABSENT:
            return DeviceAbsent(f"{self.device}: no such device: is it plugged in?")
        if number in (errno.EACCES, errno.EPERM):
            return DriverError(
                f"{self.device}: permission denied: it belongs to the group {_group_of(self.device)!r}; "
                f"`sudo usermod -aG {_group_of(self.device)} $USER`, then log in again"
            )
        if number in _BUSY:
            return DriverError(f"{self.device}: another program holds it: stop that one (`fuser -v {self.device}`)")
        return DriverError(f"{self.device}: can't be opened as a serial line of {self.baudrate} baud: {error}")


def _group_of(path: str) -> str:
    try:
        return grp.getgrgid(os.stat(path).st_gid).gr_name  # noqa: PTH116 (a device's name is text here)
    except (OSError, KeyError):
        return "dialout"
