"""kill -9 at random moments, while a worker opens the queue, puts, peeks and acknowledges."""

import random
import time
from pathlib import Path

from agent.delivery.disk_queue import DiskQueue
from agent.health import PartHealth
from tests.faults.harness.books import Books
from tests.faults.harness.child import Child
from tests.faults.harness.tally import Progress, Tally, percentile, silent
from tests.faults.harness.worker import Plan

START_S = 30.0
WHILE_OPENING = 0.1  # of the kills
PACES = ((0.1, 64), (0.02, 16), (0.0, 1))  # commit_interval_s, commit_rows


def kill(place: Path, rounds: int, seed: int, progress: Progress = silent) -> Tally:
    """Kill so many workers, one after the other, on one queue."""
    tally, books, reopened_ms = Tally("kill -9"), Books(), list[float]()
    directory = place / "queue"
    spare = Child()
    try:
        for number in range(rounds):
            chance = random.Random(f"{seed}/{number}")
            worker, spare = spare, Child()
            with worker:
                worker.begin(plan := _plan(directory, number, chance))
                lines = [] if chance.random() < WHILE_OPENING else worker.wait_for("ready", START_S)
                time.sleep(chance.uniform(0.0, 0.4))
            books.hear(lines + worker.all_heard())
            reopened_ms.append(_reopen_ms(directory))
            verdict = books.judge(directory)
            tally.enter(number, seed, verdict, plan.window)
            progress(number + 1)
    finally:
        spare.kill()
    tally.acknowledged = books.acknowledged
    tally.notes["reopened in ms"] = f"p50 {percentile(reopened_ms, 50):.0f}, p99 {percentile(reopened_ms, 99):.0f}"
    return tally


def _plan(directory: Path, number: int, chance: random.Random) -> Plan:
    interval_s, rows = chance.choice(PACES)
    seed = chance.getrandbits(32)
    return Plan(str(directory), number, seed, commit_interval_s=interval_s, commit_rows=rows)


def _reopen_ms(directory: Path) -> float:
    queue = DiskQueue(directory, PartHealth("queue"), max_bytes=2**30)
    begin = time.perf_counter()
    queue.open()
    duration_s = time.perf_counter() - begin
    queue.close()
    return 1000 * duration_s
