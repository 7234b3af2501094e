"""Power cuts: ext4 is shut down under a working queue without flushing its journal, and mounted again.

What the worker says from the moment of the cut on does not count: it outlives the cut, as nothing would, and a sync
that is under way when the journal is aborted may then return success (jbd2_complete_transaction finds nothing left to
wait for).
"""

import random
import time
from pathlib import Path

from tests.faults.harness.books import Books
from tests.faults.harness.child import Child
from tests.faults.harness.media import Ext4
from tests.faults.harness.tally import Progress, Tally, silent
from tests.faults.harness.worker import Plan

START_S = 30.0
PACES = ((0.1, 64), (0.02, 16), (0.0, 1))  # commit_interval_s, commit_rows


def power(place: Path, rounds: int, seed: int, progress: Progress = silent) -> Tally:
    """Cut the power so many times, of one queue on one file system."""
    tally, books = Tally("power cut"), Books()
    spare = Child()
    try:
        with Ext4(place) as disk:
            for number in range(rounds):
                chance = random.Random(f"{seed}/{number}")
                interval_s, rows = chance.choice(PACES)
                plan = Plan(
                    str(disk.path / "queue"), number, chance.getrandbits(32),
                    commit_interval_s=interval_s, commit_rows=rows,
                )  # fmt: skip
                worker, spare = spare, Child()
                with worker:
                    worker.begin(plan)
                    lines = worker.wait_for("ready", START_S)
                    time.sleep(chance.uniform(0.0, 0.5))
                    cut_at_s = time.monotonic()
                    disk.cut_power()
                books.hear(lines + worker.all_heard(), until_s=cut_at_s)
                disk.unmount()
                disk.mount()
                tally.enter(number, seed, books.judge(disk.path / "queue"), plan.window)
                progress(number + 1)
    finally:
        spare.kill()
    tally.acknowledged = books.acknowledged
    return tally
