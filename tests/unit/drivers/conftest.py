"""A serial device whose far end is the test."""

import fcntl
import os
import struct
import termios
import time
import tty
from collections.abc import Iterator

import pytest

WAIT_S = 10
KERNEL_BUFFER_BYTES = 4095


class Pty:
    """A real line: the driver opens `path`, the test sends and receives."""

    def __init__(self):
        self.far, self.near = os.openpty()
        tty.setraw(self.near)
        self.path = os.ttyname(self.near)

    def send(self, data):
        """Send, and wait until it can be read: the kernel carries it over in a thread of its own."""
        there = min(self._waiting() + len(data), KERNEL_BUFFER_BYTES)
        os.write(self.far, data)
        deadline = time.monotonic() + WAIT_S
        while self._waiting() < there:
            assert time.monotonic() < deadline, "the line did not carry what was sent"
            time.sleep(0.001)

    def unplug(self):
        for descriptor in (self.far, self.near):
            os.close(descriptor)
        self.far = self.near = -1

    def _waiting(self):
        return struct.unpack("i", fcntl.ioctl(self.near, termios.FIONREAD, bytes(4)))[0]


@pytest.fixture
def pty() -> Iterator[Pty]:
    """A line that is plugged in."""
    pty = Pty()
    yield pty
    if pty.far >= 0:
        pty.unplug()
