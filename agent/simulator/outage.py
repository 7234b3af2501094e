"""A window in which the broker is away."""

import re

import msgspec

from agent.errors import UsageError
from drivers.contract import Duration


class Outage(msgspec.Struct, frozen=True):
    """From `start_s` to `end_s` after the first telemetry."""

    start_s: float
    end_s: float


def parse_outage(text: str) -> Outage:
    """Read "5s..15s"; raises UsageError."""
    match = re.fullmatch(r"(.+?)\.\.(.+)", text)
    try:
        start, end = (
            (Duration.parse(part.strip()) for part in (match[1], match[2])) if match else (Duration(), Duration())
        )
    except ValueError as error:
        raise UsageError(f"--outage {text}: {error}") from error
    if not 0 <= start < end:
        raise UsageError(f"--outage {text}: expected two times such as 5s..15s, the first before the second")
    return Outage(start, end)
