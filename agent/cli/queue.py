"""`edgepost queue status`: what the disk queue holds, beside a running agent or without one."""

import argparse

import msgspec

from agent import paths
from agent.cli.output import add_data_dir, add_json, print_json, print_table
from agent.delivery.disk_queue import inspect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    status = actions.add_parser("status", help="how much waits, and what was dropped")
    add_data_dir(status)
    add_json(status)


def run(args: argparse.Namespace) -> int:
    stats = inspect(paths.data_dir(args.data_dir) / "queue")
    if args.json:
        print_json(msgspec.to_builtins(stats))
        return 0
    dropped = ", ".join(f"{count} {reason}" for reason, count in stats.dropped.items()) or "none"
    rows = [
        ("epoch", stats.epoch),
        ("waiting", f"{stats.waiting} messages, {stats.waiting_bytes} bytes"),
        ("put since the queue was made", f"{stats.put} messages"),
        ("put aside as dead", f"{stats.dead} messages"),
        ("dropped", dropped),
        ("damaged databases put aside", stats.damaged),
    ]
    print_table(["figure", "value"], rows)
    return 0
