"""A serial line through pyserial."""


class SerialPort:
    """A line of bytes."""

    def __init__(self, device: str, baudrate: int) -> None:
        self.device = device
        self.baudrate = baudrate
