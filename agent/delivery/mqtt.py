"""One connection to one broker: the only place that knows paho.

paho is driven from the caller's own thread (`step`), with no thread of its own. So no callback runs under a lock, an
exception can't kill a network thread unseen, and nothing is published twice by paho on its own account: a connection
that ended is never opened again, a new one starts with nothing in it.

Not relied on, because paho does not do them: Receive Maximum and Maximum Packet Size (the uplink checks both), a bound
on what is kept while offline (nothing is published but while connected), a failed PUBACK (read from its reason code),
a keepalive that notices within twice its time (a broker that is silent for 1.5 times is left), and WebSocket frames
that the socket takes in parts (paho drops the packet).
"""

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.delivery import reasons
from agent.delivery.broker import (
    Acknowledgement,
    Broker,
    ConnectionBroken,
    ConnectionLost,
    Protocol,
    ProtocolRefused,
    Received,
    brokers,
)
from agent.delivery.codec import Message
from agent.delivery.tls import read_password, tls_context

__all__ = [  # what others need of a connection, they find here
    "Acknowledgement",
    "Broker",
    "Connection",
    "ConnectionBroken",
    "ConnectionLost",
    "Protocol",
    "ProtocolRefused",
    "Received",
    "brokers",
    "connect",
]

UNSPECIFIED = 0x80  # what paho says of a connection that just ended
UNSUPPORTED_PROTOCOL = 0x84
KEEPALIVE_TIMEOUT = 0x8D
MAX_INFLIGHT = 65535
PATIENCE = 1.5  # keepalives; [MQTT-3.1.2-22] grants a client as much


