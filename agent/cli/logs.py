"""Where the log goes: stderr, one line an event, in UTC."""

import logging
import os
import time

from agent.errors import UsageError


def set_up_logging(default: str = "INFO") -> None:
    """Log to stderr at `$EDGEPOST_LOG` (DEBUG, INFO, WARNING, ERROR) or the default."""
    level = os.environ.get("EDGEPOST_LOG", default).upper()
    if level not in logging.getLevelNamesMapping():
        raise UsageError(f"EDGEPOST_LOG: found {level!r}, expected DEBUG, INFO, WARNING or ERROR")
    formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler])
