"""A metered link gets what it may get, and no more, across messages of any size, months and restarts."""

import math
from pathlib import Path

import pytest

from agent.delivery.metering import Metering


class Time:
    def __init__(self) -> None:
        self.now = 100.0
        self.month = "2026-11"


@pytest.fixture
def time() -> Time:
    return Time()


def test_without_bounds_nothing_waits(time: Time) -> None:
    metering = Metering(monotonic=lambda: time.now)
    metering.spend(10**9)
    assert metering.ready_in_s() == 0
    assert metering.left_this_month() is None


def test_the_rate_is_kept_on_average_whatever_the_size(time: Time) -> None:
    metering = Metering(bytes_per_s=1000, monotonic=lambda: time.now)
    sent = 0
    begin = time.now
    for size in (100, 5000, 1, 300, 2600, 999):
        time.now += metering.ready_in_s()
        metering.spend(size)
        sent += size
    time.now += metering.ready_in_s()
    assert sent / (time.now - begin) == pytest.approx(1000)


def test_silence_is_not_saved_up(time: Time) -> None:
    metering = Metering(bytes_per_s=1000, monotonic=lambda: time.now)
    time.now += 3600
    metering.spend(1000)
    assert metering.ready_in_s() == pytest.approx(1.0)


def test_the_month_s_budget_ends_the_sending_until_the_next_also_after_a_restart(time: Time, tmp_path: Path) -> None:
    def start() -> Metering:
        return Metering(
            bytes_per_month=1000, file=tmp_path / "budget", monotonic=lambda: time.now, month=lambda: time.month
        )

    metering = start()
    metering.spend(600)
    assert metering.ready_in_s() == 0
    metering.save()
    metering = start()
    assert metering.left_this_month() == 400
    metering.spend(500)
    assert metering.ready_in_s() == math.inf
    metering.save()
    assert start().ready_in_s() == math.inf
    time.month = "2026-12"
    metering = start()
    assert metering.ready_in_s() == 0
    assert metering.left_this_month() == 1000


def test_it_is_saved_by_itself_now_and_then(time: Time, tmp_path: Path) -> None:
    metering = Metering(bytes_per_month=1000, file=tmp_path / "budget", monotonic=lambda: time.now)
    time.now += 61
    metering.spend(1)
    assert (tmp_path / "budget").exists()


def test_a_file_that_can_not_be_read_counts_as_none(time: Time, tmp_path: Path) -> None:
    (tmp_path / "budget").write_bytes(b"\xff{")
    assert Metering(bytes_per_month=10, file=tmp_path / "budget", monotonic=lambda: time.now).left_this_month() == 10
