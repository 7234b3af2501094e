"""TOML files with the place of every key, so that a fault can say file and line. tomllib itself keeps no places."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import ConfigError

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')\s*[.=]")


class Table(msgspec.Struct, frozen=True):
    """One table of a file: its name, its values, and the lines of its head and its keys."""

    name: str
    values: dict[str, Any]
    file: Path
    line: int
    key_lines: dict[str, int]

    def where(self, key: str | None = None) -> str:
        """`file:line` of a key, or of the table."""
        return f"{self.file}:{self.key_lines.get(key, self.line) if key else self.line}"


def read_tables(path: Path) -> list[Table]:
    """The top-level tables of a file in order; raises ConfigError that says what is wrong with the file."""
    text = _read_text(path)
    try:
        document = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError([f"{path}: tables or lists are nested too deep for a configuration"]) from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        where = f"{path}:{line[1] if line else max(1, text.count(chr(10)))}"
        raise ConfigError([f"{where}: no valid TOML: {error}"]) from error
    places = _places(text)
    return [_table(name, values, path, places, index) for name, index, values in _flatten(document)]


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror}; name a file with --config"]) from error
    if b"\0" in content:
        raise ConfigError([f"{path}: is a binary file, expected TOML text"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            [f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; save it as UTF-8"]
        ) from error


def _flatten(document: dict[str, Any]) -> Iterator[tuple[str, int, Any]]:
    for name, value in document.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                yield f"[[{name}]]", index, item
        elif isinstance(value, dict):
            yield f"[{name}]", 0, value
        else:
            yield name, 0, value


def _table(name: str, values: Any, path: Path, places: dict[tuple[str, int, str], int], index: int) -> Table:
    bare = name.strip("[]")
    line = places.get((bare, index, ""), places.get(("", 0, bare), 1))
    if not name.startswith("["):
        return Table(name, {name: values}, path, line, {name: line})
    return Table(
        name, values, path, line, {key: places[bare, index, key] for key in values if (bare, index, key) in places}
    )


def _places(text: str) -> dict[tuple[str, int, str], int]:
    """Line of (table, index, key). The key is "" for the table's head, the table is "" before the first head."""
    places: dict[tuple[str, int, str], int] = {}
    table, index, prefix = "", 0, ""
    counts: dict[str, int] = {}
    quotes = ""  # of the multi-line string that we are inside of
    for number, line in enumerate(text.splitlines(), 1):
        if not quotes:
            if head := _HEADER.match(line):
                table, _, prefix = head[2].partition(".")
                if head[1] == "[[" and not prefix:
                    counts[table] = counts.get(table, -1) + 1
                index = counts.get(table, 0)
                places.setdefault((table, index, prefix), number)
            elif (key := _KEY.match(line)) and not prefix:
                places.setdefault((table, index, key[1].strip("\"'")), number)
        for mark in ('"""', "'''"):
            if line.count(mark) % 2 and quotes in {"", mark}:
                quotes = "" if quotes else mark
    return places
