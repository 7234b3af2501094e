"""The contract between the agent and every driver.

A driver is one file in `drivers/<kind>s/`, named as it is in the configuration, that ends in `DRIVER = <its class>`.
The class

- declares what may be configured as `Settings`, a typed struct whose fields carry description, range and unit;
- is constructed as `Driver(settings, buses)` and does no I/O there: it only asks `buses` for the bus it will use;
- opens in `open()`, and can be closed at any time, twice, and after a failed open;
- only reads and raises: the agent schedules, stamps, retries with back-off, counts and logs.

"Nothing new" is not an error: a sensor then returns no readings.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self

import msgspec

if TYPE_CHECKING:  # numpy is loaded only by camera workers
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

Value = float | int | bool | str
"""What one field of a reading may hold."""


SHORTEST_S = 0.001


class Duration(float):
    """A time span in seconds, written with its unit: "500ms", "10s", "5min", "2h", "1d"."""

    LONGEST_S: ClassVar[float] = 10 * 365.25 * 86400
    SECONDS: ClassVar[Mapping[str, float]] = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read "10s" and the like; raises ValueError that names the form expected."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)", text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"expected a duration with its unit such as '500ms', '10s' or '5min', found {text!r}")
        seconds = float(match[1]) * cls.SECONDS[match[2]]
        if seconds > cls.LONGEST_S:
            raise ValueError(f"expected a duration of at most 10 years, found {text!r}")
        return cls(seconds)

    def __str__(self) -> str:
        exact = [unit for unit in ("d", "h", "min", "s") if self and self % self.SECONDS[unit] == 0]
        unit = exact[0] if exact else "ms" if 0 < self < 1 else "s"
        return f"{float(self) / self.SECONDS[unit]:g}{unit}"


class PositiveDuration(Duration):
    """A time span of a millisecond or more."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read "10s" and the like; raises ValueError for anything that is no duration above zero."""
        span = super().parse(text)
        if span <= 0:
            raise ValueError(f"expected a duration above zero, found {text!r}")
        if span < SHORTEST_S:
            raise ValueError(f"expected a duration of at least 1ms, found {text!r}")
        return span


class Size(int):
    """A number of bytes, written with its unit: "512KiB", "256MiB", "1GiB", "10MB"."""

    LARGEST: ClassVar[int] = 2**50
    BYTES: ClassVar[Mapping[str, int]] = {
        "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
    }  # fmt: skip

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read "256MiB" and the like; raises ValueError that names the form expected."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?i?B)", text) if isinstance(text, str) else None
        if match is None or match[2] not in cls.BYTES:
            raise ValueError(f"expected a size with its unit such as '512KiB' or '256MiB', found {text!r}")
        size = float(match[1]) * cls.BYTES[match[2]]
        if size > cls.LARGEST:
            raise ValueError(f"expected a size of at most 1048576GiB, found {text!r}")
        return cls(size)

    def __str__(self) -> str:
        unit = next((u for u in ("GiB", "MiB", "KiB") if self and self % self.BYTES[u] == 0), "B")
        return f"{int(self) // self.BYTES[unit]}{unit}"


PositiveInt = Annotated[int, msgspec.Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a driver.

    A subclass annotates each field with `msgspec.Meta(description=…)`, its range (`ge`, `le`, `pattern`), and its unit
    as `extra={"unit": "Pa"}`; `check`, `drivers NAME` and the reference read them there. `__post_init__` raises
    ValueError for what no single field can say.
    """


class Field(msgspec.Struct, frozen=True):
    """One field of a driver's readings: `unit` is a UCUM or SI symbol ("Cel", "hPa", "%", "m/s"), "" for none."""

    unit: str = ""
    description: str = ""


class Reading(msgspec.Struct, frozen=True):
    """Values taken at one moment: `age_s` seconds before `read()` returned, so that a driver needs no clock."""

    values: Mapping[str, Value]
    age_s: float = 0.0


class Sensor(Protocol):
    """Something that is read."""

    Settings: ClassVar[type[Settings]]

    @property
    def fields(self) -> Mapping[str, Field]:
        """The fields that readings may hold, known before `open()`."""

    def open(self) -> None:
        """Take hold of the device; raises DriverError."""

    def read(self) -> Sequence[Reading]:
        """Return what is new, oldest first, or nothing; raises DriverError. May block for the driver's own timeout."""

    def close(self) -> None:
        """Let go of the device. Never raises; safe at any time, twice, and from another thread than `read()`."""


class FrameFormat(msgspec.Struct, frozen=True):
    """What a camera delivers: `height` × `width` pixels of `fourcc` ("BGR3": three bytes a pixel, blue first)."""

    width: int
    height: int
    fourcc: str = "BGR3"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numpy shape of one frame, dtype uint8."""
        return (self.height, self.width, 3)

    @property
    def row_stride(self) -> int:
        """Bytes from one row to the next."""
        return self.width * 3

    @property
    def nbytes(self) -> int:
        """Bytes of one frame."""
        return self.height * self.row_stride


class Capture(msgspec.Struct, frozen=True):
    """When a frame was captured: CLOCK_MONOTONIC and CLOCK_REALTIME, in nanoseconds."""

    t_mono_ns: int
    t_real_ns: int


class Camera(Protocol):
    """Something that delivers frames. It runs in a worker process of its own."""

    Settings: ClassVar[type[Settings]]

    def open(self) -> FrameFormat:
        """Take hold of the device and tell what it will deliver; raises DriverError."""

    def grab_into(self, image: "Pixels") -> Capture:
        """Wait for the next frame and decode it straight into `image`, whose shape is that of the format.

        Raises FormatChanged when the frame has another shape, EndOfStream after the last one, else DriverError.
        """

    def close(self) -> None:
        """Let go of the device. Never raises; safe at any time and twice."""


class DriverError(Exception):
    """What a driver raises: the device did not do what was asked. Its text says what, where, and what to do."""


class DeviceAbsent(DriverError, FileNotFoundError):
    """The device is not there (any more)."""


class DeviceTimeout(DriverError, TimeoutError):
    """The device is there and does not answer."""


class BadData(DriverError, ValueError):
    """The device answered with something that can't be trusted: a wrong checksum, half a frame."""


class EndOfStream(DriverError):
    """The source has ended and will deliver no more frames."""


class FormatChanged(DriverError):
    """The camera delivered a frame of another shape. It carries the frame, so that none is lost."""

    def __init__(self, image: "Pixels", capture: Capture) -> None:
        super().__init__(f"frames are {image.shape[1]}×{image.shape[0]} now")
        self.image = image
        self.capture = capture


class UnknownDriver(DriverError, LookupError):
    """No driver of that name is installed."""


class MissingLibrary(DriverError, ImportError):
    """The driver is there, a library that it needs is not. The text names the command that installs it."""


def decode_quantity(kind: type, value: object) -> Any:
    """`dec_hook` for `msgspec.convert`: reads Duration and Size; raises ValueError."""
    if issubclass(kind, (Duration, Size)):
        return kind.parse(value)
    raise NotImplementedError(kind)
