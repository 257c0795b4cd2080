"""What client processes and nodes say to each other, beside `Propose` and its answers. Tags from 32."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from ..core.batch import Batch
from ..errors import (
    Compacted,
    DecodeFailed,
    InvalidRequest,
    NodeStopped,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    RaftError,
    RangeTooLarge,
    Unavailable,
)
from ..types import LogIndex, NodeStatus

__all__ = [
    "ClientMessage",
    "RangeRead",
    "ReadRange",
    "RequestFailed",
    "RequestStatus",
    "StatusReport",
    "error_of",
    "failure",
]


class ReadRange(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """An IndexRange, both ends included, from a client process."""

    request_id: int
    start_index: LogIndex
    end_index: LogIndex
    remaining_ns: int


class RequestReadIndex(msgspec.Struct, frozen=True, array_like=True, tag=36):
    """A read index, for a client that wants to read up to the end."""

    request_id: int
    remaining_ns: int


class RangeRead(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """Batches that hold the range; their other entries are not part of the answer."""

    request_id: int
    commit_index: LogIndex
    batches: tuple[Batch, ...]


class RequestStatus(msgspec.Struct, frozen=True, array_like=True, tag=34):
    request_id: int


class StatusReport(msgspec.Struct, frozen=True, array_like=True, tag=35):
    request_id: int
    status: NodeStatus


class RequestFailed(msgspec.Struct, frozen=True, array_like=True, tag=37):
    """A request was not carried out; `error_of` makes the error of it again."""

    request_id: int
    error: Literal[
        "invalid",
        "out_of_range",
        "range_too_large",
        "compacted",
        "unavailable",
        "overloaded",
        "unknown",
        "stopped",
    ]
    text: str
    first: int = 0
    last: int = 0


ClientMessage: TypeAlias = (
    ReadRange | RequestReadIndex | RangeRead | RequestStatus | StatusReport | RequestFailed
)


def failure(request_id: int, error: RaftError) -> RequestFailed:
    """The message for an error."""
    match error:
        case OutOfRange():
            return RequestFailed(
                request_id, "out_of_range", str(error), error.first_index, error.commit_index
            )
        case RangeTooLarge():
            return RequestFailed(request_id, "range_too_large", str(error), error.next_index)
        case Compacted():
            return RequestFailed(request_id, "compacted", str(error), error.first_index)
        case Overloaded():
            return RequestFailed(request_id, "overloaded", str(error), error.limit)
        case Unavailable():
            return RequestFailed(request_id, "unavailable", error.why)
        case NodeStopped():
            return RequestFailed(request_id, "stopped", str(error))
        case InvalidRequest() | DecodeFailed():
            return RequestFailed(request_id, "invalid", str(error))
        case _:
            return RequestFailed(request_id, "unknown", str(error))


def error_of(message: RequestFailed) -> RaftError:
    """The error for a message."""
    match message.error:
        case "out_of_range":
            return OutOfRange(message.first, message.last)
        case "range_too_large":
            return RangeTooLarge(message.first)
        case "compacted":
            return Compacted(message.first)
        case "overloaded":
            return Overloaded(message.first)
        case "unavailable":
            return Unavailable(message.text)
        case "stopped":
            return Unavailable(message.text)
        case "invalid":
            return InvalidRequest(message.text)
        case "unknown":
            return OutcomeUnknown(message.text)
