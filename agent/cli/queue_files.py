"""`edgepost queue export` and `import`: waiting or dead messages as a file of JSON lines, and back."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agent.cli.queue_writer import QueueWriter
from agent.control_socket import MAX_REQUEST_BYTES
from agent.delivery import inspection
from agent.delivery.interchange import Line, encode, parse, plain, to_line, to_stored
from agent.delivery.ledger import Refused, stored
from agent.delivery.record import Lane
from agent.errors import ConfigError, EdgepostError

LINE_BYTES = MAX_REQUEST_BYTES - 2**20
BATCH_BYTES = 512 * 1024
BATCH_LINES = 500
MAX_FAULTS = 1000
TELL_S = {True: 0.2, False: 5.0}  # how often, on a terminal or without one


class Progress:
    """Says on stderr how far something is, once it has taken a second."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._begin = time.monotonic()
        self._next = self._begin + 1.0
        self._told = False

    def tell(self, done: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if now < self._next or not done:
            return
        self._next, self._told = now + TELL_S[self._terminal], True
        rate = done / (now - self._begin)
        left_s = max(0, self._total - done) / rate
        text = f"{self._what}: {done} of {self._total}, {rate:.0f}/s, {left_s:.0f} s left"
        print(f"\r{text}\x1b[K" if self._terminal else text, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the line clear."""
        if self._told and self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def export(queue: Path, file: Path, *, dead: bool) -> int:
    """Write the file beside its place and rename it; returns the exit status."""
    extents = {lane: inspection.extent(queue, lane) for lane in Lane}
    total = sum(1 for _ in inspection.dead(queue)) if dead else sum(extent.count for extent in extents.values())
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    written = damaged = 0
    progress = Progress("export", total)
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            for line in _dead_lines(queue) if dead else _waiting_lines(queue, extents):
                content = _encoded(line)
                damaged += content is None
                written += content is not None
                out.write(content or b"")
                progress.tell(written)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(file)
    except OSError as error:
        raise EdgepostError(f"{file}: can't be written: {error.strerror}; nothing was exported") from error
    finally:
        progress.close()
        partial.unlink(missing_ok=True)
    print(f"{file}: {written} messages")
    if damaged:
        raise EdgepostError(f"{damaged} damaged messages could not be exported; the others are in {file}")
    return 0


def import_(data: Path, runtime: Path, file: Path) -> int:
    """Check every line, then put all back; returns the exit status, raises ConfigError with every fault."""
    try:
        with file.open("rb") as source:
            count, size = _check(file, source)
            source.seek(0)
            with QueueWriter(data, runtime) as writer:
                _restore(writer, file, source, count, size)
    except OSError as error:
        raise EdgepostError(f"{file}: can't be read: {error.strerror}; nothing was imported") from error
    print(f"{count} messages were imported")
    return 0


def _waiting_lines(queue: Path, extents: dict[Lane, inspection.Extent]) -> Iterator[Line | None]:
    for lane, extent in extents.items():
        for row in inspection.waiting(queue, lane, extent.last):
            yield to_line(row.entry) if row.entry else None


def _dead_lines(queue: Path) -> Iterator[Line | None]:
    for row in inspection.dead(queue):
        yield to_line(row.entry, row.number, row.reason) if row.entry else None


def _encoded(line: Line | None) -> bytes | None:
    try:
        return encode(line) if line else None
    except (ValueError, TypeError, RecursionError):  # that is why it is dead
        return None


def _lines(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank; one that is too long is cut."""
    number = 0
    while text := source.readline(LINE_BYTES + 1):
        number += 1
        if text.strip():
            yield number, text
        while not text.endswith(b"\n") and len(text) > LINE_BYTES:
            text = source.readline(LINE_BYTES + 1)


def _check(file: Path, source: BinaryIO) -> tuple[int, int]:
    """How many messages there are, and the bytes that they take in the queue."""
    faults: list[str] = []
    count = size = 0
    for number, text in _lines(source):
        try:
            if len(text) > LINE_BYTES:
                raise Refused(f"longer than {LINE_BYTES} bytes")  # noqa: TRY301 (a fault like the others)
            size += len(stored(to_stored(parse(text))))
            count += 1
        except Refused as error:
            if len(faults) < MAX_FAULTS:
                faults.append(f"{file}:{number}: {error}")
    if faults:
        raise ConfigError([*faults, f"{file}: nothing was imported: expected what `edgepost queue export` writes"])
    return count, size


def _restore(writer: QueueWriter, file: Path, source: BinaryIO, count: int, size: int) -> None:
    done = 0
    progress = Progress("import", count)
    try:
        for lines in _batches(source):
            needed = size
            size -= sum(len(stored(to_stored(line))) for line in lines)
            messages = [plain(line) for line in lines]
            done += writer.request({"command": "restore", "messages": messages, "needed": max(0, needed)})
            progress.tell(done)
    except EdgepostError as error:
        raise EdgepostError(
            f"{file}: {error}. Messages imported: {done} of {count}; to import it again is safe: receivers drop "
            f"duplicates"
        ) from error
    finally:
        progress.close()


def _batches(source: BinaryIO) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for _, text in _lines(source):
        if batch and (size + len(text) > BATCH_BYTES or len(batch) >= BATCH_LINES):
            yield batch
            batch, size = [], 0
        batch.append(parse(text))
        size += len(text)
    if batch:
        yield batch
