"""Readings are joined up to a time and a number, and none waits longer than it has to."""

import itertools

import pytest

from agent.clock import Stamp
from agent.delivery.record import Telemetry
from agent.readings.batch import Batch

SECOND = 10**9


def at(number: int, second: float) -> tuple[Stamp, dict[str, int]]:
    return Stamp(int(second * SECOND), 0), {"n": number}


def joined(interval_s: float, count: int, *, time_s: float = 1.0, size: int = 100) -> list[list[int]]:
    """The numbers of each message when `count` readings come every `interval_s`."""
    messages: list[Telemetry] = []
    batch = Batch("s", messages.append, time_s=time_s, size=size)
    for number in range(count):
        now_s = number * interval_s
        batch.add([at(number, now_s)], int(now_s * SECOND), interval_s)
    batch.flush()
    return [[int(values["n"]) for _, values in message.readings] for message in messages]


@pytest.mark.parametrize("interval_s", [0.999, 1.0, 1.5, 10.0])
def test_a_slow_sensor_is_never_held_back(interval_s: float) -> None:
    assert joined(interval_s, 3) == [[0], [1], [2]]


def test_a_quick_sensor_makes_one_message_in_the_time() -> None:
    messages = joined(0.01, 1000)
    assert 9 <= len(messages) <= 12
    assert list(itertools.chain(*messages)) == list(range(1000))


def test_no_message_is_larger_than_the_size() -> None:
    messages = joined(0.001, 1000, size=64)
    assert max(map(len, messages)) == 64
    assert list(itertools.chain(*messages)) == list(range(1000))


def test_a_block_that_is_larger_than_the_size_is_divided() -> None:
    messages: list[Telemetry] = []
    batch = Batch("s", messages.append, time_s=1.0, size=100)
    batch.add([at(number, 0) for number in range(250)], 0, 5.0)
    assert [len(message.readings) for message in messages] == [100, 100, 50]


def test_no_time_at_all_joins_nothing_but_what_came_together() -> None:
    assert joined(0.01, 3, time_s=0.0) == [[0], [1], [2]]
