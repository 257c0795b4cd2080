"""Raft consensus for Python: a replicated, durable, linearizable log inside your service.

    from totora import RaftNode, append_request, index_range, Ok, Err

    requests, responses = RaftNode.start(1, {1: ("127.0.0.1", 7001)}, entry_type=str, data_dir="data/1")
    requests.send(append_request(["hello"]))
    print(responses.recv(timeout=5))

`RaftNode.start` is for threads (and any event loop), `Node` for asyncio. The core alone, without I/O: `totora.core.raft`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import Settings
from .core.messages import Accepted, Rejected, RemoteProcedureCall, RemoteProcedureResponse
from .errors import (
    CommandFailed,
    Compacted,
    ConfigurationError,
    DecodeFailed,
    EntryTooLarge,
    InvalidRequest,
    LogMismatch,
    NodeStopped,
    NotAppended,
    NotLeader,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    ProtocolError,
    QueryFailed,
    RaftError,
    RangeTooLarge,
    SessionExpired,
    StorageError,
    TransferFailed,
    Unavailable,
)
from .session.requests import (
    AppendRequest,
    ClientRequest,
    Err,
    IndexRange,
    Ok,
    Response,
    Result,
    append_request,
    index_range,
)
from .types import Address, Entry, LogIndex, NodeId, NodeStatus, PeerStatus, Term

if TYPE_CHECKING:
    from .aio import Client, Node
    from .threads import RaftNode, Requests, Responses

__version__ = "0.1.0"

__all__ = [
    "Accepted",
    "Address",
    "AppendRequest",
    "Client",
    "ClientRequest",
    "CommandFailed",
    "Compacted",
    "ConfigurationError",
    "DecodeFailed",
    "Entry",
    "EntryTooLarge",
    "Err",
    "IndexRange",
    "InvalidRequest",
    "LogIndex",
    "LogMismatch",
    "Node",
    "NodeId",
    "NodeStatus",
    "NodeStopped",
    "NotAppended",
    "NotLeader",
    "Ok",
    "OutOfRange",
    "OutcomeUnknown",
    "Overloaded",
    "PeerStatus",
    "ProtocolError",
    "QueryFailed",
    "RaftError",
    "RaftNode",
    "RangeTooLarge",
    "Rejected",
    "RemoteProcedureCall",
    "RemoteProcedureResponse",
    "Requests",
    "Response",
    "Responses",
    "Result",
    "SessionExpired",
    "Settings",
    "StorageError",
    "Term",
    "TransferFailed",
    "Unavailable",
    "append_request",
    "index_range",
]


def __getattr__(name: str) -> object:
    # asyncio, ssl and threads are loaded by those who use them: the vocabulary alone costs a few milliseconds.
    if name in ("Client", "Node"):
        from . import aio

        return getattr(aio, name)
    if name in ("RaftNode", "Requests", "Responses"):
        from . import threads

        return getattr(threads, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
