"""What stands behind a simulated serial line."""

from typing import Protocol


class SerialModel(Protocol):
    """A device that talks over a line, modelled without any I/O.

    A model is one file in `drivers/models/`, named as the driver, that ends in `MODEL = <its class>`; it is made as
    `MODEL(seed)`. The same seed and the same steps give the same bytes.
    """

    def step(self, received: bytes, t_s: float) -> bytes:
        """Take what the host sent and return what the device sends, at `t_s` seconds after power-on.

        Called at input and else about every 50 ms; `t_s` never goes back.
        """
