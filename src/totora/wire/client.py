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
    TransferFailed,
    Unavailable,
)
from ..types import LogIndex, NodeId, NodeStatus

__all__ = [
    "ClientMessage",
    "HandOver",
    "HandedOver",
    "RangesRead",
    "ReadRanges",
    "RequestFailed",
    "RequestStatus",
    "StatusReport",
    "error_of",
    "failure",
]


FailureKind: TypeAlias = Literal[
    "invalid",
    "out_of_range",
    "range_too_large",
    "compacted",
    "unavailable",
    "overloaded",
    "unknown",
    "stopped",
    "transfer",
]


class ReadRanges(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """Ranges of the log, read linearizably at one moment, from a client process.

    places: the first and the last index of each, one after the other; none: what is committed is all that is asked.
    """

    request_id: int
    remaining_ns: int
    places: tuple[LogIndex, ...]


class RangesRead(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """The first `count` of the ranges that were asked for; whoever still wants the others asks again.

    batches: those that hold the ranges, each once, in the order of the log; their other entries are not part of the answer.
    """

    request_id: int
    commit_index: LogIndex
    count: int
    batches: tuple[Batch, ...]


class RequestStatus(msgspec.Struct, frozen=True, array_like=True, tag=34):
    request_id: int


class StatusReport(msgspec.Struct, frozen=True, array_like=True, tag=35):
    request_id: int
    status: NodeStatus


class HandOver(msgspec.Struct, frozen=True, array_like=True, tag=38):
    """Have the leader hand over to `target`; None: to whoever holds most."""

    request_id: int
    remaining_ns: int
    target: NodeId | None


class HandedOver(msgspec.Struct, frozen=True, array_like=True, tag=39):
    """`leader_id` leads now."""

    request_id: int
    leader_id: NodeId


class RequestFailed(msgspec.Struct, frozen=True, array_like=True, tag=37):
    """What was asked is not done; `error_of` makes the error of it again.

    count: of ranges, the first so many have this outcome.
    """

    request_id: int
    error: FailureKind
    text: str
    first: int = 0
    last: int = 0
    count: int = 1


ClientMessage: TypeAlias = (
    ReadRanges | RangesRead | RequestStatus | StatusReport | HandOver | HandedOver | RequestFailed
)


def failure(request_id: int, error: RaftError, count: int = 1) -> RequestFailed:
    """The message for an error of `count` ranges."""
    kind, text, first, last = _described(error)
    return RequestFailed(request_id, kind, text, first, last, count)


def _described(error: RaftError) -> tuple[FailureKind, str, int, int]:
    match error:
        case OutOfRange():
            return "out_of_range", str(error), error.first_index, error.commit_index
        case RangeTooLarge():
            return "range_too_large", str(error), error.next_index, 0
        case Compacted():
            return "compacted", str(error), error.first_index, 0
        case Overloaded():
            return "overloaded", str(error), error.limit, 0
        case Unavailable():
            return "unavailable", error.why, 0, 0
        case NodeStopped():
            return "stopped", str(error), 0, 0
        case TransferFailed():
            return "transfer", error.why, 0, 0
        case InvalidRequest() | DecodeFailed():
            return "invalid", str(error), 0, 0
        case _:
            return "unknown", str(error), 0, 0


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
        case "transfer":
            return TransferFailed(message.text)
        case "invalid":
            return InvalidRequest(message.text)
        case "unknown":
            return OutcomeUnknown(message.text)
