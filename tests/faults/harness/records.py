"""Records that prove themselves: each carries its source, its number and a hash of both and of its content."""

import hashlib
import random
from collections.abc import Mapping
from typing import Any

from agent.clock import Clock
from agent.delivery.record import Event, Lane, Record, Telemetry
from drivers.contract import Value

SOURCES = ("gps", "meter", "gate")
LANES = (Lane.EVENT, Lane.TELEMETRY)


def make(source: str, number: int, chance: random.Random, size: int = 800) -> Record:
    """A record of up to `size` random letters; those of `gate` are events."""
    filler = f"{chance.getrandbits(4 * chance.randint(1, size)):x}"
    content: dict[str, Value] = {"number": number, "filler": filler, "hash": _hash(source, number, filler)}
    if source == "gate":
        return Event(source, "motion", content, Clock().now())
    return Telemetry(source, [(Clock().now(), content)])


def number_of(record: Record) -> int | None:
    """The number of a record made here; None when it is not what was made."""
    try:
        content: Mapping[str, Any] = record.data if isinstance(record, Event) else record.readings[0][1]
        number = content["number"]
        whole = content["hash"] == _hash(record.source, number, content["filler"])
    except (IndexError, KeyError, TypeError):
        return None
    return int(number) if whole else None


def _hash(source: str, number: object, filler: object) -> str:
    return hashlib.blake2b(f"{source}/{number}/{filler}".encode(), digest_size=8).hexdigest()
