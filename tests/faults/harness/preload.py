"""A disk that refuses by preload: system calls on files below a directory fail while a trigger file exists."""

import errno
import shutil
import subprocess
from pathlib import Path
from typing import Final

SOURCE = Path(__file__).with_name("refuse.c")
SYNCS: Final = 1
WRITES: Final = 2
READS: Final = 4


class RefusingDisk:
    """The directory at `path`, which refuses what it is told to for processes with this `environment`."""

    def __init__(self, place: Path, library: Path) -> None:
        self.path = place / "refusing"
        self.path.mkdir(parents=True)
        self._trigger = place / "trigger"
        self.environment = {
            "LD_PRELOAD": str(library), "FAULT_TRIGGER": str(self._trigger), "FAULT_UNDER": str(self.path.resolve()),
        }  # fmt: skip

    def refuse(self, calls: int, number: int) -> None:
        """Let these calls fail with this errno."""
        new = self._trigger.with_suffix(".new")
        new.write_text(f"{calls} {number}", "ascii")
        new.rename(self._trigger)

    def obey(self) -> None:
        """Work again."""
        self._trigger.unlink()


def build(place: Path) -> Path:
    """Compile the library."""
    library = place / "refuse.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"], check=True, timeout=60)
    return library


def why_not() -> str | None:
    """Why there can be no such disk here, or None when there can."""
    if shutil.which("gcc") is None:
        return "gcc is not installed: apt-get install gcc libc6-dev"
    return None


def describe(calls: int, number: int) -> str:
    """How this fault is called in a report."""
    names = {SYNCS: "syncs", WRITES: "writes", READS: "reads"}
    return f"{' and '.join(name for bit, name in names.items() if calls & bit)} fail with {errno.errorcode[number]}"
