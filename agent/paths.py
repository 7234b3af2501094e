"""Where things are kept: the system's directories as root, the XDG directories as an ordinary user."""

import os
from pathlib import Path

from agent.errors import EdgepostError, UsageError


def data_dir(given: Path | None = None) -> Path:
    """Queue and state: `given`, `$EDGEPOST_DATA_DIR`, /var/lib/edgepost as root, else the XDG state directory."""
    if given or os.environ.get("EDGEPOST_DATA_DIR"):
        return (given or Path(os.environ["EDGEPOST_DATA_DIR"])).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/edgepost")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "edgepost"


def runtime_dir(given: Path | None = None) -> Path:
    """Rings and sockets: `given`, `$EDGEPOST_RUNTIME_DIR`, /run/edgepost as root, else the XDG runtime directory.

    Without one (no login session), a directory of the user's own below /tmp.
    """
    if given or os.environ.get("EDGEPOST_RUNTIME_DIR"):
        return (given or Path(os.environ["EDGEPOST_RUNTIME_DIR"])).absolute()
    if os.geteuid() == 0:
        return Path("/run/edgepost")
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "edgepost" if base else Path(f"/tmp/edgepost-{os.geteuid()}")  # noqa: S108 (make_private checks its owner)


def config_file() -> Path:
    """The configuration in use when none is named."""
    if os.geteuid() == 0:
        return Path("/etc/edgepost/agent.toml")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgepost/agent.toml"


def make_private(path: Path, mode: int = 0o700) -> Path:
    """Create a directory that is this user's alone; raises EdgepostError when it is somebody else's."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise EdgepostError(
            f"{path}: can't be created ({error.strerror}): name another with --data-dir and --runtime-dir"
        ) from error
    if path.stat().st_uid != os.geteuid():
        raise EdgepostError(
            f"{path}: belongs to user {path.stat().st_uid}, not to you ({os.geteuid()}): name another directory"
        )
    return path


def frames_dir(runtime: Path) -> Path:
    """Rings, locks and announcements of the cameras."""
    return runtime / "frames"


def ingest_address(runtime: Path) -> str:
    """The ZMQ address where programs on this machine post events."""
    return f"ipc://{runtime / 'ingest'}"


def check_socket_path(path: Path) -> None:
    """Raise UsageError when a Unix socket's path is longer than the kernel takes (107 bytes)."""
    excess = len(os.fsencode(path)) - 107
    if excess > 0:
        raise UsageError(f"{path}: {excess} bytes too long for a socket: name a shorter --runtime-dir")
