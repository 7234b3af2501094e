"""A wall clock that jumps by up to ten years either way while a worker puts, peeks and acknowledges."""

import random
from pathlib import Path

from tests.faults.harness.books import Books
from tests.faults.harness.child import Child
from tests.faults.harness.tally import Progress, Tally, silent
from tests.faults.harness.worker import Plan

JUMPS_A_RUN = 10
STALL_S = 10.0
START_S = 30.0
PAUSES_S = (0.25, 0.01)  # between puts: the queue falls idle, or has work all the time


def clock(place: Path, rounds: int, seed: int, progress: Progress = silent) -> Tally:
    """Let the wall clock jump so many times under one queue; every few jumps the queue is closed and opened again."""
    tally, books = Tally("wall clock ±10 years"), Books()
    directory = place / "queue"
    while tally.rounds < rounds:
        run = tally.rounds // JUMPS_A_RUN
        jumps = min(JUMPS_A_RUN, rounds - tally.rounds)
        chance = random.Random(f"{seed}/{run}")
        pause_s = PAUSES_S[run % len(PAUSES_S)]
        plan = Plan(str(directory), run, chance.getrandbits(32), jumps=jumps, batches=2 * jumps, pause_s=pause_s)
        lines = []
        with Child() as worker:
            worker.begin(plan)
            try:
                lines += worker.wait_for("ready", START_S)
                for _ in range(jumps):
                    lines += worker.wait_for("jump", STALL_S)
                    tally.rounds += 1
                    progress(tally.rounds)
                lines += worker.wait_for("end", STALL_S)
            except TimeoutError as error:
                tally.blame(tally.rounds, seed, [f"stalled: {error}"])
                return tally
        books.hear(lines)
        verdict = books.judge(directory)
        tally.rounds -= 1
        tally.enter(tally.rounds, seed, verdict, plan.window)
    tally.acknowledged = books.acknowledged
    return tally
