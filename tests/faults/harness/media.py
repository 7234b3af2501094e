"""File systems to break: ext4 in an image file on a loop device, a small tmpfs. Each is gone when its block ends."""

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Self

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), linux/fs/ext4/ext4.h
NO_LOG_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH: nothing more reaches the device, not even what is in the journal
DETACH_S = 10.0
IMAGE_BYTES = 64 * 1024 * 1024


class Ext4:
    """ext4 on a loop device, mounted at `path`."""

    def __init__(self, place: Path) -> None:
        self._anchor = place / "anchor"
        self.path = self._anchor / "mounted"
        self._image = place / "ext4.img"

    def __enter__(self) -> Self:
        self._anchor.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._image)
        try:
            self._make_anchor()
            self.mount()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _unmount_for_good(self.path)
        _unmount_for_good(self._anchor)
        self._image.unlink(missing_ok=True)

    def _make_anchor(self) -> None:
        """Let other mount namespaces, of `ip netns exec` say, let go when we do: they would hold what was shut down."""
        _run("mount", "--bind", self._anchor, self._anchor)
        _run("mount", "--make-shared", self._anchor)
        self.path.mkdir(exist_ok=True)

    def mount(self) -> None:
        """Replay the journal and mount; the loop device goes with the mount."""
        _run("mount", "-t", "ext4", "-o", "loop,noatime,errors=remount-ro", self._image, self.path)

    def unmount(self) -> None:
        """Let go of it; nobody may have a file open there. The next mount is one of a device that was closed."""
        _run("umount", self.path)
        deadline = time.monotonic() + DETACH_S
        while _run("losetup", "--associated", self._image):  # else the file system could be found still shut down
            if time.monotonic() > deadline:
                raise MediaError(f"{self._image}: its loop device is still attached after {DETACH_S:g} s")
            time.sleep(0.01)

    def cut_power(self) -> None:
        """From now on nothing reaches the device: what was not synced before is lost."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("=I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def turn_read_only(self) -> None:
        """What ext4 does by itself after an error, open files or not; only a new mount can be written to."""
        _run("mount", "-o", "remount,abort", self.path)


class Tmpfs:
    """A tmpfs of `size` bytes, mounted at `path`."""

    def __init__(self, place: Path, size: int) -> None:
        self.path = place / "mounted"
        self._size = size
        self._filler = self.path / "filler"

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", self.path)
        return self

    def __exit__(self, *_: object) -> None:
        _unmount_for_good(self.path)

    def fill(self) -> None:
        """Leave no room at all."""
        fd = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while True:
                os.write(fd, bytes(64 * 1024))
        except OSError:
            pass  # full
        finally:
            os.close(fd)

    def empty(self) -> None:
        """Give the room back."""
        self._filler.unlink()


@cache
def why_not() -> str | None:
    """Why file systems can't be mounted here, or None when they can."""
    if os.geteuid() != 0:
        return "mounting file systems needs root"
    for tool, package in (("mkfs.ext4", "e2fsprogs"), ("mount", "mount"), ("losetup", "mount")):
        if shutil.which(tool) is None:
            return f"{tool} is not installed: apt-get install {package}"
    try:
        with tempfile.TemporaryDirectory(prefix="ep-") as place, Ext4(Path(place)):
            return None
    except MediaError as error:
        return f"no file system can be mounted here: {error}"


class MediaError(Exception):
    """A file system can't be made or mounted."""


def _run(*command: object) -> str:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        raise MediaError(f"{words[0]}: {error}") from error
    if done.returncode:
        raise MediaError(f"{' '.join(words)}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout


def _unmount_for_good(path: Path) -> None:
    """Unmount whatever is mounted; lazily when somebody still has a file open there."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()]
    if str(path.resolve()) not in mounted:
        return
    try:
        _run("umount", path)
    except MediaError:
        _run("umount", "--lazy", path)
