"""A network camera over RTSP (RFC 2326), decoded by FFmpeg."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec

from drivers.buses.buses import Buses
from drivers.contract import Camera, Capture, DeviceAbsent, DeviceTimeout, Duration, FrameFormat, Settings

if TYPE_CHECKING:
    from drivers.contract import Pixels


class RtspSettings(Settings, frozen=True, kw_only=True):
    """Settings of `rtsp`."""

    url: Annotated[
        str,
        msgspec.Meta(
            description="where the stream is: rtsp://[user:password@]host[:port]/path",
            pattern="^rtsps?://[^/]+",
            examples=["rtsp://camera.example/stream"],
        ),
    ]
    transport: Annotated[
        Literal["tcp", "udp"], msgspec.Meta(description='"tcp" loses nothing; "udp" is quicker to show what comes now')
    ] = "tcp"
    timeout: Annotated[
        Duration, msgspec.Meta(description="how long to wait for an answer and for each frame, 500ms to 2min")
    ] = Duration(10)

    def __post_init__(self) -> None:
        if not 0.5 <= self.timeout <= 120:
            raise ValueError(f"timeout: expected 500ms to 2min, found {self.timeout}")


class Rtsp:
    """Frames as they come, stamped as they are received. Texts never show the address's password."""

    Settings: ClassVar[type[Settings]] = RtspSettings

    def __init__(self, settings: RtspSettings, buses: Buses) -> None:
        self._settings = settings
        self._video = buses.video(settings.url)

    def open(self) -> FrameFormat:
        """Connect and decode the first frame; raises DeviceAbsent, BadData."""
        timeout_ms = round(self._settings.timeout * 1000)
        limits = {"open_timeout_ms": timeout_ms, "read_timeout_ms": timeout_ms}
        try:
            return self._video.open("ffmpeg", limits, f"rtsp_transport;{self._settings.transport}")
        except DeviceAbsent as error:
            raise DeviceAbsent(
                f"{self._video.name}: no stream: is the host there, and are port, path, user and password right?"
            ) from error

    def grab_into(self, image: "Pixels") -> Capture:
        """Wait for a frame and decode it; raises DeviceTimeout when none came or the camera hung up."""
        capture = self._video.grab()
        if capture is None:
            raise DeviceTimeout(
                f"{self._video.name}: the stream broke off, or no frame came for {self._settings.timeout}"
            )
        self._video.retrieve_into(image, capture)
        return capture

    def close(self) -> None:
        """Hang up."""
        self._video.close()


DRIVER: type[Camera] = Rtsp
