"""Finds the message that breaks connections, so that it can't block those behind it for ever.

A connection that ends with many messages under way says nothing of any one of them. So the next one starts carefully:
the first messages go one at a time. A message that was alone under way when two connections in a row broke is guilty.
"""

from collections.abc import Sequence

CAREFUL = 20


class Suspicion:
    """What is remembered from one connection to the next. Used by one thread."""

    def __init__(self) -> None:
        self.careful = 0
        """How many messages are to be sent one at a time from now on."""
        self._alone: int | None = None

    def settled(self) -> None:
        """A message was answered: it is not the one."""
        self.careful = max(0, self.careful - 1)
        self._alone = None

    def lost(self, keys: Sequence[int]) -> int | None:
        """A connection was lost with these entries under way; returns the key of the one that is guilty, if any."""
        if not keys:
            return None
        self.careful = CAREFUL
        if len(keys) > 1:
            self._alone = None
        elif self._alone == keys[0]:
            self._alone = None
            return keys[0]
        else:
            self._alone = keys[0]
        return None
