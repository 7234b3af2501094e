"""What holds when the wall clock is set while the queue works."""

from pathlib import Path

from tests.faults.harness.clock import clock

ROUNDS = 20


def test_a_wall_clock_that_jumps_by_years_loses_reorders_and_delays_nothing(tmp_path: Path) -> None:
    tally = clock(tmp_path, ROUNDS, seed=1)
    assert tally.broken == []
    assert tally.rounds == ROUNDS
    assert tally.acknowledged > ROUNDS
