"""Disks that can be broken and mended: each yields where they are and what breaks and mends them."""

import errno
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.faults.harness.media import Ext4, Tmpfs
from tests.faults.harness.preload import READS, SYNCS, WRITES, RefusingDisk, describe

MIB = 1024 * 1024
TMPFS_BYTES = (4 * MIB, 48 * MIB)  # too small for a ballast file, and large enough
REFUSALS = (
    (SYNCS, errno.EIO),
    (WRITES, errno.EIO),
    (SYNCS | WRITES, errno.EIO),
    (WRITES, errno.ENOSPC),
    (WRITES, errno.EROFS),
    (READS, errno.EIO),
    (SYNCS | WRITES | READS, errno.EIO),
)


class BrokenDisk(msgspec.Struct, frozen=True):
    """`environment`: what a process on it needs. `survives`: files may stay open while it is mended."""

    name: str
    path: Path
    break_: Callable[[], None]
    mend: Callable[[], None]
    environment: Mapping[str, str] = {}
    survives: bool = True


@contextmanager
def full(place: Path, chance: random.Random, library: Path) -> Iterator[BrokenDisk]:
    """A small tmpfs that somebody else fills up."""
    del library
    size = chance.choice(TMPFS_BYTES)
    with Tmpfs(place, size) as disk:
        yield BrokenDisk(f"full tmpfs of {size // MIB} MiB", disk.path, disk.fill, disk.empty)


@contextmanager
def failing(place: Path, chance: random.Random, library: Path) -> Iterator[BrokenDisk]:
    """A disk on which system calls fail."""
    disk = RefusingDisk(place, library)
    calls, number = chance.choice(REFUSALS)
    yield BrokenDisk(
        describe(calls, number), disk.path, lambda: disk.refuse(calls, number), disk.obey, disk.environment
    )


@contextmanager
def read_only(place: Path, chance: random.Random, library: Path) -> Iterator[BrokenDisk]:
    """An ext4 that turns read-only, as it does after an error, and is mounted anew."""
    del chance, library

    with Ext4(place) as disk:

        def mount_anew() -> None:
            disk.unmount()
            disk.mount()

        yield BrokenDisk("read-only ext4", disk.path, disk.turn_read_only, mount_anew, survives=False)
