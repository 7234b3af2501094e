"""`edgepost status`: what a running agent says of itself."""

import argparse
from typing import Any

from agent import paths
from agent.cli.output import add_json, add_runtime_dir, print_json, print_table
from agent.control_socket import ask

COMMON = {"state", "errors", "last_ok_s", "last_error"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runtime_dir(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    status = ask(paths.runtime_dir(args.runtime_dir))
    if args.json:
        print_json(status)
        return 0
    queue = status["queue"]
    print(
        f"{status['device']}  pid {status['pid']}  {queue['waiting']} messages wait ({queue['waiting_bytes']} bytes)\n"
    )
    rows = [_row(name, part) for name, part in sorted(status["parts"].items())]
    print_table(["part", "state", "last success", "errors", "figures"], rows)
    return 0


def _row(name: str, part: dict[str, Any]) -> list[object]:
    age = "never" if part["last_ok_s"] is None else f"{part['last_ok_s']:g} s ago"
    figures = [f"{key}={value}" for key, value in part.items() if key not in COMMON]
    if part["state"] == "failing":
        figures.append(part["last_error"])
    return [name, part["state"], age, part["errors"], "  ".join(figures)]
