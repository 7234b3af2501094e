"""The notice board: what is only worth knowing as it is now (status, meta, health), never queued.

The latest of each topic is published when it is posted, and what is retained once more after every new connection.
"""

import threading
from collections.abc import Callable

from agent.delivery.codec import Message


class Board:
    """Holds the latest message of each topic; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, Message] = {}
        self._due: dict[str, Message] = {}
        self._listener: Callable[[], None] = lambda: None

    def on_post(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every post: it must only wake somebody."""
        self._listener = listener

    def post(self, message: Message) -> None:
        """Replace what the board holds for the message's topic."""
        with self._lock:
            self._latest[message.topic] = message
            self._due[message.topic] = message
        self._listener()

    def repeat(self) -> None:
        """Make everything retained due again: the connection is a new one."""
        with self._lock:
            self._due = {topic: message for topic, message in self._latest.items() if message.retain}

    def take(self) -> Message | None:
        """The next message that is due, if any."""
        with self._lock:
            return self._due.pop(next(iter(self._due))) if self._due else None
