"""The buses of this machine: what every driver is constructed with, and the only way it reaches hardware."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drivers.buses.serial_port import SerialPort
    from drivers.buses.video import Video


class Buses:
    """Hands out buses that are not opened yet. The simulator passes a twin whose devices are models.

    `root` stands before every path of /proc and /sys, so that a tree of files can stand in for a machine.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def serial(self, device: str, baudrate: int) -> "SerialPort":
        """A serial line at `device`: a path, or any URL that pyserial knows."""
        from drivers.buses.serial_port import SerialPort

        return SerialPort(device, baudrate)

    def video(self, source: str) -> "Video":
        """A video source that OpenCV can open: a file, a device node, a stream's address."""
        from drivers.buses.video import Video

        return Video(source)

    def close(self) -> None:
        """Let go of what stands behind the buses."""
