"""Queued messages as JSON lines: what `edgepost queue export` writes and `import` reads.

A line is `{"topic", "epoch", "seq", "boot", "record"}`. The record says its `kind`; stamps are nanoseconds, since boot
and since 1970. `reason` and `number` tell of a message that is dead, and mean nothing to `import`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from agent.clock import Stamp
from agent.config import Name
from agent.delivery.ledger import Refused, Stored, item
from agent.delivery.record import Entry, Event, Telemetry
from drivers.contract import Value

_Text = Annotated[str, msgspec.Meta(pattern=r"^[!-~][ -~]{0,63}\Z", extra={"expected": "1 to 64 of ASCII"})]
_Nanoseconds = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class StampLine(msgspec.Struct, forbid_unknown_fields=True):
    """A moment by both clocks."""

    boot_ns: _Nanoseconds
    real_ns: _Nanoseconds


class ReadingLine(msgspec.Struct, forbid_unknown_fields=True):
    """What was read at a moment."""

    stamp: StampLine
    values: Mapping[str, Value | None]  # None: not a number


class TelemetryLine(msgspec.Struct, tag_field="kind", tag="telemetry", forbid_unknown_fields=True):
    """Readings of a source."""

    source: Name
    readings: Annotated[Sequence[ReadingLine], msgspec.Meta(min_length=1)]


class EventLine(msgspec.Struct, tag_field="kind", tag="event", forbid_unknown_fields=True):
    """Something that happened."""

    source: Name
    type: Name
    data: Any
    stamp: StampLine
    ts_ms: float | None = None


class Line(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A message, named for good by topic, epoch and seq."""

    topic: str
    epoch: _Text
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    boot: _Text
    record: TelemetryLine | EventLine
    number: int = 0
    reason: str = ""


_decode = msgspec.json.Decoder(Line).decode


def to_line(entry: Entry, number: int = 0, reason: str = "") -> Line:
    """An entry of the queue as a line."""
    record = entry.record
    line: TelemetryLine | EventLine
    if isinstance(record, Telemetry):
        readings = [ReadingLine(_stamp_line(stamp), values) for stamp, values in record.readings]
        line = TelemetryLine(record.source, readings)
    else:
        line = EventLine(record.source, record.type, record.data, _stamp_line(record.stamp), record.ts_ms)
    return Line(record.topic, entry.epoch, entry.seq, entry.boot, line, number, reason)


def to_stored(line: Line) -> Stored:
    """A line as it goes into the queue; raises Refused when it contradicts itself or can't be kept."""
    record = line.record
    made: Telemetry | Event
    if isinstance(record, TelemetryLine):
        readings: Any = [(_stamp(each.stamp), _numbers(each.values)) for each in record.readings]
        made = Telemetry(record.source, readings)
    else:
        made = Event(record.source, record.type, record.data, _stamp(record.stamp), record.ts_ms)
    if made.topic != line.topic:
        raise Refused(f"topic: found {line.topic!r}, expected {made.topic!r}, which its record says")
    try:
        body = item(made).body
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Refused(f"a value can't be stored: {error}") from error
    return Stored(line.epoch, line.seq, line.boot, msgspec.Raw(body))


def parse(text: bytes) -> Line:
    """A line of a file; raises Refused that says what is wrong with it."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(str(error)) from error


def encode(line: Line) -> bytes:
    """A line of a file, its end included; raises ValueError, TypeError or RecursionError for what JSON can't hold."""
    return msgspec.json.encode(line) + b"\n"


def plain(line: Line) -> dict[str, Any]:
    """A line as JSON values."""
    values: dict[str, Any] = json.loads(msgspec.json.encode(line))
    return values


def _stamp_line(stamp: Stamp) -> StampLine:
    return StampLine(stamp.boot_ns, stamp.real_ns)


def _stamp(line: StampLine) -> Stamp:
    return Stamp(line.boot_ns, line.real_ns)


def _numbers(values: Mapping[str, Value | None]) -> Mapping[str, Value]:
    return {name: float("nan") if value is None else value for name, value in values.items()}
