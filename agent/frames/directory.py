"""Where rings and their sockets are, who owns them, and what a crash left there."""

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from agent.errors import AlreadyRunning, EdgepostError
from agent.paths import check_socket_path, frames_dir, make_private

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (what is made there is private, and its owner is checked)


def ring_path(frames: Path, camera: str) -> Path:
    """The ring file of a camera."""
    return frames / f"{camera}.ring"


def announce_path(frames: Path, camera: str) -> Path:
    """The socket of a camera's announcements; raises EdgepostError when no socket can have so long a path."""
    path = frames / f"{camera}.announce"
    check_socket_path(path)
    return path


def prepare_frames_dir(runtime: Path) -> Path:
    """Make the directory of rings ready, once, as the agent starts; returns it. Raises EdgepostError.

    Where `runtime` is no tmpfs, it becomes a link to a private directory in /dev/shm: frames belong in memory.
    What a crash left there is removed; a camera whose worker lives is left alone.
    """
    make_private(runtime)
    frames = frames_dir(runtime)
    if is_tmpfs(runtime) or not is_tmpfs(SHARED_MEMORY):
        if frames.is_symlink():  # /run was no tmpfs when the agent ran before
            frames.unlink()
        frames.mkdir(mode=0o750, exist_ok=True)
    else:
        _link(frames, _shared_memory_dir(runtime))
    sweep(frames)
    return frames


def release_frames_dir(frames: Path) -> None:
    """Remove the directory of rings, with its link, as the agent stops; what somebody else put there stays."""
    with contextlib.suppress(OSError):
        frames.resolve().rmdir()
        if frames.is_symlink():
            frames.unlink()


def is_tmpfs(path: Path) -> bool:
    """Whether what is written at `path` stays in memory, by the kernel's own list of mounts."""
    try:
        device = path.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    fields = (line.split() for line in mounts.splitlines())
    return any(words[2] == number and words[words.index("-") + 1] == "tmpfs" for words in fields)


def sweep(frames: Path, camera: str | None = None) -> None:
    """Remove what dead workers left: rings, sockets, temporaries, locks; of one camera, or of all."""
    left = {
        path.name.split(".")[0] for path in frames.iterdir() if path.suffix in {".ring", ".announce", ".tmp", ".lock"}
    }
    for name in left if camera is None else left & {camera}:
        with contextlib.suppress(AlreadyRunning), camera_lock(frames, name, wait_s=0):
            for path in (ring_path(frames, name), frames / f"{name}.announce", *frames.glob(f"{name}.*.tmp")):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def camera_lock(frames: Path, camera: str, wait_s: float) -> Iterator[None]:
    """Own a camera's files: at most one process does. Raises AlreadyRunning when another does after `wait_s` seconds.

    The lock file is removed before it is let go of, so a winner makes sure that it won the file that has the name now.
    """
    path = frames / f"{camera}.lock"
    deadline = time.monotonic() + wait_s
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(fd, path):
                break
            os.close(fd)
        except BlockingIOError:
            os.close(fd)
            if time.monotonic() >= deadline:
                raise AlreadyRunning(f"{path}: another process delivers this camera's frames: end it first") from None
            time.sleep(0.02)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _shared_memory_dir(runtime: Path) -> Path:
    """A directory for this runtime directory alone; raises EdgepostError when somebody else has made it."""
    digest = hashlib.sha256(os.fsencode(runtime.resolve())).hexdigest()[:8]
    path = SHARED_MEMORY / f"edgepost-{os.geteuid()}-{digest}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    state = path.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o077:
        raise EdgepostError(
            f"{path}: expected a directory of user {os.geteuid()} with mode 0700, found {stat.filemode(state.st_mode)} "
            f"of user {state.st_uid}: remove it, or use another --runtime-dir"
        )
    return path


def _link(frames: Path, target: Path) -> None:
    """Let `frames` be a link to `target`, in place of an older link or an empty directory."""
    if frames.is_symlink():
        if frames.readlink() == target:
            return
        frames.unlink()
    elif frames.is_dir():
        sweep(frames)
        try:
            frames.rmdir()
        except OSError as error:
            raise EdgepostError(f"{frames}: should become a link to {target}, and is not empty: remove it") from error
    frames.symlink_to(target)
