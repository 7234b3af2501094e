"""What a camera's keeper and its worker say to each other, a line of JSON each."""

from typing import Any, Literal

import msgspec


class WorkerOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker is to do; it comes by stdin, for the settings may hold a password.

    `settings` are the driver's, as written in the configuration; `frames` is the directory of the rings.
    """

    name: str
    driver: str
    settings: dict[str, Any]
    frames: str
    slots: int


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker has to say.

    "opened": frames of this format come now. "revoked": so many frames were written over while held. "ended": the
    source has no more. "error": it can't go on.
    """

    event: Literal["opened", "revoked", "ended", "error"]
    width: int = 0
    height: int = 0
    fourcc: str = ""
    revoked: int = 0
    error: str = ""
