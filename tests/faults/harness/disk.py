"""Disks that take nothing for a while: full, read-only, or failing. The queue has to sit it out and then catch up."""

import random
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from tests.faults.harness.books import Books
from tests.faults.harness.broken_disks import BrokenDisk, failing, full, read_only
from tests.faults.harness.child import Child
from tests.faults.harness.preload import build
from tests.faults.harness.tally import Progress, Tally, Verdict, silent
from tests.faults.harness.worker import Line, Plan

START_S = 60.0
SETTLE_S = 1.0
WATCH_S = 2.5
BACK_S = 10.0
MAX_CPU_PERCENT = 5.0
AT_ONCE = 5  # they mostly wait
PACE_S = 0.05

CASES: tuple[Callable[[Path, random.Random, Path], AbstractContextManager[BrokenDisk]], ...] = (
    full,
    failing,
    read_only,
)


class _Round(msgspec.Struct):
    """What came of one fault."""

    number: int
    window: int
    fault: str
    acknowledged: int = 0
    cpu_percent: float = 0.0
    dropped: int = 0
    verdict: Verdict = msgspec.field(default_factory=Verdict)
    broken: list[str] = []


def disk(place: Path, rounds: int, seed: int, progress: Progress = silent) -> Tally:
    """Break and mend so many disks, some at a time, each under a queue and a worker of its own."""
    tally = Tally("disk full, read-only, failing")
    place.mkdir(parents=True, exist_ok=True)
    library = build(place)
    busiest = dropped = 0.0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in pool.map(lambda number: _round(place / str(number), number, seed, library), range(rounds)):
            tally.enter(done.number, seed, done.verdict, done.window)
            tally.blame(done.number, seed, [f"{done.fault}: {what}" for what in done.broken])
            tally.acknowledged += done.acknowledged
            busiest = max(busiest, done.cpu_percent)
            dropped += done.dropped
            progress(tally.rounds)
    tally.notes = {"most CPU while broken": f"{busiest:.1f} %", "dropped and counted": f"{dropped:.0f}"}
    return tally


def _round(place: Path, number: int, seed: int, library: Path) -> _Round:
    chance = random.Random(f"{seed}/{number}")
    place.mkdir()
    with CASES[number % len(CASES)](place, chance, library) as broken_disk:
        plan = Plan(
            str(broken_disk.path / "queue"), 0, chance.getrandbits(32),
            may_drop=chance.random() < 0.7, online=chance.random() < 0.5, batch=4, pause_s=PACE_S,
        )  # fmt: skip
        done = _Round(number, plan.window, f"{broken_disk.name}, may_drop={plan.may_drop}, online={plan.online}")
        books = Books()
        with Child(broken_disk.environment) as worker, Child() as successor:
            try:
                _work_through(done, broken_disk, plan, worker, successor, books)
            except TimeoutError as error:
                done.broken.append(str(error))
        done.acknowledged = books.acknowledged
    shutil.rmtree(place)
    return done


def _work_through(
    done: _Round, broken_disk: BrokenDisk, plan: Plan, worker: Child, successor: Child, books: Books
) -> None:
    worker.begin(plan)
    lines = worker.wait_for("put", START_S)
    time.sleep(SETTLE_S)
    lines += worker.all_heard()
    broken_disk.break_()
    time.sleep(SETTLE_S)
    lines += worker.all_heard()
    done.cpu_percent = worker.cpu_percent(WATCH_S)
    while_broken = worker.all_heard()
    if not worker.runs():
        done.broken.append(f"the process ended: {worker.complaint()}")
    if done.cpu_percent > MAX_CPU_PERCENT:
        done.broken.append(f"used {done.cpu_percent:.1f} % of a core, at most {MAX_CPU_PERCENT:g} % is allowed")
    if broken_disk.survives:
        broken_disk.mend()
    else:  # its files can't be open any longer
        worker.kill()
        books.hear(lines + while_broken + worker.all_heard())
        broken_disk.mend()
        done.verdict = books.judge(Path(plan.directory))
        worker, lines = successor, []
        worker.begin(msgspec.structs.replace(plan, run=1, batches=0))
    begin = time.monotonic()
    worker.order("finish")
    status = worker.wait(BACK_S)
    if status is None:
        done.broken.append(f"not drained {time.monotonic() - begin:.0f} s after the disk was back")
        worker.kill()
    lines += while_broken if broken_disk.survives else []
    _settle(done, books, lines + worker.all_heard(), Path(plan.directory), worker.complaint())


def _settle(done: _Round, books: Books, lines: list[Line], directory: Path, complaint: str) -> None:
    """After the end: whatever is missing must have been counted as dropped, no more and no less."""
    books.hear(lines)
    verdict = books.judge(directory)
    ends = [line.items for line in lines if line.kind == "end"]
    if not ends:
        done.broken.append(f"the worker did not come to its end: {complaint}")
    done.dropped = sum(ends[0][0].values()) + ends[0][1] if ends else 0
    if ends and verdict.lost != done.dropped:
        done.broken.append(f"{verdict.lost} are missing, {done.dropped} are counted as dropped")
    if len(books.epochs()) > 1:
        done.broken.append("a new epoch was begun though nothing was damaged")
    verdict.lost = max(0, verdict.lost - done.dropped) + done.verdict.lost
    verdict.duplicates = max(verdict.duplicates, done.verdict.duplicates)
    verdict.wrong = done.verdict.wrong + verdict.wrong
    done.verdict = verdict
