"""Posts an event when something starts to move before a camera, and when it has stopped. An example to copy.

Run it beside the agent: `python -m agent.consumers.motion gate`
"""

import argparse
import logging
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import cv2

from agent.consumers.post import EventPoster, NoAnswer, PostFailed
from agent.errors import EdgepostError
from agent.frames import Frame, FrameReader

log = logging.getLogger("motion")

_WIDTH = 320  # a person still has many pixels, and a Pi the time
_START_FRAMES = 3  # a flicker is no motion
_QUIET_S = 2.0  # who stands still for a moment has not gone
_LEARN_FRAMES = 10
_RETRY_S = 2.0
_KEPT_EVENTS = 100

Box = tuple[int, int, int, int]


class Motion:
    """Finds what moves against the background that it learns."""

    def __init__(self, min_area: float) -> None:
        self._min_area = min_area
        self._background = cv2.createBackgroundSubtractorMOG2(history=300, detectShadows=False)
        self._learned = 0

    def boxes(self, frame: Frame) -> list[Box]:
        """Where something moves: left, top, width, height in pixels of the frame, each of `min_area` of it or more."""
        scale = frame.width / _WIDTH
        small = cv2.resize(frame.image, (_WIDTH, round(frame.height / scale)), interpolation=cv2.INTER_AREA)
        mask = self._background.apply(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
        self._learned += 1
        if self._learned < _LEARN_FRAMES:
            return []
        mask = cv2.dilate(cv2.medianBlur(mask, 5), cv2.getStructuringElement(cv2.MORPH_RECT, (5, 5)))
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        found = [
            cv2.boundingRect(outline) for outline in outlines if cv2.contourArea(outline) >= self._min_area * mask.size
        ]
        return [tuple(round(side * scale) for side in box) for box in found]  # type: ignore[misc]


class Outbox:
    """Keeps the last 100 events until the agent has taken them, so that it may be away for a while."""

    def __init__(self, agent: EventPoster, camera: str) -> None:
        self._agent = agent
        self._camera = camera
        self._events: deque[tuple[float, dict[str, Any]]] = deque(maxlen=_KEPT_EVENTS)
        self._retry_at = 0.0

    def put(self, state: str, frame: Frame, boxes: list[Box]) -> None:
        """Keep an event of this frame's moment."""
        event = {"state": state, "seq": frame.seq, "captured": frame.captured.isoformat(), "boxes": boxes}
        self._events.append((frame.t_real_ns / 1e6, event))
        log.info("%s: %s at frame %d", self._camera, state, frame.seq)

    def post(self) -> None:
        """Post what is kept, oldest first; after a failure not again for 2 s."""
        while self._events and time.monotonic() >= self._retry_at:
            ts_ms, event = self._events[0]
            try:
                self._agent.post(self._camera, "motion", event, ts_ms=ts_ms, timeout_s=1.0)
            except NoAnswer as error:
                if not self._retry_at:  # said once, not every time
                    log.warning("%s; trying again", error)
                self._retry_at = time.monotonic() + _RETRY_S
                return
            except PostFailed as error:
                log.error("%s; the event is dropped: %s", error, event)  # it would be refused again
            self._events.popleft()
            self._retry_at = 0.0


def watch(camera: str, runtime: Path | None, min_area: float, stop: threading.Event) -> None:
    """Look at every newest frame until `stop`, and post "motion" events with state "started" and "ended"."""
    motion, moving, seen, last_at = Motion(min_area), False, 0, 0.0
    with FrameReader(camera, runtime_dir=runtime) as frames, EventPoster(runtime) as agent:
        outbox = Outbox(agent, camera)
        while not stop.is_set():
            outbox.post()
            frame = frames.read(timeout_s=0.5)
            if frame is None:
                continue
            boxes = motion.boxes(frame)
            if not frame.release():
                continue  # the camera took it back: we looked at a mixture
            now = time.monotonic()
            seen, last_at = (seen + 1, now) if boxes else (0, last_at)
            if not moving and seen >= _START_FRAMES:
                moving = True
                outbox.put("started", frame, boxes)
            elif moving and now - last_at > _QUIET_S:
                moving = False
                outbox.put("ended", frame, boxes)


def main() -> int:
    """Watch one camera until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="motion", description=__doc__)
    parser.add_argument("camera", metavar="CAMERA")
    parser.add_argument("--runtime-dir", type=Path, metavar="DIR", help="where the agent keeps rings and sockets")
    parser.add_argument(
        "--min-area", type=float, default=0.005, metavar="SHARE", help="of the picture (default: 0.005)"
    )
    args = parser.parse_args()
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        watch(args.camera, args.runtime_dir, args.min_area, stop)
    except EdgepostError as error:
        log.error("%s", error)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
