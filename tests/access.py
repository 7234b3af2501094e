"""How a test's broker demands to be let in, and the agent's files for that, to be spoiled and mended."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.brokers import Mosquitto
from tests.certificates import Authority, Pair

SECRET = "correct horse battery"
ANYBODY = "allow_anonymous true"


class Place(NamedTuple):
    """Where a test's files lie. Those in `files` are the agent's, made good at first: a test spoils them."""

    home: Path
    authority: Authority
    stranger: Authority
    broker: Mosquitto
    server: Pair

    def file(self, name: str, source: Path | str | None = None) -> Path:
        """One of the agent's files, with the content of another file or with this text."""
        path = self.home / "files" / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(source, Path):
            shutil.copyfile(source, path)
        elif source is not None:
            path.write_text(source, "utf-8")
        return path

    def tls(self, pair: Pair | None = None, *more: str) -> tuple[str, ...]:
        """A listener's lines for TLS."""
        cert, key = pair or self.server
        return (*(more or (ANYBODY,)), f"cafile {self.authority.ca}", f"certfile {cert}", f"keyfile {key}")

    def passwords(self) -> tuple[str, ...]:
        """A listener's lines for one user and his password."""
        path = self.home / "passwords"
        if not path.exists():
            path.write_text(f"me:{SECRET}\n")
            subprocess.run(["mosquitto_passwd", "-U", path], check=True, timeout=30)
        return ("allow_anonymous false", f"password_file {path}")
