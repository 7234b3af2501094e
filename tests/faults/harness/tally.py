"""What a fault has cost, counted over its rounds."""

from collections.abc import Callable, Sequence

import msgspec

Progress = Callable[[int], None]
"""Told after each round how many are done."""


def silent(rounds: int) -> None:
    """No progress is shown."""
    del rounds


class Verdict(msgspec.Struct):
    """What one fault did. `duplicates`: entries that were sent before it and will be sent again."""

    lost: int = 0
    duplicates: int = 0
    wrong: list[str] = []


class Tally(msgspec.Struct):
    """`duplicates`: the most after one fault, of at most `window`. `broken`: a line for every promise not kept."""

    fault: str
    rounds: int = 0
    acknowledged: int = 0
    lost: int = 0
    wrong: int = 0
    duplicates: int = 0
    window: int = 0
    broken: list[str] = []
    notes: dict[str, str] = {}

    def enter(self, number: int, seed: int, verdict: Verdict, window: int, where: str = "") -> None:
        """Add what the judge found after a round; `where` says what was special about it."""
        self.rounds += 1
        self.lost += verdict.lost
        self.wrong += len(verdict.wrong)
        self.duplicates = max(self.duplicates, verdict.duplicates)
        self.window = window
        found = verdict.wrong + ([f"{verdict.lost} lost"] if verdict.lost else [])
        if verdict.duplicates > window:
            found.append(f"{verdict.duplicates} duplicates, the window is {window}")
        self.blame(number, seed, [f"{where}: {text}" if where else text for text in found])

    def blame(self, number: int, seed: int, what: Sequence[str]) -> None:
        """Note what was not kept in a round, so that it can be repeated."""
        self.broken += [f"{self.fault}, round {number}, seed {seed}: {text}" for text in what]


def percentile(figures: list[float], percent: int) -> float:
    """The figure that so many percent do not exceed; 0 when there is none."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0.0
