"""Client processes at a node: any node serves any of them (DESIGN 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..core.batch import Batch
from ..core.messages import Message, Propose
from ..errors import ProtocolError, RaftError
from ..types import LogIndex, NodeStatus
from ..wire.client import (
    ClientMessage,
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
