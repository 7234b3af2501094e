"""From a record to what is published: topic, payload and, on MQTT 5, its properties."""

from collections.abc import Mapping

import msgspec

from agent.clock import Stamp
from agent.delivery.compression import compress
from agent.delivery.record import Entry, Telemetry

_encode = msgspec.json.Encoder().encode


class Message(msgspec.Struct, frozen=True):
    """One MQTT message, QoS 1. `properties` go along as user properties where the broker speaks MQTT 5."""

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str = "application/json"
    properties: Mapping[str, str] = {}


class JsonCodec:
    """Writes the JSON of the topic table: `ts` is Unix time in milliseconds, fractions allowed."""

    def __init__(self, root: str, device: str, compression: str = "none") -> None:
        self.prefix = f"{root}/{device}"
        self._device = device
        self._compression = compression

    def encode(self, entry: Entry) -> Message:
        """The message of an entry; (topic, epoch, seq) lets a receiver drop duplicates and see gaps."""
        record = entry.record
        body: dict[str, object] = {
            "device": self._device,
            "source": record.source,
            "epoch": entry.epoch,
            "seq": entry.seq,
        }
        if isinstance(record, Telemetry):
            body["readings"] = [{"ts": unix_ms(stamp), "values": values} for stamp, values in record.readings]
        else:
            ts = unix_ms(record.stamp) if record.ts_ms is None else record.ts_ms
            body |= {"ts": ts, "type": record.type, "data": record.data}
        payload, encoding = compress(_encode(body), self._compression)
        properties = {"epoch": entry.epoch, "seq": str(entry.seq)}
        if encoding:
            properties["content-encoding"] = encoding
        return Message(f"{self.prefix}/{record.topic}", payload, properties=properties)


def unix_ms(stamp: Stamp) -> float:
    """Milliseconds since 1970, to the microsecond."""
    return round(stamp.real_ns / 1e6, 3)
