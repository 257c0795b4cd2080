"""Client processes at a node: any node serves any of them (DESIGN 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..core.batch import Batch
from ..core.messages import Message, Propose
from ..errors import ProtocolError, RaftError
from ..types import LogIndex, NodeStatus
from ..wire.client import (
    ClientMessage,
    RangeRead,
    ReadRange,
    RequestReadIndex,
    RequestStatus,
    StatusReport,
    failure,
)
from .links import Client

__all__ = ["Served", "serve"]


class Served(Protocol):
    """The node, as it serves clients."""

    def propose_for(self, client: Client, message: Propose) -> None: ...

    def read_range(
        self,
        start: LogIndex,
        end: LogIndex,
        timeout_s: float | None,
        loaded: Callable[[list[Batch] | RaftError], None],
    ) -> None: ...

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
        case ReadRange():
            _serve_range(node, client, message)
        case RequestReadIndex():
            _serve_read_index(node, client, message)
        case RequestStatus(request_id):
            node.reply(client, StatusReport(request_id, node.status()))
        case _:
            raise ProtocolError(client.peer_address, f"a client does not send {type(message).__name__}")


def _serve_range(node: Served, client: Client, message: ReadRange) -> None:
    def loaded(outcome: list[Batch] | RaftError) -> None:
        if isinstance(outcome, RaftError):
            node.reply(client, failure(message.request_id, outcome))
        else:
            node.reply(client, RangeRead(message.request_id, 0, tuple(outcome)))

    if not 1 <= message.start_index <= message.end_index:
        raise ProtocolError(client.peer_address, f"asks for {message.start_index} to {message.end_index}")
    try:
        node.read_range(message.start_index, message.end_index, message.remaining_ns / 1e9, loaded)
    except RaftError as error:
        loaded(error)


def _serve_read_index(node: Served, client: Client, message: RequestReadIndex) -> None:
    def confirmed(outcome: LogIndex | RaftError) -> None:
        if isinstance(outcome, RaftError):
            node.reply(client, failure(message.request_id, outcome))
        else:
            node.reply(client, RangeRead(message.request_id, outcome, ()))

    try:
        node.confirm_read(message.remaining_ns / 1e9, confirmed)
    except RaftError as error:
        confirmed(error)
