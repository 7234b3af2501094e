"""A broker as the uplink sees it: where it is, what it says, and how it fails."""

import urllib.parse
from typing import Literal

import msgspec

from agent.config import MqttConfig
from agent.errors import EdgepostError

Protocol = Literal["5", "3.1.1"]

SCHEMES = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


class ConnectionLost(EdgepostError, ConnectionError):
    """The broker can't be reached, refused us, or went away. The text says which broker and why."""


class ConnectionBroken(ConnectionLost):
    """The broker ended a connection that it had opened."""


class ProtocolRefused(ConnectionLost):
    """The broker does not speak this version of MQTT."""


class Broker(msgspec.Struct, frozen=True):
    """Where a broker is and how to be let in."""

    url: str
    username: str = ""
    password_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    @property
    def parts(self) -> tuple[str, str, int, str]:
        """(scheme, host, port, path)."""
        url = urllib.parse.urlsplit(self.url)
        return url.scheme, url.hostname or "", url.port or SCHEMES[url.scheme], url.path or "/mqtt"


def brokers(mqtt: MqttConfig) -> list[Broker]:
    """The brokers of a configuration, in the order in which they are tried."""
    return [Broker(url, mqtt.username, mqtt.password_file, mqtt.ca, mqtt.cert, mqtt.key) for url in mqtt.urls]


class Acknowledgement(msgspec.Struct, frozen=True):
    """A PUBACK or SUBACK: `code` is its MQTT 5 reason code, 0x80 and above for a failure."""

    mid: int
    code: int


class Received(msgspec.Struct, frozen=True):
    """A message that a subscription brought."""

    topic: str
    payload: bytes
    retain: bool
