"""Certificates for a test, made with the openssl command."""

import subprocess
from pathlib import Path
from typing import NamedTuple

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Pair(NamedTuple):
    cert: Path
    key: Path


class Authority:
    """A certificate authority of the test's own: `ca` is its certificate."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        directory.mkdir(exist_ok=True, parents=True)
        self._directory = directory
        self.ca, self._key = directory / f"{name}.pem", directory / f"{name}.key"
        _openssl("req", "-x509", *NEW_KEY, "-days", 2, "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.ca)

    def issue(self, name: str, host: str = "DNS:localhost", days: int = 1) -> Pair:
        """A certificate for `host` (a subjectAltName) and its key; it has expired when `days` is below zero."""
        base = self._directory / f"{self.ca.stem}-{name}"
        request, extensions = base.with_suffix(".csr"), base.with_suffix(".ext")
        pair = Pair(base.with_suffix(".pem"), base.with_suffix(".key"))
        extensions.write_text(f"subjectAltName={host}\n")
        _openssl("req", "-new", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", pair.key, "-out", request)
        signed_by = ["-CA", self.ca, "-CAkey", self._key, "-CAcreateserial"]
        _openssl("x509", "-req", "-in", request, *signed_by, "-days", days, "-extfile", extensions, "-out", pair.cert)
        return pair


def _openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
