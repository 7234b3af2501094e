"""What each part says of itself: the agent's own figures, for the health topic and `edgepost status`."""

import threading
import time
from typing import Any, Literal

State = Literal["starting", "ok", "failing", "stopped"]


class PartHealth:
    """One part's report. The part calls `ok()`, its supervisor the rest; safe from any thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._state: State = "starting"
        self._errors = 0
        self._last_error = ""
        self._last_ok: float | None = None
        self._figures: dict[str, Any] = {}
        self.succeeded = threading.Event()  # since the last failure

    def ok(self, **figures: Any) -> None:
        """Note a success, with figures that replace those of the same name."""
        with self._lock:
            self._state = "ok"
            self._last_ok = time.monotonic()
            self._figures.update(figures)
        if not self.succeeded.is_set():
            self.succeeded.set()

    def add(self, **counts: int) -> None:
        """Note a success that raises the figures named by these amounts."""
        with self._lock:
            summed = {name: self._figures.get(name, 0) + count for name, count in counts.items()}
        self.ok(**summed)

    def failed(self, error: str) -> bool:
        """Note a failure that will be tried again; returns whether it is news, worth a line in the log."""
        with self._lock:
            news = self._state != "failing" or self._last_error != error
            self._state = "failing"
            self._errors += 1
            self._last_error = error
        self.succeeded.clear()
        return news

    def stopped(self) -> None:
        """Note that the part has ended as it was asked to."""
        with self._lock:
            self._state = "stopped"

    def snapshot(self) -> dict[str, Any]:
        """The report as JSON values."""
        with self._lock:
            age = None if self._last_ok is None else round(time.monotonic() - self._last_ok, 1)
            report: dict[str, Any] = {"state": self._state, "errors": self._errors, "last_ok_s": age}
            if self._last_error:
                report["last_error"] = self._last_error
            return report | self._figures


class Health:
    """All parts' reports."""

    def __init__(self) -> None:
        self._parts: dict[str, PartHealth] = {}

    def part(self, name: str) -> PartHealth:
        """The report of a part, made at the first call."""
        return self._parts.setdefault(name, PartHealth(name))

    def snapshot(self) -> dict[str, Any]:
        """Every part's report by name."""
        return {name: part.snapshot() for name, part in list(self._parts.items())}
