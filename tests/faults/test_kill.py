"""What holds when the process that uses a queue is killed."""

from pathlib import Path

from tests.faults.harness.kill import kill

ROUNDS = 50


def test_a_kill_loses_mixes_up_and_repeats_nothing_beyond_the_window(tmp_path: Path) -> None:
    tally = kill(tmp_path, ROUNDS, seed=1)
    assert tally.broken == []
    assert tally.rounds == ROUNDS
    assert tally.acknowledged > 10 * ROUNDS
