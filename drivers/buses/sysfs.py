"""The kernel's text files below /proc and /sys."""

import errno
from pathlib import Path

from drivers.contract import BadData, DeviceAbsent, DriverError


def read_text(path: Path) -> str:
    """Return the text of a file; raises DeviceAbsent when there is none, DriverError when it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO):
            raise DeviceAbsent(f"{path}: there is no such file: this kernel or machine does not offer it") from error
        raise DriverError(f"{path}: can't be read: {error.strerror}") from error


def read_int(path: Path) -> int:
    """Return the whole number that a file holds; raises BadData beside what `read_text` raises."""
    text = read_text(path).strip()
    try:
        return int(text)
    except ValueError as error:
        raise BadData(f"{path}: expected a whole number, found {text[:40]!r}") from error
