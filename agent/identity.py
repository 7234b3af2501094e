"""Who this device is."""

import hashlib
import secrets
from pathlib import Path

SALT = b"edgepost device id"
MACHINE_ID = Path("/etc/machine-id")


def device_id(configured: str, data: Path, machine_id: Path = MACHINE_ID) -> str:
    """The configured name, or for "auto" one made from the machine id.

    It is hashed, because it is confidential (machine-id(5)). Where there is none, a random name is kept in `data`.
    """
    if configured != "auto":
        return configured
    kept = data / "device-id"
    try:
        if kept.exists():
            return kept.read_text(encoding="ascii").strip()
        identity = machine_id.read_bytes().strip()
    except OSError:
        identity = b""
    if identity:
        return f"ep-{hashlib.sha256(SALT + identity).hexdigest()[:8]}"
    name = f"ep-{secrets.token_hex(4)}"
    kept.write_text(name, encoding="ascii")
    return name
