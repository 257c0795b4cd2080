"""Client processes at a node: any node serves any of them (DESIGN 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..core.batch import Batch
from ..core.messages import Message, Propose
from ..errors import ProtocolError, RaftError
from ..types import LogIndex, NodeId, NodeStatus
from ..wire.client import (
    ClientMessage,
    HandedOver,
    HandOver,
    RangesRead,
    ReadRanges,
    RequestStatus,
    StatusReport,
    failure,
)
from .links import Client
from .ranges import RANGES_MAX, Answered

__all__ = ["Served", "serve"]


class Served(Protocol):
    """The node, as it serves clients."""

    def propose_for(self, client: Client, message: Propose) -> None: ...

    def read_ranges(self, places: Sequence[LogIndex], timeout_s: float, answered: Answered) -> None: ...

    def confirm_read(
        self, timeout_s: float | None, confirmed: Callable[[LogIndex | RaftError], None]
    ) -> None: ...

    def hand_over(
        self, target: NodeId | None, timeout_s: float, resolve: Callable[[NodeId | RaftError], None]
    ) -> None: ...

    def status(self) -> NodeStatus: ...

    def reply(self, client: Client, message: ClientMessage) -> None: ...


def serve(node: Served, client: Client, message: Message | ClientMessage) -> None:
    """Carry out what a client asks. Raises ProtocolError for what no client sends."""
    match message:
        case Propose():
            node.propose_for(client, message)
        case ReadRanges(places=()):
            _serve_read_index(node, client, message)
        case ReadRanges():
            _serve_ranges(node, client, message)
        case RequestStatus(request_id):
            node.reply(client, StatusReport(request_id, node.status()))
        case HandOver():
            _serve_transfer(node, client, message)
        case _:
            raise ProtocolError(client.peer_address, f"a client does not send {type(message).__name__}")


def _serve_ranges(node: Served, client: Client, message: ReadRanges) -> None:
    def answered(count: int, outcome: Sequence[Batch] | RaftError) -> None:
        if isinstance(outcome, RaftError):
            node.reply(client, failure(message.request_id, outcome, count))
        else:
            node.reply(client, RangesRead(message.request_id, 0, count, tuple(outcome)))

    places = message.places
    starts, ends = places[::2], places[1::2]
    if (
        len(starts) != len(ends)
        or len(starts) > RANGES_MAX
        or not all(1 <= start <= end for start, end in zip(starts, ends, strict=True))
    ):
        raise ProtocolError(client.peer_address, f"asks for no ranges: {places[:10]}")
    node.read_ranges(places, message.remaining_ns / 1e9, answered)


def _serve_transfer(node: Served, client: Client, message: HandOver) -> None:
    def resolve(outcome: NodeId | RaftError) -> None:
        if isinstance(outcome, RaftError):
            node.reply(client, failure(message.request_id, outcome))
        else:
            node.reply(client, HandedOver(message.request_id, outcome))

    try:
        node.hand_over(message.target, message.remaining_ns / 1e9, resolve)
    except RaftError as error:
        resolve(error)


def _serve_read_index(node: Served, client: Client, message: ReadRanges) -> None:
    def confirmed(outcome: LogIndex | RaftError) -> None:
        if isinstance(outcome, RaftError):
            node.reply(client, failure(message.request_id, outcome))
        else:
            node.reply(client, RangesRead(message.request_id, outcome, 1, ()))

    try:
        node.confirm_read(message.remaining_ns / 1e9, confirmed)
    except RaftError as error:
        confirmed(error)
