"""The judge's books: what a queue has promised, what was delivered, and whether it adds up after a fault."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.delivery.disk_queue import DiskQueue
from agent.health import PartHealth
from tests.faults.harness.records import LANES
from tests.faults.harness.tally import Verdict
from tests.faults.harness.worker import Line, name

EVERYTHING = 1_000_000

Topic = tuple[str, str]
"""Topic and epoch."""


class Seqs:
    """A set of seqs that is small when it has few gaps."""

    def __init__(self) -> None:
        self._up_to = 0
        self._above: set[int] = set()

    def add(self, seq: int) -> None:
        if seq in self:
            return
        self._above.add(seq)
        while self._up_to + 1 in self._above:
            self._up_to += 1
            self._above.remove(self._up_to)

    def __contains__(self, seq: int) -> bool:
        return seq <= self._up_to or seq in self._above

    def gaps(self, others: Iterable[int] = ()) -> int:
        """How many seqs from 1 to the highest are neither here nor among the others."""
        above = self._above.union(seq for seq in others if seq > self._up_to)
        return max(above) - self._up_to - len(above) if above else 0


class Books:
    """The books on one queue, over any number of workers and faults."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.wrong: list[str] = []
        self._owed: dict[Topic, dict[int, int]] = defaultdict(dict)  # seq → number: promised and not delivered
        self._in_flight: dict[Topic, dict[int, int]] = defaultdict(dict)  # delivered, not known to be deleted
        self._gone: dict[Topic, Seqs] = defaultdict(Seqs)
        self._last: dict[Topic, tuple[int, int]] = {}

    def hear(self, lines: Sequence[Line], until_s: float = math.inf) -> None:
        """Enter what one worker has said, up to a moment of the monotonic clock."""
        self._last.clear()
        enter = {"put": self._enter_put, "sent": self._enter_sent, "gone": self._enter_gone}
        for line in lines:
            for topic, epoch, seq, number in line.items if line.kind in enter and line.at_s < until_s else ():
                enter[line.kind]((topic, epoch), seq, number)

    def judge(self, directory: Path) -> Verdict:
        """Read the queue as the fault has left it, and see whether it holds what it should."""
        queue = DiskQueue(directory, PartHealth("queue"), max_bytes=2**30)
        try:
            queue.open()
            found = [name(entry) for lane in LANES for entry in queue.peek(lane, 0, EVERYTHING)]
        finally:
            queue.close()
        verdict, self.wrong = Verdict(wrong=self.wrong), []
        kept: dict[Topic, dict[int, int]] = defaultdict(dict)
        for topic, epoch, seq, number in found:
            self._check((topic, epoch), seq, number, kept, verdict)
        for place in self._owed.keys() | self._in_flight.keys() | kept.keys():
            self._settle(place, kept[place], verdict)
        self._owed = kept
        self._in_flight.clear()
        return verdict

    def epochs(self) -> set[str]:
        """All epochs that anything was put under."""
        return {epoch for _, epoch in (*self._owed, *self._in_flight, *self._gone)}

    def _check(
        self, place: Topic, seq: int, number: int | None, kept: dict[Topic, dict[int, int]], verdict: Verdict
    ) -> None:
        known = self._owed[place].get(seq, self._in_flight[place].get(seq, number))
        if number is None or number != known:
            verdict.wrong.append(f"{place[0]} {seq} holds number {number}, {known} was put")
            return
        if seq in self._gone[place] or seq in kept[place]:
            verdict.wrong.append(f"{place[0]} {seq} is there again though its deletion was on disk")
        earlier = kept[place]
        if earlier and (next(reversed(earlier)) > seq or next(reversed(earlier.values())) > number):
            verdict.wrong.append(f"{place[0]} {seq} lies behind {next(reversed(earlier))}")
        earlier[seq] = number

    def _settle(self, place: Topic, kept: dict[int, int], verdict: Verdict) -> None:
        in_flight, gone = self._in_flight[place], self._gone[place]
        verdict.duplicates += sum(seq in in_flight for seq in kept)
        for seq in in_flight:
            if seq not in kept:
                gone.add(seq)
        verdict.lost += gone.gaps(kept.keys() | self._owed[place].keys())  # never heard of, but a gap nevertheless
        verdict.lost += sum(seq not in kept and seq not in gone for seq in self._owed[place])

    def _enter_put(self, place: Topic, seq: int, number: int) -> None:
        self.acknowledged += 1
        if seq in self._in_flight[place]:  # it was sent before the worker could say that it is on disk
            self._expect(place, seq, number, self._in_flight[place][seq])
        elif seq not in self._gone[place]:
            self._owed[place][seq] = number

    def _enter_sent(self, place: Topic, seq: int, number: int | None) -> None:
        if number is None or not self._expect(place, seq, number, self._owed[place].pop(seq, number)):
            self.wrong.append(f"{place[0]} {seq} was delivered with number {number}")
            return
        if seq in self._gone[place]:
            self.wrong.append(f"{place[0]} {seq} was delivered again though its deletion was on disk")
        if place in self._last and not (self._last[place][0] < seq and self._last[place][1] < number):
            self.wrong.append(f"{place[0]} {seq} was delivered after {self._last[place][0]}")
        self._last[place] = (seq, number)
        self._in_flight[place][seq] = number

    def _enter_gone(self, place: Topic, seq: int, number: int) -> None:
        del number
        self._in_flight[place].pop(seq, None)
        self._gone[place].add(seq)

    def _expect(self, place: Topic, seq: int, found: int, known: int) -> bool:
        if found != known:
            self.wrong.append(f"{place[0]} {seq} holds number {found}, {known} was put")
        return found == known
