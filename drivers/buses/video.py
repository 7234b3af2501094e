"""A video source through OpenCV: a file, a device node, a stream's address. The only driver code that loads cv2."""

import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET: FFmpeg would print addresses with their passwords

import cv2
import numpy as np

from drivers.contract import BadData, Capture, DeviceAbsent, FormatChanged, FrameFormat

if TYPE_CHECKING:
    from drivers.contract import Pixels

Backend = Literal["ffmpeg", "v4l2"]
_BACKENDS: Mapping[Backend, int] = {"ffmpeg": cv2.CAP_FFMPEG, "v4l2": cv2.CAP_V4L2}
_PROPERTIES = {
    "width": cv2.CAP_PROP_FRAME_WIDTH,
    "height": cv2.CAP_PROP_FRAME_HEIGHT,
    "fps": cv2.CAP_PROP_FPS,
    "fourcc": cv2.CAP_PROP_FOURCC,
    "open_timeout_ms": cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
    "read_timeout_ms": cv2.CAP_PROP_READ_TIMEOUT_MSEC,
}
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


class Video:
    """One source, opened by `open`. `name` is the source without user, password and query: for texts."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.name = public_name(source)
        self._capture: cv2.VideoCapture | None = None
        self._first: Pixels | None = None

    def open(self, backend: Backend, properties: Mapping[str, int] | None = None, options: str = "") -> FrameFormat:
        """Open and decode one frame, for only that tells the real format; the first `grab` delivers it.

        `properties` are asked of the source (keys: width, height, fps, fourcc, open_timeout_ms, read_timeout_ms);
        `options` are FFmpeg's, as "key;value|key;value". Raises DeviceAbsent, BadData.
        """
        self.close()
        wanted = [number for key, value in (properties or {}).items() for number in (_PROPERTIES[key], value)]
        os.environ[_FFMPEG_OPTIONS] = options  # there is no other way to pass them; a worker has one camera
        self._capture = cv2.VideoCapture(self._source, _BACKENDS[backend], wanted)
        if not self._capture.isOpened():
            self.close()
            raise DeviceAbsent(f"{self.name}: can't be opened: is it a video?")
        found, image = self._capture.read()
        if not found:
            self.close()
            raise BadData(f"{self.name}: opened, and delivers no picture that can be decoded")
        self._first = _colour(image)
        return FrameFormat(width=image.shape[1], height=image.shape[0])

    def grab(self) -> Capture | None:
        """Wait for the next frame: when it came, or None at the end of a file or when a device or stream failed."""
        assert self._capture is not None, "grab before open"
        if self._first is None and not self._capture.grab():
            return None
        return Capture(t_mono_ns=time.monotonic_ns(), t_real_ns=time.time_ns())

    def retrieve_into(self, image: "Pixels", capture: Capture) -> None:
        """Decode what was grabbed into `image`; raises BadData, and FormatChanged with it when its shape is another."""
        assert self._capture is not None, "retrieve before open"
        if self._first is not None:
            decoded, self._first = self._first, None
        else:
            found, returned = self._capture.retrieve(image)
            if not found:
                raise BadData(f"{self.name}: a frame can't be decoded")
            if returned is image:
                return
            decoded = _colour(returned)
        # OpenCV leaves the array alone and returns one of its own when shape or type differ.
        if decoded.shape != image.shape:
            raise FormatChanged(decoded, capture)
        np.copyto(image, decoded)

    def fps(self) -> float:
        """The frame rate that the source declares, 0 when it declares none."""
        assert self._capture is not None, "fps before open"
        return max(0.0, float(self._capture.get(cv2.CAP_PROP_FPS)))

    def close(self) -> None:
        """Let go of the source. Safe at any time and twice."""
        self._first = None
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def public_name(source: str) -> str:
    """A source as it may be shown: no user, no password, no query (cheap cameras take the password there)."""
    if not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source):
        return source
    parts = urlsplit(source)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "…" if parts.query else "", ""))


def _colour(image: cv2.typing.MatLike) -> "Pixels":
    """Three channels of 8 bits, whatever the source has."""
    pixels = np.asarray(image, np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
