"""Faults of the disk queue by the hundred: `scripts/faults`."""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from tests.faults.harness import media, preload
from tests.faults.harness.clock import clock
from tests.faults.harness.disk import disk
from tests.faults.harness.flips import flips
from tests.faults.harness.kill import kill
from tests.faults.harness.power import power
from tests.faults.harness.tally import Progress, Tally

PROGRESS_S = 5.0
SHOWN = 20


class Campaign(msgspec.Struct, frozen=True):
    """`run(place, rounds, seed, progress)`; `why_not()` says what is missing here, if anything."""

    run: Callable[[Path, int, int, Progress], Tally]
    rounds: int
    why_not: Callable[[], str | None] = lambda: None


CAMPAIGNS: Mapping[str, Campaign] = {
    "kill": Campaign(kill, 2000),
    "power": Campaign(power, 300, media.why_not),
    "disk": Campaign(disk, 300, lambda: media.why_not() or preload.why_not()),
    "flips": Campaign(flips, 5000),
    "clock": Campaign(clock, 500),
}


def main() -> int:
    """Run what was asked for; returns the exit status."""
    logging.getLogger("agent").setLevel(logging.CRITICAL)  # damaged queues complain, as they should
    arguments = _arguments()
    names = list(CAMPAIGNS) if arguments.fault == "all" else [arguments.fault]
    tallies: list[Tally] = []
    for name in names:
        campaign = CAMPAIGNS[name]
        if reason := campaign.why_not():
            print(f"{name}: left out: {reason}", file=sys.stderr)
            continue
        rounds = arguments.rounds or campaign.rounds
        with tempfile.TemporaryDirectory(prefix="ep-") as place:
            tallies.append(campaign.run(Path(place), rounds, arguments.seed, _progress(name, rounds)))
    _print_table(tallies)
    if len(tallies) < len(names):
        return 1
    return int(any(tally.broken for tally in tallies))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/faults", description="Faults of the disk queue by the hundred.")
    parser.add_argument("fault", nargs="?", default="all", choices=[*CAMPAIGNS, "all"])
    parser.add_argument("--rounds", type=int, metavar="N", help="instead of each fault's own number")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all that is random, 1 by default")
    return parser.parse_args()


def _progress(name: str, rounds: int) -> Progress:
    begin = last = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PROGRESS_S and done < rounds:
            return
        last = now
        rate = done / (now - begin)
        left_s = (rounds - done) / rate
        print(f"{name}: {done} of {rounds}, {rate:.2f}/s, {left_s:.0f} s left", file=sys.stderr, flush=True)

    return show


def _print_table(tallies: Sequence[Tally]) -> None:
    for tally in tallies:
        for line in tally.broken[:SHOWN]:
            print(line)
        if len(tally.broken) > SHOWN:
            print(f"{tally.fault}: and {len(tally.broken) - SHOWN} more")
    print(
        "\n| fault | rounds | acknowledged | lost | wrong | most duplicates after one fault | promises broken | notes |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for tally in tallies:
        duplicates = f"{tally.duplicates} of at most {tally.window}" if tally.window else "–"
        notes = "; ".join(f"{name}: {value}" for name, value in tally.notes.items())
        print(
            f"| {tally.fault} | {tally.rounds} | {tally.acknowledged} | {tally.lost} | {tally.wrong} "
            f"| {duplicates} | {len(tally.broken)} | {notes} |"
        )


if __name__ == "__main__":
    sys.exit(main())
