"""Giving memory back: what importing and starting left in the heap is of no more use, and glibc keeps it."""

import ctypes
import gc


def give_back() -> None:
    """Return free heap pages to the system where the C library can (malloc_trim(3)): some 5 MB after a start."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
