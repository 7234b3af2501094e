"""A broker that does what a test tells it to: enough of MQTT 3.1.1 and 5 to misbehave on purpose, on a real socket."""

import socket
import struct
import threading
from collections.abc import Callable
from typing import NamedTuple

CONNECT, PUBLISH, PINGREQ, DISCONNECT = 1, 3, 12, 14


class Publish(NamedTuple):
    """A PUBLISH as it came."""

    topic: str
    payload: bytes
    mid: int
    connection: int
    retain: bool
    properties: bytes


Answer = Callable[[Publish], int | type[ConnectionError] | None]
"""The reason code of the PUBACK, None for no answer, ConnectionError to hang up instead."""


class ScriptedBroker:
    """Listens on 127.0.0.1 from construction to `close`; `received` holds every PUBLISH in order."""

    def __init__(
        self,
        answer: Answer = lambda _: 0,
        *,
        connack: int = 0,
        properties: bytes = b"",
        only_3_1_1: int | type[ConnectionError] | None = None,
    ) -> None:
        """`connack` is the reason code for every CONNECT, `properties` are those of its CONNACK on MQTT 5.

        `only_3_1_1` is what MQTT 5 gets: a reason code, or ConnectionError for hanging up.
        """
        self.answer = answer
        self.connack = connack
        self.received: list[Publish] = []
        self.connections = 0
        self.most_unanswered = 0
        self._properties = properties
        self._only_3_1_1 = only_3_1_1
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for client in self._clients:
            client.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client, self.connections), daemon=True).start()

    def _serve(self, client: socket.socket, number: int) -> None:
        version = 4
        unanswered = 0
        with client, client.makefile("rb") as stream:
            try:
                while first := stream.read(1):
                    kind, flags = first[0] >> 4, first[0] & 15
                    body = stream.read(_length(stream.read))
                    if kind == CONNECT:
                        version = body[6]
                        if version == 5 and self._only_3_1_1 is not None:
                            if isinstance(self._only_3_1_1, int):
                                client.sendall(bytes([0x20, 3, 0, self._only_3_1_1, 0]))
                            return
                        extra = bytes([len(self._properties)]) + self._properties if version == 5 else b""
                        client.sendall(bytes([0x20, 2 + len(extra), 0, self.connack]) + extra)
                    elif kind == PUBLISH:
                        message = _publish(body, flags, version, number)
                        self.received.append(message)
                        reason = self.answer(message)
                        if reason is ConnectionError:
                            return
                        if isinstance(reason, int):
                            code = bytes([reason]) if version == 5 else b""
                            client.sendall(bytes([0x40, 2 + len(code)]) + struct.pack(">H", message.mid) + code)
                        else:
                            unanswered += 1
                            self.most_unanswered = max(self.most_unanswered, unanswered)
                    elif kind == PINGREQ:
                        client.sendall(b"\xd0\0")
                    elif kind == DISCONNECT:
                        return
            except OSError:
                return


def _length(read: Callable[[int], bytes]) -> int:
    value = shift = 0
    while True:
        byte = read(1)[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value


def _publish(body: bytes, flags: int, version: int, connection: int) -> Publish:
    (size,) = struct.unpack_from(">H", body)
    topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
    mid = 0
    if flags >> 1 & 3:
        (mid,) = struct.unpack_from(">H", rest)
        rest = rest[2:]
    properties = b""
    if version == 5:
        cursor = iter(range(len(rest)))
        length = _length(lambda _: rest[(at := next(cursor)) : at + 1])
        start = next(cursor)
        properties, rest = rest[start : start + length], rest[start + length :]
    return Publish(topic, rest, mid, connection, bool(flags & 1), properties)
