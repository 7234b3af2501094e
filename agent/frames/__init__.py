"""Camera frames: `from agent.frames import FrameReader` reads them; loaded on demand, for it loads numpy."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.frames.frame import Frame
    from agent.frames.reader import FrameReader

__all__ = ["Frame", "FrameReader"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from agent.frames import reader

    return getattr(reader, name)
