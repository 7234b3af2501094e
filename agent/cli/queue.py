"""`edgepost queue`: what the disk queue holds, beside a running agent or without one, and what may be done about it."""

import argparse
import heapq
import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec

from agent import paths
from agent.cli.output import add_data_dir, add_json, add_runtime_dir, print_json, print_table
from agent.cli.queue_files import export, import_
from agent.cli.queue_writer import QueueWriter
from agent.clock import Clock, Stamp
from agent.delivery import inspection
from agent.delivery.disk_queue import inspect
from agent.delivery.interchange import plain, to_line
from agent.delivery.maintenance import age_s
from agent.delivery.record import Lane
from agent.errors import EdgepostError, UsageError
from drivers.contract import Duration

LANES = {lane.name.lower(): lane for lane in Lane}
MAX_LIMIT = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    status = actions.add_parser("status", help="how much waits, and what was dropped")
    peek = actions.add_parser("peek", help="what waits, oldest first")
    dead = actions.add_parser("dead", help="what was put aside because no broker takes it")
    out = actions.add_parser("export", help="write what waits as JSON lines")
    back = actions.add_parser("import", help="put exported messages back")
    drop = actions.add_parser("drop", help="delete what waits")
    for command in (status, peek, dead, out, back, drop):
        add_data_dir(command)
    for command in (status, peek, dead):
        add_json(command)
    for command in (dead, back, drop):
        add_runtime_dir(command)
    for command in (peek, drop):
        command.add_argument("--lane", choices=list(LANES), help="this lane only")
    for command in (peek, dead):
        command.add_argument("--limit", type=int, default=20, metavar="N", help="how many to show (default: 20)")
    change = dead.add_mutually_exclusive_group()
    change.add_argument("--requeue", metavar="NUMBER|all", help="send again, under the old epoch and seq")
    change.add_argument("--delete", metavar="NUMBER|all", help="forget")
    out.add_argument("file", metavar="FILE", type=Path)
    out.add_argument("--dead", action="store_true", help="what was put aside instead of what waits")
    back.add_argument("file", metavar="FILE", type=Path)
    drop.add_argument("--older-than", metavar="TIME", help="only what is older, as in 90m or 2d")
    drop.add_argument("--yes", action="store_true", help="do it; without, say what would be deleted")


def run(args: argparse.Namespace) -> int:
    """Carry out one of them."""
    data = paths.data_dir(args.data_dir)
    if args.action == "status":
        return _status(data / "queue", as_json=args.json)
    if args.action == "peek":
        return _peek(data / "queue", args.lane, _limit(args.limit), as_json=args.json)
    if args.action == "export":
        return export(data / "queue", args.file, dead=args.dead)
    if args.action == "dead" and args.requeue is None and args.delete is None:
        return _dead(data / "queue", _limit(args.limit), as_json=args.json)
    return _change(data, paths.runtime_dir(args.runtime_dir), args)


def _change(data: Path, runtime: Path, args: argparse.Namespace) -> int:
    if args.action == "import":
        return import_(data, runtime, args.file)
    if args.action == "drop":
        return _drop(data, runtime, args)
    if args.requeue is not None:
        return _requeue(data, runtime, args.requeue)
    return _delete(data, runtime, args.delete)


def _status(queue: Path, *, as_json: bool) -> int:
    stats = inspect(queue)
    if as_json:
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


def _peek(queue: Path, lane: str | None, limit: int, *, as_json: bool) -> int:
    now = Clock().now()
    lanes = [LANES[lane]] if lane else list(Lane)
    total = sum(inspection.extent(queue, each).count for each in lanes)
    waiting = [inspection.waiting(queue, each) for each in lanes]
    rows = islice(heapq.merge(*waiting, key=lambda row: -_age(row, now)), limit)
    _show((_describe(row, now, as_json=as_json) for row in rows), as_json=as_json, total=total, nothing="nothing waits")
    return 0


def _dead(queue: Path, limit: int, *, as_json: bool) -> int:
    now = Clock().now()
    total = sum(1 for _ in inspection.dead(queue))
    rows = islice(inspection.dead(queue), limit)
    described = ({"number": row.number, "reason": row.reason} | _describe(row, now, as_json=as_json) for row in rows)
    _show(described, as_json=as_json, total=total, nothing="nothing was put aside")
    return 0


