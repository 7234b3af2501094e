"""Bytes that flip in the database and its write-ahead log while nobody has it open."""

import random
import shutil
from collections import Counter
from pathlib import Path

import msgspec

from agent.delivery.disk_queue import DiskQueue
from agent.health import PartHealth
from tests.faults.harness.examiner import Examiner
from tests.faults.harness.flip_judge import Finding
from tests.faults.harness.records import LANES, SOURCES, make
from tests.faults.harness.tally import Progress, Tally, Verdict, silent
from tests.faults.harness.worker import Id, name

ROUNDS_A_QUEUE = 25
REPORTED = 3
COMMIT_S = 30.0
SPREADS = (1, 1, 1, 2, 8, 512)  # bytes that are hit


class Sample(msgspec.Struct, frozen=True):
    """A queue to damage: what it holds, and the highest seq ever given to each topic."""

    directory: Path
    epoch: str
    held: list[Id]
    seqs: dict[str, int]


def flips(place: Path, rounds: int, seed: int, progress: Progress = silent) -> Tally:
    """Damage copies of queues, each in another way, and look what becomes of them."""
    tally, outcomes = Tally("byte flips"), Counter[str]()
    examiner = Examiner()
    try:
        for number in range(rounds):
            if number % ROUNDS_A_QUEUE == 0:
                sample = _sample(place / "sample", random.Random(f"{seed}/sample/{number}"))
            copy = place / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(sample.directory, copy)
            where = _flip(copy, random.Random(f"{seed}/{number}"))
            finding = examiner.look(copy)
            outcome, verdict = _judge(sample, finding)
            again = examiner.look(copy)
            if again.raised or again.stalled:
                verdict.wrong.append(f"opened once more: {again.raised or 'took no more'}")
            kept = not verdict.wrong and not verdict.lost
            outcomes[outcome if kept else "broken"] += 1
            tally.acknowledged += len(sample.held)
            tally.enter(number, seed, verdict, window=0, where=where)
            progress(number + 1)
    finally:
        examiner.close()
    tally.notes = {outcome: str(count) for outcome, count in outcomes.most_common()}
    return tally


def _sample(directory: Path, chance: random.Random) -> Sample:
    """A queue that was used for a while and then closed, or left as a kill leaves it."""
    shutil.rmtree(directory, ignore_errors=True)
    working = directory.with_name("working")
    shutil.rmtree(working, ignore_errors=True)
    queue = DiskQueue(working, PartHealth("queue"), max_bytes=2**30, commit_interval_s=0.0)
    queue.open()
    seqs: dict[str, int] = {}
    for number in range(chance.randint(20, 300)):
        record = make(chance.choice(SOURCES), number, chance)
        ticket = queue.put([record])
        assert ticket.wait(COMMIT_S)
        seqs[record.topic] = ticket.seqs[0]
        if chance.random() < 0.3:
            oldest = queue.peek(chance.choice(LANES), 0, 1)
            assert queue.acknowledge([entry.key for entry in oldest]).wait(COMMIT_S)
    held = [entry for lane in LANES for entry in queue.peek(lane, 0, 100_000)]
    if chance.random() < 0.5:
        queue.close()
    _copy_database(working, directory)
    queue.close()
    return Sample(directory, queue.epoch, [name(entry) for entry in held], seqs)


def _copy_database(working: Path, directory: Path) -> None:
    directory.mkdir(parents=True)
    for each in ("cache.db", "cache.db-wal"):
        if (working / each).exists():
            shutil.copy(working / each, directory / each)


def _flip(directory: Path, chance: random.Random) -> str:
    """Change some bytes of a file; returns what was changed."""
    files = [path for path in sorted(directory.iterdir()) if path.name.startswith("cache.db") and path.stat().st_size]
    path = chance.choice(files)
    content = bytearray(path.read_bytes())
    spread = chance.choice(SPREADS)
    start = chance.randrange(len(content))
    if spread == 512:
        start -= start % 512  # a sector
    places = range(start, min(start + spread, len(content))) if chance.random() < 0.5 or spread == 512 else [
        chance.randrange(len(content)) for _ in range(spread)
    ]  # fmt: skip
    for each in places:
        content[each] ^= chance.randint(1, 255)
    path.write_bytes(content)
    return f"{path.name} of {len(content)} bytes, {len(places)} from {places[0]}"


def _judge(sample: Sample, finding: Finding) -> tuple[str, Verdict]:
    """How it came out, and every promise that was not kept."""
    if finding.raised:
        return "broken", Verdict(wrong=[f"raised {finding.raised}"])
    if finding.refused:
        return "refused", Verdict()
    if finding.stalled:
        return "broken", Verdict(wrong=["stalled: it opens, and takes nothing more"])
    missing = len(set(sample.held) - set(finding.delivered))
    noticed = finding.epoch != sample.epoch or bool(finding.damaged) or finding.counted >= max(missing, 1)
    verdict = Verdict(wrong=_wrong(sample, finding, noticed=noticed)[:REPORTED])
    if missing and not noticed:
        verdict.lost = missing
        verdict.wrong.append(f"silent gap: {missing} of {len(sample.held)} messages are missing, nothing is counted")
    if finding.epoch != sample.epoch:
        return "new epoch", verdict
    return ("gap counted" if missing else "unharmed"), verdict


def _wrong(sample: Sample, finding: Finding, *, noticed: bool) -> list[str]:
    """Whatever was delivered must be what was put, under its own name, once, in order; and new names must be new."""
    known = {(topic, epoch, seq): number for topic, epoch, seq, number in sample.held}
    found: list[str] = []
    last: dict[tuple[str, str], int] = {}
    for topic, epoch, seq, number in finding.delivered:
        given = epoch == sample.epoch and seq <= sample.seqs.get(topic, 0)
        if number is None or known.get((topic, epoch, seq), number) != number:
            found.append(f"wrong payload: {topic} {seq} holds number {number}")
        elif not given:
            found.append(f"wrong name: {topic} {epoch} {seq} was never put")
        elif (topic, epoch, seq) not in known and not noticed:
            found.append(f"wrong: {topic} {seq} is back though it was acknowledged")
        if seq <= last.get((topic, epoch), 0):
            found.append(f"wrong order: {topic} {seq} after {last[topic, epoch]}")
        last[topic, epoch] = seq
    for topic, epoch, seq, _ in finding.put:
        if epoch == sample.epoch and seq <= sample.seqs.get(topic, 0):
            found.append(f"wrong name: {topic} {seq} is given a second time")
    return found
