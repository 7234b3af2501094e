"""What a connection needs from files, read anew each time, so that a new certificate or password is used at once.

Nothing here turns verification off.
"""

import ssl
from pathlib import Path

from agent.errors import EdgepostError


class UnusableFile(EdgepostError, OSError):
    """A file of `[mqtt]` can't be used. The text says which, why and what is expected."""


def tls_context(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """A context of TLS 1.2 or newer that checks the broker's certificate and name; raises UnusableFile.

    `ca`, `cert` and `key` are PEM files or "": the system's authorities, no client certificate.
    """
    if ca:
        _expect("ca", ca, b"CERTIFICATE-----", "a certificate")
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except ssl.SSLError as error:
        raise UnusableFile(f"mqtt.ca: {ca}: found a damaged file, expected certificates (PEM)") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert:
        _load_client_certificate(context, cert, key)
    return context


def read_password(path: str) -> str | None:
    """The password in a file, without the line's end; None for no file. Raises UnusableFile, never with the secret."""
    if not path:
        return None
    try:
        password = _read("password_file", path).decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UnusableFile(f"mqtt.password_file: {path}: found no UTF-8, expected a password on one line") from None
    if not password:
        raise UnusableFile(f"mqtt.password_file: {path}: found an empty file, expected a password on one line")
    return password


def _load_client_certificate(context: ssl.SSLContext, cert: str, key: str) -> None:
    _expect("cert", cert, b"CERTIFICATE-----", "a certificate")
    _expect("key", key, b"PRIVATE KEY-----", "a private key")

    def refuse() -> str:
        raise UnusableFile(f"mqtt.key: {key}: found a key with a passphrase, expected one without")

    try:
        context.load_cert_chain(cert, key, refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UnusableFile(f"mqtt.key: {key}: does not belong to {cert}, expected the key of mqtt.cert") from error
        raise UnusableFile(f"mqtt.cert, mqtt.key: {cert}, {key}: found a damaged file, expected PEM") from error


def _expect(name: str, path: str, mark: bytes, what: str) -> None:
    if mark not in _read(name, path):
        raise UnusableFile(f"mqtt.{name}: {path}: found no PEM of its kind, expected {what}")


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnusableFile(f"mqtt.{name}: {path}: can't be read: {error.strerror}") from error
