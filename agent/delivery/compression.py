"""Smaller payloads, and back again with a bound on what may come out."""

import zlib
from collections.abc import Callable, Mapping

from agent.errors import EdgepostError

WORTH_IT_BYTES = 200  # below, what is saved is less than what naming the encoding costs
MAX_DECODED_BYTES = 64 * 1024 * 1024

_ZLIB_LEVEL = 6
_FIRST_BYTES = {b"\x78": "zlib", b"\x28\xb5\x2f\xfd": "zstd"}  # RFC 1950; RFC 8878. JSON begins with neither


class BadPayload(EdgepostError, ValueError):
    """A payload that is not what its first bytes say, or would become too large."""


def compress(payload: bytes, name: str) -> tuple[bytes, str]:
    """The payload and the encoding it is in now: as it was, encoding "", where nothing is gained."""
    if name == "none" or len(payload) < WORTH_IT_BYTES:
        return payload, ""
    smaller = _COMPRESSORS[name](payload)
    return (smaller, name) if len(smaller) < len(payload) else (payload, "")


def decompress(payload: bytes) -> bytes:
    """What was compressed, told by its first bytes; raises BadPayload."""
    name = next((name for first, name in _FIRST_BYTES.items() if payload.startswith(first)), "")
    try:
        return _DECOMPRESSORS[name](payload) if name else payload
    except (zlib.error, ValueError, EOFError) as error:
        raise BadPayload(f"a payload of {len(payload)} bytes is no {name}: {error}") from error


def _zlib_decompress(payload: bytes) -> bytes:
    decoder = zlib.decompressobj()
    decoded = decoder.decompress(payload, MAX_DECODED_BYTES)
    if decoder.unconsumed_tail or not decoder.eof:
        raise ValueError(f"cut off, or more than {MAX_DECODED_BYTES} bytes")
    return decoded


def _zstd_compress(payload: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(payload)


def _zstd_decompress(payload: bytes) -> bytes:
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=MAX_DECODED_BYTES)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


_COMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "zlib": lambda payload: zlib.compress(payload, _ZLIB_LEVEL),
    "zstd": _zstd_compress,
}
_DECOMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {"zlib": _zlib_decompress, "zstd": _zstd_decompress}
