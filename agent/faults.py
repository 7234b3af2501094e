"""What is wrong with a value of the configuration, in words: what was found and what is expected, no secrets."""

import difflib
import re
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from drivers.contract import decode_quantity

SCHEMES = ("mqtt", "mqtts", "ws", "wss")
WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


class BrokerUrl(str):
    """Where a broker is: `mqtt://host:1883`, `mqtts://`, `ws://` or `wss://`; never with credentials in it."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "BrokerUrl":
        """Check an address; raises ValueError that names the form expected."""
        expected = f"expected {'|'.join(SCHEMES)}://host[:port]"
        if not isinstance(text, str):
            raise ValueError(f"{expected}, found {text!r}")  # noqa: TRY004 (a fault of the configuration)
        try:
            parts = urllib.parse.urlsplit(text)
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"{expected}, found {shown(text)}: {error}") from None
        if parts.username or parts.password:
            raise ValueError(f"found {shown(text)} with credentials in it, expected username and password_file")
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ValueError(f"{expected}, found {shown(text)}")
        if parts.query or parts.fragment or (parts.path.strip("/") and parts.scheme in {"mqtt", "mqtts"}):
            form = f"{parts.scheme}://host[:port]" + ("[/path]" if parts.scheme in {"ws", "wss"} else "")
            raise ValueError(f"expected {form}, found {shown(text)}")
        return cls(text)


class ReadableFile(str):
    """A file that is there and can be read, or "" for none."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "ReadableFile":
        """Check a path; raises ValueError that says what stands in the way."""
        expected = "expected a file that can be read"
        if not isinstance(text, str):
            raise ValueError(f"found {text!r}, {expected}")  # noqa: TRY004 (a fault of the configuration)
        if text:
            try:
                Path(text).read_bytes()
            except OSError as error:
                raise ValueError(f"found {text!r}, {expected}: {error.strerror}") from None
        return cls(text)


def near(word: str, known: Sequence[str]) -> str:
    """What may have been meant, to go behind a fault."""
    nearest = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {nearest[0]}?" if nearest else f", expected one of: {', '.join(known)}"


def shown(value: Any) -> str:
    """A value as it may be shown: what stands before the last @ of an address, or behind it, may be a password."""
    text = re.sub(r"(\w:/{0,2})\S*@", r"\1…@", repr(value))
    return re.sub(r"(://[^\s?#]*[?#])[^\s'\"]*", r"\1…", text)


def decode(kind: type, value: object) -> Any:
    """`dec_hook` for every type of the configuration; raises ValueError."""
    if kind in {BrokerUrl, ReadableFile}:
        return kind.parse(value)
    return decode_quantity(kind, value)


def faults_of(value: object, kind: Any) -> list[str]:
    """What is wrong with a value: of a list, with each of its items."""
    if isinstance(value, list) and len(value) > 1:
        return [fault for item in value for fault in faults_of([item], kind)]
    try:
        msgspec.convert(value, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        return [_fault(error, value, kind)]
    return []


def _fault(error: msgspec.ValidationError, value: object, kind: Any) -> str:
    text = str(error)
    if "found" in text:  # ours: it says both already
        return re.sub(r" - at `\$\S*`", "", text)
    expected = expected_of(kind) or _in_words(text)
    return f"found {shown(value)}, expected {expected}"


def _in_words(text: str) -> str:
    """What msgspec expected, without Python's names for it."""
    text = re.sub(r", got `\w+`| - at `\$\S*`", "", text).removeprefix("Expected ")
    return re.sub(r"`([\w| ]+)`", lambda match: " or ".join(WORDS.get(t, t) for t in match[1].split(" | ")), text)


def place(fault: str) -> tuple[str, int]:
    """File and line, to sort by."""
    match = re.match(r"(.+?):(\d+): ", fault)
    return (match[1], int(match[2])) if match else (fault.partition(":")[0], 0)


def expected_of(kind: Any) -> str:
    """What a key takes, in words, where its type says it."""
    info = msgspec.inspect.type_info(kind)
    if isinstance(info, msgspec.inspect.LiteralType):
        return " or ".join(repr(value) for value in info.values)
    if isinstance(info, msgspec.inspect.Metadata) and info.extra:
        return str(info.extra.get("expected", ""))
    return ""
