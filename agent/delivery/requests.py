"""What may be asked of the queue from outside its process: from a parsed request to the queue and back."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from agent.delivery.disk_queue import DiskQueue
from agent.delivery.interchange import Line, to_stored
from agent.delivery.ledger import Refused
from agent.delivery.maintenance import lane_named

Number = Annotated[int, msgspec.Meta(ge=1, lt=10**12)]
Key = Annotated[int, msgspec.Meta(ge=0, lt=2**60)]


class _Request(msgspec.Struct, tag_field="command", forbid_unknown_fields=True, kw_only=True):
    data_dir: str = ""


class _Requeue(_Request, tag="requeue"):
    numbers: Sequence[Number] | None


class _Delete(_Request, tag="delete"):
    numbers: Sequence[Number] | None


class _Restore(_Request, tag="restore"):
    messages: Sequence[Line]
    needed: Key


class _Drop(_Request, tag="drop"):
    lane: str
    after: Key
    upto: Key
    older_than_s: float | None


def answer(queue: DiskQueue, request: Mapping[str, Any]) -> Any:
    """Do what is asked; returns JSON values, raises EdgepostError when nothing was done."""
    try:
        asked = msgspec.convert(request, _Requeue | _Delete | _Restore | _Drop)
    except msgspec.ValidationError as error:
        raise Refused(f"the request is not understood: {error}") from error
    match asked:
        case _Requeue():
            return msgspec.to_builtins(queue.requeue(asked.numbers))
        case _Delete():
            return queue.delete_dead(asked.numbers)
        case _Restore():
            return queue.restore([to_stored(line) for line in asked.messages], asked.needed)
        case _Drop():
            lane = lane_named(asked.lane)
            return msgspec.to_builtins(queue.drop(lane, asked.after, asked.upto, asked.older_than_s))