class Connection:
    """A connection that is opened once, used by one thread, and closed."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        protocol: Protocol,
        *,
        keepalive_s: int = 30,
        will: Message | None = None,
        keep_session: bool = False,
    ) -> None:
        self.url = broker.url
        self.protocol = protocol
        self.receive_maximum = MAX_INFLIGHT
        self.maximum_packet_size: int | None = None
        self._broker = broker
        self._keepalive_s = keepalive_s
        self._will = will
        self._keep_session = keep_session
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if protocol == "5" else not keep_session,
            protocol=MQTTProtocolVersion.MQTTv5 if protocol == "5" else MQTTProtocolVersion.MQTTv311,
            transport="websockets" if broker.parts[0] in {"ws", "wss"} else "tcp",
            reconnect_on_failure=False,
        )
        self._client.max_inflight_messages = MAX_INFLIGHT  # the window is the uplink's
        self._connack: int | None = None
        self._lost: str | None = None
        self._silent = False
        self._heard_s = 0.0
        self._socket_error = ""
        self._events: list[Acknowledgement | Received] = []

    def open(self, timeout_s: float) -> None:
        """Connect and wait for the CONNACK; raises ConnectionLost, ProtocolRefused."""
        scheme, host, port, _ = self._broker.parts
        try:
            self._prepare(timeout_s)
            self._client.connect(host, port, self._keepalive_s, **self._session_options())
        except (OSError, ValueError) as error:
            raise ConnectionLost(f"{self.url}: {reasons.of_failure(error, scheme)}") from error
        self._heard_s = time.monotonic()
        self._prepare_socket()
        self._await_connack(timeout_s)

    def publish(self, message: Message) -> int:
        """Send a message at QoS 1; returns the mid that its acknowledgement will carry. Raises ConnectionLost."""
        properties = None
        if self.protocol == "5":
            properties = _properties(PacketTypes.PUBLISH)
            properties.ContentType = message.content_type
            if message.properties:
                properties.UserProperty = list(message.properties.items())
        info = self._client.publish(message.topic, message.payload, 1, message.retain, properties)
        if info.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE}:
            self._lost = self._lost or paho.error_string(info.rc)
            raise self._loss()
        return info.mid

    def subscribe(self, topic: str) -> None:
        """Ask for a topic at QoS 1; the broker's answer is an Acknowledgement."""
        self._client.subscribe(topic, qos=1)

    def step(self, timeout_s: float, wake_fd: int | None = None) -> list[Acknowledgement | Received]:
        """Do the network's work for up to `timeout_s`, less when something arrives or `wake_fd` becomes readable.

        Returns what arrived; raises ConnectionLost.
        """
        sock: Any = self._client.socket()
        if sock is not None:
            held = bool(getattr(sock, "pending", lambda: 0)())  # by TLS or WebSockets, where select does not see it
            reading = [sock] if wake_fd is None else [sock, wake_fd]
            writing = [sock] if self._client.want_write() else []
            patience_s = 0.0 if held else min(timeout_s, self._until_due_s())
            readable, writable, _ = select.select(reading, writing, [], patience_s)
            if held or sock in readable:
                self._heard_s = time.monotonic()
                self._client.loop_read()
            if writable:
                self._client.loop_write()
            self._client.loop_misc()
            self._check_silence()
        events, self._events = self._events, []
        if not events and (self._lost is not None or self._client.socket() is None):
            raise self._loss()
        return events

    def close(self, *, goodbye: bool = True) -> None:
        """Hang up, without a goodbye where the broker is to publish the will; safe twice and after a failed open."""
        self._client.on_disconnect = None
        if goodbye and self._lost is None:
            with contextlib.suppress(OSError, ValueError):
                self._client.disconnect()
                self._client.loop_misc()
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def _prepare(self, timeout_s: float) -> None:
        """Give paho what it needs to connect; raises OSError for a file that can't be used."""
        scheme, _, _, path = self._broker.parts
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_log = self._on_log
        client.on_socket_close = self._on_socket_close
        client.on_publish = lambda _c, _u, mid, reason, _p: self._events.append(Acknowledgement(mid, reason.value))
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._events.append(Acknowledgement(mid, codes[0].value))
        client.on_message = lambda _c, _u, message: self._events.append(
            Received(message.topic, bytes(message.payload), message.retain)
        )
        client.connect_timeout = timeout_s
        if self._broker.username:
            client.username_pw_set(self._broker.username, read_password(self._broker.password_file))
        if scheme in reasons.TLS:
            client.tls_set_context(tls_context(self._broker.ca, self._broker.cert, self._broker.key))
        if scheme in {"ws", "wss"}:
            client.ws_set_options(path=path)
        if self._will:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=self._will.retain)

    def _session_options(self) -> dict[str, Any]:
        if self.protocol == "3.1.1":
            return {}
        properties = _properties(PacketTypes.CONNECT)
        if self._keep_session:
            properties.SessionExpiryInterval = 3600
        return {"clean_start": not self._keep_session, "properties": properties}

    def _await_connack(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._connack is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ConnectionLost(f"{self.url}: no CONNACK within {timeout_s:g} s: is it an MQTT broker?")
            try:
                self._events += self.step(left)
            except ConnectionBroken as error:
                if not self._refused():
                    doubt = reasons.of_hanging_up(self._socket_error, self._broker.parts[0], self._broker.cert)
                    raise ProtocolRefused(f"{error}{doubt}") from error
                break
        if self._connack == UNSUPPORTED_PROTOCOL:
            raise ProtocolRefused(f"{self.url}: does not speak MQTT {self.protocol}")
        if self._connack:
            raise ConnectionLost(f"{self.url}: refused us: {self._lost}: {reasons.of_refusal(self._connack)}")

    def _refused(self) -> bool:
        """Whether a CONNACK has arrived meanwhile that refuses us."""
        return bool(self._connack)

    def _loss(self) -> ConnectionLost:
        kind = ConnectionLost if self._silent else ConnectionBroken
        return kind(f"{self.url}: connection lost: {self._lost or 'closed'}")

    def _until_due_s(self) -> float:
        """Until something is to be done about a silent broker: ask it (paho does), later leave it."""
        silence_s = time.monotonic() - self._heard_s
        due_s = self._keepalive_s * (1 if silence_s < self._keepalive_s else PATIENCE)
        return max(0.0, due_s - silence_s)

    def _check_silence(self) -> None:
        silence_s = time.monotonic() - self._heard_s
        if self._lost is None and self._connack is not None and silence_s >= self._keepalive_s * PATIENCE:
            self._silent = True
            self._lost = f"silent for {silence_s:.1f} s"

    def _on_connect(
        self, _client: object, _userdata: object, _flags: object, reason: Any, properties: Properties | None
    ) -> None:
        self._connack = reason.value
        if reason.is_failure:
            self._lost = str(reason)
        if properties is not None:
            self.receive_maximum = getattr(properties, "ReceiveMaximum", MAX_INFLIGHT)
            self.maximum_packet_size = getattr(properties, "MaximumPacketSize", None)

    def _on_disconnect(
        self, _client: object, _userdata: object, _flags: object, reason: Any, _properties: Properties | None
    ) -> None:
        self._silent = reason.value == KEEPALIVE_TIMEOUT or reasons.is_network(self._socket_error)
        why = reasons.of_loss(self._socket_error) if reason.value == UNSPECIFIED else str(reason)
        self._lost = self._lost or why

    def _on_log(self, _client: object, _userdata: object, level: int, text: str) -> None:
        """The only way in which paho tells why a socket failed."""
        if level == LogLevel.MQTT_LOG_ERR:
            self._socket_error = text

    def _on_socket_close(self, _client: object, _userdata: object, sock: Any) -> None:
        """In TLS 1.3 a broker refuses our certificate after the handshake: its reason may lie there unread."""
        if self._connack is None:
            try:
                getattr(sock, "_socket", sock).recv(1)
            except OSError as error:
                if reasons.is_alert(str(error)):
                    self._socket_error = str(error)

    def _prepare_socket(self) -> None:
        """No delay; what the peer's kernel does not take shows early; a WebSocket frame goes out whole."""
        sock: Any = self._client.socket()
        if isinstance(sock, paho._WebsocketWrapper):  # noqa: SLF001
            sock.send = _whole(sock.send)  # type: ignore[assignment, method-assign]
        plain = getattr(sock, "_socket", sock)  # paho's WebSocket wrapper
        if isinstance(plain, socket.socket):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._keepalive_s * PATIENCE * 1000))


def connect(make: Callable[[Protocol], Connection], protocols: tuple[Protocol, ...], timeout_s: float) -> Connection:
    """Open a connection with the first of `protocols` that the broker speaks; raises ConnectionLost."""
    for protocol in protocols:
        connection = make(protocol)
        try:
            connection.open(timeout_s)
        except ConnectionLost as error:
            connection.close()
            if isinstance(error, ProtocolRefused) and protocol != protocols[-1]:
                continue
            raise
        return connection
    raise AssertionError("no protocol given")


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]


def _whole(send: Callable[[Any], int]) -> Callable[[bytes], int]:
    """Send all or say that it waits: paho's WebSocket says 0 then, and paho takes that for done."""

    def send_whole(data: bytes) -> int:
        sent = send(data)
        if data and not sent:
            raise BlockingIOError(errno.EAGAIN, "a part of the frame waits")
        return sent

    return send_whole
