"""Opens damaged queues in a process of its own, so that a crash or a hang is seen and hurts nobody.

Reads a directory a line from stdin; answers each with a `Finding` as a line of JSON.
"""

import random
import sys
import time
from pathlib import Path

import msgspec

from agent.delivery.disk_queue import DiskQueue
from agent.delivery.record import Entry
from agent.errors import EdgepostError
from agent.health import PartHealth
from tests.faults.harness.records import LANES, SOURCES, make, number_of
from tests.faults.harness.worker import Id, name

NEW_NUMBER = 10**9
WAIT_S = 5.0
READ_AGAIN_S = 0.05


class Finding(msgspec.Struct):
    """What a queue did. `refused`: its EdgepostError; `raised`: any other exception; `stalled`: it took no more."""

    refused: str = ""
    raised: str = ""
    stalled: bool = False
    epoch: str = ""
    counted: int = 0  # dead and dropped
    damaged: int = 0
    delivered: list[Id] = []
    put: list[Id] = []


def look(directory: Path) -> Finding:
    """Open, put something more, deliver everything, close."""
    finding = Finding()
    queue = DiskQueue(directory, PartHealth("queue"), max_bytes=2**30, commit_interval_s=0.0)
    try:
        queue.open()
        _use(queue, finding)
    except EdgepostError as error:
        finding.refused = str(error) or "no text"
    except Exception as error:
        finding.raised = f"{type(error).__name__}: {error}"
    finally:
        queue.close()
    return finding


def _use(queue: DiskQueue, finding: Finding) -> None:
    records = [make(source, NEW_NUMBER, random.Random(NEW_NUMBER)) for source in SOURCES]
    ticket = queue.put(records)
    finding.stalled = not ticket.wait(WAIT_S)
    epoch = queue.epoch
    named = zip(records, ticket.seqs, strict=False)
    finding.put = [(record.topic, epoch, seq, number_of(record)) for record, seq in named]
    entries = _everything(queue)
    finding.delivered = [named for named in map(name, entries) if named[3] != NEW_NUMBER]
    finding.stalled |= not queue.acknowledge([entry.key for entry in entries]).wait(WAIT_S)
    stats = queue.stats()
    finding.epoch, finding.damaged = stats.epoch, stats.damaged
    finding.counted = stats.dead + sum(stats.dropped.values())


def _everything(queue: DiskQueue) -> list[Entry]:
    """What the queue holds; it may take a moment to mend itself."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return [entry for lane in LANES for entry in queue.peek(lane, 0, 100_000)]
        except EdgepostError:
            if time.monotonic() > deadline:
                raise
        time.sleep(READ_AGAIN_S)


if __name__ == "__main__":
    for line in sys.stdin:
        print(msgspec.json.encode(look(Path(line.rstrip("\n")))).decode(), flush=True)
