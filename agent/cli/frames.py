"""`edgepost frames`: which cameras deliver, one picture of one, and how quickly frames are handed over."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from agent.cli.output import add_json, add_runtime_dir, print_json, print_table
from agent.errors import EdgepostError, UsageError
from agent.frames.layout import BadRing, Header, alive, read_header, read_slot
from agent.paths import frames_dir, runtime_dir

_MOMENT_S = 0.6
_PICTURE_S = 10.0
_KINDS = (".jpg", ".jpeg", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare list, save and stats."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = commands.add_parser("list", help="list the cameras that deliver frames")
    save = commands.add_parser("save", help="save the newest frame of a camera as .jpg or .png")
    save.add_argument("camera", metavar="CAMERA")
    save.add_argument("file", metavar="FILE", type=Path, help="where to, ending in .jpg or .png")
    stats = commands.add_parser("stats", help="measure how quickly frames of a camera reach a reader")
    stats.add_argument("camera", metavar="CAMERA")
    stats.add_argument("--seconds", type=float, default=5.0, metavar="N", help="how long to measure (default: 5)")
    for command in (listing, save, stats):
        add_runtime_dir(command)
    add_json(listing)
    add_json(stats)


def run(args: argparse.Namespace) -> int:
    """Carry out one of them."""
    runtime = runtime_dir(args.runtime_dir)
    if args.action == "list":
        return _list(runtime, as_json=args.json)
    if args.action == "save":
        return _save(runtime, args.camera, args.file)
    return _stats(runtime, args.camera, args.seconds, as_json=args.json)


def _list(runtime: Path, *, as_json: bool) -> int:
    before, since = _headers(runtime), time.monotonic()
    if before:
        time.sleep(_MOMENT_S)
    after, span_s = _headers(runtime), time.monotonic() - since
    cameras = [_describe(path, header, before.get(path), span_s) for path, header in after.items()]
    if as_json:
        print_json(cameras)
    elif cameras:
        print_table(list(cameras[0]), [[_cell(value) for value in camera.values()] for camera in cameras])
    else:
        print(f"no camera delivers frames in {frames_dir(runtime)}")
    return 0


def _headers(runtime: Path) -> dict[Path, Header]:
    found = {}
    for path in sorted(frames_dir(runtime).glob("*.ring")):
        try:
            found[path] = read_header(path)
        except (FileNotFoundError, BadRing):  # just going, or not ours
            continue
    return found


def _describe(path: Path, header: Header, before: Header | None, span_s: float) -> dict[str, Any]:
    """One camera's line. What is not known yet, before the first frame, is None."""
    described: dict[str, Any] = {
        "camera": path.stem,
        "size": None,
        "fourcc": None,
        "fps": None,
        "seq": None,
        "age_s": None,
    }
    if header.doorbell:
        try:
            fields = read_slot(path, header.newest_slot)
        except FileNotFoundError:
            fields = None
        if fields:
            described["size"] = f"{fields.width}x{fields.height}"
            described["fourcc"] = fields.fourcc.to_bytes(4, "little").decode("ascii", "replace")
            described["seq"] = header.newest_seq
            described["age_s"] = round((time.monotonic_ns() - fields.t_mono_ns) / 1e9, 2)
    if before and before.epoch == header.epoch:
        described["fps"] = round((header.doorbell - before.doorbell) % 2**32 / span_s, 1)
    return described | {"slots": header.slots, "bytes": header.nbytes, "pid": header.pid, "alive": alive(header.pid)}


def _cell(value: object) -> object:
    return "-" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _save(runtime: Path, camera: str, file: Path) -> int:
    if file.suffix.lower() not in _KINDS:
        raise UsageError(f"{file}: the name must end in .jpg or .png: that says what is written")
    _require(runtime, camera)
    import cv2

    from agent.frames import FrameReader

    with FrameReader(camera, runtime_dir=runtime) as frames:
        while True:
            frame = frames.read(_PICTURE_S)
            if frame is None:
                raise EdgepostError(f"{camera}: no frame for {_PICTURE_S:g} s: see `edgepost status`")
            encoded, data = cv2.imencode(file.suffix, frame.image)
            if frame.release():  # else it was written over while it was encoded
                break
    if not encoded:
        raise EdgepostError(f"{camera}: frame {frame.seq} can't be encoded as {file.suffix}")
    try:
        file.write_bytes(data.tobytes())
    except OSError as error:
        raise EdgepostError(f"{file}: can't be written: {error.strerror}") from error
    print(f"{file}: frame {frame.seq} of {camera}, {frame.width}x{frame.height}, captured {frame.captured.isoformat()}")
    return 0


def _require(runtime: Path, camera: str) -> None:
    """Raise EdgepostError that lists the cameras there are when `camera` is none."""
    cameras = {path.stem: header for path, header in _headers(runtime).items()}
    if camera not in cameras:
        there = f"there are: {', '.join(cameras)}" if cameras else "there is none: see `edgepost status`"
        raise EdgepostError(f"no camera {camera!r} delivers frames in {frames_dir(runtime)}; {there}")
    if not alive(pid := cameras[camera].pid):
        raise EdgepostError(f"{camera}: its worker (process {pid}) is dead: is the agent running?")


def _stats(runtime: Path, camera: str, seconds: float, *, as_json: bool) -> int:
    if not seconds > 0:
        raise UsageError(f"--seconds {seconds:g}: expected more than 0")
    _require(runtime, camera)
    figures = _measure(runtime, camera, seconds, progress=sys.stderr.isatty() and not as_json)
    if as_json:
        print_json(figures)
    else:
        print_table(("figure", "value"), [(name, _cell(value)) for name, value in figures.items()])
    if not figures["frames"]:
        raise EdgepostError(f"{camera}: no frame in {seconds:g} s: see `edgepost status`")
    return 0


def _measure(runtime: Path, camera: str, seconds: float, *, progress: bool) -> dict[str, Any]:
    """Read by doorbell; the announcements, collected beside it without a thread, say when each frame was published."""
    from agent.frames import FrameReader
    from agent.frames.announce import Listener

    published: dict[tuple[int, int], int] = {}
    returned: dict[tuple[int, int], int] = {}
    listener = Listener(frames_dir(runtime), camera)
    listener.open()
    try:
        with FrameReader(camera, runtime_dir=runtime) as frames:
            first = frames.read(seconds)
            if first is not None:
                first.release()  # it was there before we were
            start = time.monotonic()
            while (left_s := start + seconds - time.monotonic()) > 0:
                if (frame := frames.read(min(left_s, 1.0))) is not None:
                    returned[frame.epoch, frame.seq] = time.monotonic_ns()
                    frame.release()
                published |= {(each.epoch, each.seq): each.t_publish_mono_ns for each in listener.drain()}
                if progress:
                    _tell(f"\r{camera}: {len(returned)} frames, {left_s:.0f} s left ")
            span_s = time.monotonic() - start
            skipped, revoked = frames.skipped, frames.revoked
    finally:
        listener.close()
        if progress:
            _tell("\r\x1b[K")
    latencies_us = sorted((at - published[frame]) / 1000 for frame, at in returned.items() if frame in published)
    return {
        "camera": camera,
        "seconds": round(span_s, 2),
        "frames": len(returned),
        "fps": round(len(returned) / span_s, 1),
        "handoff_p50_us": _quantile(latencies_us, 0.5),
        "handoff_p99_us": _quantile(latencies_us, 0.99),
        "handoff_frames": len(latencies_us),
        "skipped": skipped,
        "revoked": revoked,
    }


def _tell(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) if ordered else None
