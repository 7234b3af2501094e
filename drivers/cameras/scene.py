"""A rendered scene: a wall, and someone who walks past now and then. The camera of the simulator and of tests."""

import time
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from drivers.buses.buses import Buses
from drivers.buses.pace import Pace
from drivers.contract import Camera, Capture, FrameFormat, Settings

if TYPE_CHECKING:
    from drivers.contract import Pixels


class SceneSettings(Settings, frozen=True, kw_only=True):
    """Settings of `scene`."""

    width: Annotated[int, msgspec.Meta(description="width of the picture", ge=64, le=7680, extra={"unit": "px"})] = 640
    height: Annotated[int, msgspec.Meta(description="height of the picture", ge=48, le=4320, extra={"unit": "px"})] = (
        480
    )
    fps: Annotated[float, msgspec.Meta(description="frames a second", gt=0, le=1000, extra={"unit": "Hz"})] = 15.0
    seed: Annotated[int, msgspec.Meta(description="another seed, another wall and another walker", ge=0)] = 0


class Scene:
    """Shows what `drivers.models.scene` paints, at its pace."""

    Settings: ClassVar[type[Settings]] = SceneSettings

    def __init__(self, settings: SceneSettings, buses: Buses) -> None:  # noqa: ARG002 (rendered, not read from a bus)
        self._settings = settings

    def open(self) -> FrameFormat:
        """Paint the wall."""
        from drivers.models.scene import Painter  # with numpy, which the agent itself is to do without

        settings = self._settings
        self._painter = Painter(settings.width, settings.height, settings.fps, settings.seed)
        self._pace = Pace(settings.fps)
        return FrameFormat(settings.width, settings.height)

    def grab_into(self, image: "Pixels") -> Capture:
        """Wait for the frame's time and render it."""
        self._pace.wait()
        capture = Capture(t_mono_ns=time.monotonic_ns(), t_real_ns=time.time_ns())
        self._painter.paint(image)
        return capture

    def close(self) -> None:
        """Nothing is held."""


DRIVER: type[Camera] = Scene