def _describe(row: inspection.Waiting | inspection.Dead, now: Stamp, *, as_json: bool) -> dict[str, Any]:
    """The columns of a message; with its record for JSON."""
    entry = row.entry
    columns: dict[str, Any] = {"lane": row.lane.name.lower()} if isinstance(row, inspection.Waiting) else {}
    columns["topic"] = entry.record.topic if entry else None if as_json else "(damaged)"
    columns |= {"epoch": entry and entry.epoch, "seq": entry and entry.seq}
    columns["age_s"] = round(age_s(entry, now), 1) if entry else None
    columns["bytes"] = row.size
    if as_json and entry:
        columns |= {"boot": entry.boot, "record": plain(to_line(entry))["record"]}
    return columns


def _age(row: inspection.Waiting, now: Stamp) -> float:
    return age_s(row.entry, now) if row.entry else float("inf")


def _show(rows: Iterable[dict[str, Any]], *, as_json: bool, total: int, nothing: str) -> None:
    if as_json:
        _print_list(iter(rows))
        return
    cells = list(rows)
    if not cells:
        print(nothing)
        return
    print_table(list(cells[0]), [["-" if cell is None else cell for cell in row.values()] for row in cells])
    if total > len(cells):
        print(f"{len(cells)} of {total}: see more with --limit")


def _print_list(rows: Iterator[dict[str, Any]]) -> None:
    """A JSON list, one element in memory at a time."""
    first = next(rows, None)
    if first is None:
        print("[]")
        return
    for mark, row in zip(chain("[", iter(lambda: ",", "")), chain([first], rows), strict=False):
        print(mark + json.dumps(row, ensure_ascii=False))
    print("]")


def _requeue(data: Path, runtime: Path, which: str) -> int:
    with QueueWriter(data, runtime) as writer:
        result = writer.request({"command": "requeue", "numbers": _numbers("--requeue", which)})
    print(f"{result['moved']} messages wait again")
    if result["damaged"]:
        raise EdgepostError(f"damaged, and still dead: {', '.join(map(str, result['damaged']))}; see --delete")
    return 0


def _delete(data: Path, runtime: Path, which: str) -> int:
    with QueueWriter(data, runtime) as writer:
        count = writer.request({"command": "delete", "numbers": _numbers("--delete", which)})
    print(f"{count} dead messages were deleted")
    return 0


def _drop(data: Path, runtime: Path, args: argparse.Namespace) -> int:
    queue = data / "queue"
    older_than_s = _duration(args.older_than)
    upto = {lane: inspection.extent(queue, lane).last for lane in ([LANES[args.lane]] if args.lane else Lane)}
    if not args.yes:
        counts = {lane: _count(queue, lane, last, older_than_s) for lane, last in upto.items()}
        listed = ", ".join(f"{count} {lane.name.lower()}" for lane, count in counts.items())
        raise UsageError(f"would delete {sum(counts.values())} messages that wait ({listed}): add --yes to do it")
    dropped = 0
    with QueueWriter(data, runtime) as writer:
        for lane, last in upto.items():
            after: int | None = 0
            while after is not None:
                request = {"command": "drop", "lane": lane.name.lower(), "after": after, "upto": last}
                try:
                    part = writer.request(request | {"older_than_s": older_than_s})
                except EdgepostError as error:
                    raise EdgepostError(f"{error}. Messages deleted: {dropped}; run it again for the rest") from error
                dropped, after = dropped + part["dropped"], part["after"]
    print(f"{dropped} messages were deleted")
    return 0


def _count(queue: Path, lane: Lane, last: int, older_than_s: float | None) -> int:
    if older_than_s is None:
        return inspection.extent(queue, lane).count
    now = Clock().now()
    rows = inspection.waiting(queue, lane, last)
    return sum(row.entry is not None and age_s(row.entry, now) > older_than_s for row in rows)


def _limit(limit: int) -> int:
    if not 1 <= limit <= MAX_LIMIT:
        raise UsageError(f"--limit {limit}: expected 1 to {MAX_LIMIT}; `edgepost queue export` writes everything")
    return limit


def _numbers(option: str, text: str) -> list[int] | None:
    if text == "all":
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**12:
        raise UsageError(f"{option} {text}: expected a number from `edgepost queue dead`, or all")
    return [int(text)]


def _duration(text: str | None) -> float | None:
    try:
        return None if text is None else float(Duration.parse(text))
    except ValueError as error:
        raise UsageError(f"--older-than: {error}") from error
