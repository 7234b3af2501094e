"""Waiting for the end: SIGTERM and SIGINT set an event."""

import signal
import threading


def stop_on_signal() -> threading.Event:
    """An event that SIGTERM and SIGINT set; a second signal is left to the system."""
    stop = threading.Event()

    def ask_to_stop(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    return stop
