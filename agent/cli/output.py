"""How commands print: tables for people, `--json` for programs."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give a command the option `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def add_runtime_dir(parser: argparse.ArgumentParser) -> None:
    """Give a command the option `--runtime-dir`."""
    parser.add_argument("--runtime-dir", type=Path, metavar="DIR", help="where the agent keeps rings and sockets")


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Give a command the option `--data-dir`."""
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the agent keeps its queue and state")


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a heading, each column as wide as it needs."""
    lines = [[str(cell) for cell in row] for row in ([column.upper() for column in columns], *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
