"""Why a broker could not be reached, did not let us in or went away, in words that say what to do about it."""

import errno
import socket
import ssl
import time

from agent.delivery.tls import UnusableFile

EXPIRED, NOT_YET_VALID = 10, 9  # of X509_verify_cert_error_string(3)
OTHER_HOST, OTHER_ADDRESS = 62, 64
UNKNOWN_AUTHORITY = {2, 18, 19, 20, 21}

TLS = {"mqtts", "wss"}
NO_TLS = "no TLS is spoken there: is the port right, or is the address mqtt:// or ws://?"
ALERTS = {
    "CERTIFICATE_REQUIRED": "the broker wants a client certificate: set mqtt.cert and mqtt.key",
    "ALERT_HANDSHAKE_FAILURE": "the broker ended the handshake: it may want a client certificate (mqtt.cert, mqtt.key)",
    "ALERT_CERTIFICATE_EXPIRED": "the broker says that our certificate has expired: renew mqtt.cert",
    "ALERT_UNKNOWN_CA": "the broker does not know the authority that signed our certificate: check mqtt.cert",
    "ALERT_CERTIFICATE_REVOKED": "the broker says that our certificate was revoked: renew mqtt.cert",
    "ALERT_BAD_CERTIFICATE": "the broker does not take our certificate: check mqtt.cert",
    "ALERT_CERTIFICATE_UNKNOWN": "the broker does not take our certificate: check mqtt.cert",
    "ALERT_PROTOCOL_VERSION": "the broker does not speak TLS 1.2 or newer: update it",
    "UNSUPPORTED_PROTOCOL": "the broker does not speak TLS 1.2 or newer: update it",
    "WRONG_VERSION_NUMBER": NO_TLS,
    "UNEXPECTED_EOF": NO_TLS,
    "EOF occurred": NO_TLS,
}
"""What OpenSSL calls it, and what it means for us. Those with ALERT come from the broker."""

CREDENTIALS = "check username and password_file"
REFUSALS = {
    0x85: "expected another device.id",
    0x86: CREDENTIALS,
    0x87: CREDENTIALS,
    0x88: "it is not available now",
    0x89: "it is busy now",
}
"""What to do about the reason code of a CONNACK."""

NETWORK = [f"[Errno {code}]" for code in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)]

FAILURES: list[tuple[type[Exception], str]] = [
    (ConnectionRefusedError, "connection refused: is the broker running and is the port right?"),
    (ConnectionResetError, "hung up at once: is the port right?"),
    (TimeoutError, "no answer"),
]


def of_failure(error: Exception, scheme: str) -> str:
    """Why no connection was made."""
    if isinstance(error, UnusableFile):
        return str(error)
    if isinstance(error, socket.gaierror):
        return f"can't be reached: the host's name can't be resolved ({error.strerror})"
    if "WebSocket" in str(error):
        return f"can't be reached: {error}: are port and path those of MQTT over WebSockets?"
    if isinstance(error, ConnectionResetError) and scheme in TLS:
        return f"can't be reached: {NO_TLS}"
    known = _of_tls(error) or next((words for kind, words in FAILURES if isinstance(error, kind)), None)
    return f"can't be reached: {known or error}"


def of_refusal(code: int) -> str:
    """What to do about a CONNACK with this reason code of MQTT 5."""
    return REFUSALS.get(code, "the broker's log may say why")


def of_hanging_up(text: str, scheme: str, cert: str) -> str:
    """What a broker may miss that ends a connection before its CONNACK, where paho's words do not say it."""
    if is_alert(text):
        return ""
    if scheme not in TLS:
        return " before its CONNACK: does it expect TLS (mqtts://, wss://)?"
    if not cert:
        return " before its CONNACK: does it want a client certificate (mqtt.cert, mqtt.key)?"
    return " before its CONNACK: does it know the authority of our certificate (mqtt.cert), is that still valid?"


def of_loss(text: str) -> str:
    """Why a connection ended, from what paho says of its socket (`failed to ... on socket: ...`)."""
    if is_alert(text):
        return _of_tls(text) or ""
    found = text.partition(": ")[2]
    return "closed by the broker" if not found or "EOF" in found or "reset" in found else found


def is_alert(text: str) -> bool:
    """Whether the broker gave its reason, in a TLS alert that we know."""
    return _of_tls(text) not in {None, NO_TLS}


def is_network(text: str) -> bool:
    """Whether the kernel gave the network up: no message is to blame for that."""
    return any(mark in text for mark in NETWORK)


def _of_tls(error: Exception | str) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate {_verdict(error)}"
    return next((words for mark, words in ALERTS.items() if mark in str(error)), None)


def _verdict(error: ssl.SSLCertVerificationError) -> str:
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    code = error.verify_code
    if code == EXPIRED:
        return f"has expired: renew it there (this machine's clock says {now}: set it if that is wrong)"
    if code == NOT_YET_VALID:
        return f"is not valid yet: this machine's clock says {now}, set it if that is wrong"
    if code in {OTHER_HOST, OTHER_ADDRESS}:
        return f"is for another host ({error.verify_message.rstrip('.')}): expected a name from it in mqtt.urls"
    if code in UNKNOWN_AUTHORITY:
        return "is signed by an authority that is not known here: name the file with that authority in mqtt.ca"
    return f"was not accepted: {error.verify_message}"
