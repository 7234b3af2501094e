"""A video file, played as if it were a camera: for demonstrations, and for tests that need known pixels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec

from drivers.buses.buses import Buses
from drivers.buses.pace import Pace
from drivers.contract import BadData, Camera, Capture, DeviceAbsent, EndOfStream, FrameFormat, Settings

if TYPE_CHECKING:
    from drivers.contract import Pixels

Rate = Annotated[float, msgspec.Meta(gt=0, le=1000)]


class FileSettings(Settings, frozen=True, kw_only=True):
    """Settings of `file`."""

    path: Annotated[str, msgspec.Meta(description="the video file", min_length=1, examples=["/srv/video/gate.mp4"])]
    loop: Annotated[bool, msgspec.Meta(description="begin again at the end")] = True
    rate: Annotated[
        Literal["recorded"] | Rate,
        msgspec.Meta(
            description='"recorded" for the pace of the recording, or a number of frames a second up to 1000',
            extra={"unit": "Hz"},
        ),
    ] = "recorded"


class File:
    """Every frame of the file in turn. Raises EndOfStream at its end unless it loops."""

    Settings: ClassVar[type[Settings]] = FileSettings

    def __init__(self, settings: FileSettings, buses: Buses) -> None:
        self._settings = settings
        self._video = buses.video(settings.path)

    def open(self) -> FrameFormat:
        """Open the file; raises DeviceAbsent, and BadData when it is no video or declares no pace to play it at."""
        path = Path(self._settings.path)
        if not path.is_file():
            raise DeviceAbsent(f"{path}: no such file: set `path` to a video file")
        form = self._video.open("ffmpeg")
        rate = self._video.fps() if self._settings.rate == "recorded" else float(self._settings.rate)
        if not rate > 0:  # NaN as well
            self.close()
            raise BadData(f"{path}: declares no frame rate: set `rate` to a number of frames a second")
        self._pace = Pace(rate)
        return form

    def grab_into(self, image: "Pixels") -> Capture:
        """Wait for the frame's time and decode it."""
        self._pace.wait()
        capture = self._video.grab()
        if capture is None:
            if not self._settings.loop:
                raise EndOfStream(f"{self._settings.path}: has ended")
            self._video.open("ffmpeg")  # seeking back is not exact in every format
            capture = self._video.grab()
        assert capture is not None, "open has decoded a frame"
        self._video.retrieve_into(image, capture)
        return capture

    def close(self) -> None:
        """Close the file."""
        self._video.close()


DRIVER: type[Camera] = File
