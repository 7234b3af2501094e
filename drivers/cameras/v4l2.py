"""A camera behind Video for Linux, version 2: USB (UVC), or CSI where the kernel offers a capture device."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from drivers.buses.buses import Buses
from drivers.contract import BadData, Camera, Capture, DeviceAbsent, DeviceTimeout, DriverError, FrameFormat, Settings

if TYPE_CHECKING:
    from drivers.contract import Pixels

Side = Annotated[int, msgspec.Meta(ge=16, le=8192)] | None
Rate = Annotated[int, msgspec.Meta(ge=1, le=240)] | None
Code = Annotated[str, msgspec.Meta(pattern="^[A-Z0-9]{4}$")] | None


class V4l2Settings(Settings, frozen=True, kw_only=True):
    """Settings of `v4l2`. What is not set, the device chooses."""

    device: Annotated[str, msgspec.Meta(description="the device node", pattern="^/dev/")] = "/dev/video0"
    width: Annotated[
        Side,
        msgspec.Meta(description="width of the picture, together with height", examples=[1280], extra={"unit": "px"}),
    ] = None
    height: Annotated[
        Side,
        msgspec.Meta(description="height of the picture, together with width", examples=[720], extra={"unit": "px"}),
    ] = None
    fps: Annotated[
        Rate,
        msgspec.Meta(
            description="frames a second to ask for; in low light most cameras deliver fewer",
            examples=[30],
            extra={"unit": "Hz"},
        ),
    ] = None
    fourcc: Annotated[
        Code,
        msgspec.Meta(
            description='what the camera sends, such as "MJPG" (more frames over USB 2) or "YUYV" (less work)',
            examples=["MJPG"],
        ),
    ] = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height: set both or neither")


class V4l2:
    """Frames as the device delivers them, stamped as they leave its queue."""

    Settings: ClassVar[type[Settings]] = V4l2Settings

    def __init__(self, settings: V4l2Settings, buses: Buses) -> None:
        self._settings = settings
        self._device = Path(settings.device)
        self._video = buses.video(settings.device)

    def open(self) -> FrameFormat:
        """Open the device; raises DeviceAbsent, DriverError (not permitted, in use), BadData (not the size asked)."""
        if not self._device.exists():
            raise DeviceAbsent(
                f"{self._device}: no such device: is the camera plugged in? `v4l2-ctl --list-devices` lists"
            )
        if not os.access(self._device, os.R_OK | os.W_OK):
            raise DriverError(f"{self._device}: no permission: add this user to the group `video`")
        try:
            form = self._video.open("v4l2", self._wanted())
        except DeviceAbsent as error:
            raise DriverError(f"{self._device}: can't be opened as a camera: is another program using it?") from error
        asked = (self._settings.width or form.width, self._settings.height or form.height)
        if asked != (form.width, form.height):
            self.close()
            raise BadData(
                f"{self._device}: delivers {form.width}×{form.height}, {asked[0]}×{asked[1]} was asked for: "
                f"`v4l2-ctl --list-formats-ext -d {self._device}` lists what it can"
            )
        return form

    def grab_into(self, image: "Pixels") -> Capture:
        """Wait for a frame and decode it; raises DeviceTimeout, DeviceAbsent."""
        capture = self._video.grab()
        if capture is None:
            if not self._device.exists():
                raise DeviceAbsent(f"{self._device}: has gone: unplugged?")
            raise DeviceTimeout(f"{self._device}: delivers no frame")
        self._video.retrieve_into(image, capture)
        return capture

    def close(self) -> None:
        """Let go of the device."""
        self._video.close()

    def _wanted(self) -> dict[str, int]:
        settings = self._settings
        wanted = {"width": settings.width, "height": settings.height, "fps": settings.fps}
        # The pixel format comes first: sizes and rates depend on it.
        code = {} if settings.fourcc is None else {"fourcc": int.from_bytes(settings.fourcc.encode("ascii"), "little")}
        return code | {key: value for key, value in wanted.items() if value is not None}


DRIVER: type[Camera] = V4l2
