"""Every error that reaches a caller, ordered by what the caller should do.

    RaftError
      InvalidRequest          the request itself is wrong: fix it
        EntryTooLarge  OutOfRange  RangeTooLarge  Compacted
      NotAppended             certainly without effect: may be sent again
        NotLeader  Overloaded  LogMismatch  Unavailable
      OutcomeUnknown          may still commit: find out before sending again
        SessionExpired
      CommandFailed           the state machine raised for a command, on every node alike; the log goes on
      QueryFailed             the state machine raised for a query
      TransferFailed          the leadership was not handed over as asked
      DecodeFailed            an entry in the log is not of the entry type
      ConfigurationError      settings, addresses, directories: fix and start again
      StorageError            the disk failed: this node stops
      ProtocolError           a peer sent what it must not
      NodeStopped             this node has stopped, `cause` says why

The ancestor's `Rejected` is a message between nodes (`core.messages`), not an error.
"""

from __future__ import annotations

from typing import Any

from .types import LogIndex, NodeId, Term

__all__ = [
    "CommandFailed",
    "Compacted",
    "ConfigurationError",
    "DecodeFailed",
    "EntryTooLarge",
    "InvalidRequest",
    "LogMismatch",
    "NodeStopped",
    "NotAppended",
    "NotLeader",
    "OutOfRange",
    "OutcomeUnknown",
    "Overloaded",
    "ProtocolError",
    "QueryFailed",
    "RaftError",
    "RangeTooLarge",
    "SessionExpired",
    "StorageError",
    "TransferFailed",
    "Unavailable",
]


class RaftError(Exception):
    """Base of all errors of this library; `str()` is a sentence for a person. It may be copied and sent to another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is made again of its `args`, which here hold the sentence: no constructor takes that back.
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[RaftError], args: tuple[Any, ...], fields: dict[str, Any]) -> RaftError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class InvalidRequest(RaftError):
    """The request itself is wrong and was not carried out: fix it."""


class EntryTooLarge(InvalidRequest):
    """An entry, or all entries of one request together, exceed `limit` bytes once encoded."""

    def __init__(self, size_bytes: int, limit: int, what: str = "an entry") -> None:
        super().__init__(
            f"{what} of {size_bytes:,} bytes exceeds the limit of {limit:,}: send smaller pieces"
        )
        self.size_bytes = size_bytes
        self.limit = limit


class OutOfRange(InvalidRequest):
    """The range asked for is not (or not yet) in the committed log."""

    def __init__(self, first_index: LogIndex, commit_index: LogIndex) -> None:
        super().__init__(f"the committed log holds indexes {first_index} to {commit_index}: ask within them")
        self.first_index = first_index
        self.commit_index = commit_index


class RangeTooLarge(InvalidRequest):
    """The answer would exceed the limit; ask for the range up to `next_index - 1`, then from `next_index` on."""

    def __init__(self, next_index: LogIndex) -> None:
        super().__init__(
            f"the range is too large for one answer: ask up to {next_index - 1}, then from {next_index}"
        )
        self.next_index = next_index


class Compacted(InvalidRequest):
    """The range begins before `first_index`, the oldest entry that is still kept."""

    def __init__(self, first_index: LogIndex) -> None:
        super().__init__(f"entries before {first_index} are compacted: ask from there")
        self.first_index = first_index


class NotAppended(RaftError):
    """The request certainly had no effect and will have none."""


class NotLeader(NotAppended):
    """Who was asked does not lead: `leader` is the id of who does, None if that is not known; `why` says what is missing."""

    def __init__(self, leader: NodeId | None, why: str | None = None) -> None:
        told = "no leader is known" if leader is None else f"node {leader} leads: ask it"
        super().__init__(told if why is None else f"{told}: {why}")
        self.leader = leader
        self.why = why


class Overloaded(NotAppended):
    """A bounded queue is full (`limit` says how many it holds): slow down and send again."""

    def __init__(self, limit: int, what: str = "requests") -> None:
        super().__init__(f"{limit:,} {what} are waiting already: read responses, slow down, send again")
        self.limit = limit


class LogMismatch(NotAppended):
    """A conditional append named another entry than the last user's entry, `(last_index, last_term)`, committed."""

    def __init__(self, last_index: LogIndex, last_term: Term) -> None:
        super().__init__(
            f"the last entry is {last_index} of term {last_term}: read up to it and decide again"
        )
        self.last_index = last_index
        self.last_term = last_term


class Unavailable(NotAppended):
    """The request never left this node within its time; `why` says what is missing."""

    def __init__(self, why: str) -> None:
        super().__init__(f"unavailable: {why}")
        self.why = why


class OutcomeUnknown(RaftError):
    """The request was handed over and never answered: it may have taken effect, or still may."""


class SessionExpired(OutcomeUnknown):
    """The cluster no longer remembers this session, so it cannot tell whether the request took effect."""


class CommandFailed(RaftError):
    """The state machine raised `error` for the command at `index`: committed, and carried out as far as it came.

    Every node's machine raised it alike, and the log goes on: sent again, the command is another one.
    """

    def __init__(self, index: LogIndex, error: Exception) -> None:
        super().__init__(f"the state machine raised for the command at {index}: {_told(error)}")
        self.index = index
        self.error = error
        self.__cause__ = error


class QueryFailed(RaftError):
    """The state machine raised `error` for a query, which changed nothing."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"the state machine raised for the query: {_told(error)}")
        self.error = error
        self.__cause__ = error


def _told(error: Exception) -> str:
    """A user's error in one line, whatever it says of itself."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # what went wrong must not go wrong again where it is told
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class TransferFailed(RaftError):
    """The leadership was not handed over as it was asked for; `why`, as a sentence. Nothing is lost by it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the leadership was not handed over: {why}")
        self.why = why


class DecodeFailed(RaftError):
    """The entry at `index` is not of this node's entry type."""

    def __init__(self, index: LogIndex, why: str) -> None:
        super().__init__(f"entry {index} is not of the entry type: {why}")
        self.index = index


class ConfigurationError(RaftError):
    """Settings, addresses or a directory are wrong: fix them and start again."""


class StorageError(RaftError):
    """The disk failed or holds damage; the node stops, because what it promised may rest on it."""

    def __init__(self, path: str, offset: int | None, why: str) -> None:
        super().__init__(f"{path}{'' if offset is None else f' at offset {offset:,}'}: {why}")
        self.path = path
        self.offset = offset


class ProtocolError(RaftError):
    """A peer (an id, or an address before it said who it is) sent what it must not."""

    def __init__(self, peer: NodeId | str, why: str) -> None:
        super().__init__(f"{'node ' if isinstance(peer, int) else ''}{peer}: {why}")
        self.peer = peer


class NodeStopped(RaftError):
    """The node has stopped; `cause` is the error that stopped it, or None if it was asked to."""

    def __init__(self, cause: BaseException | None = None) -> None:
        super().__init__("the node has stopped" if cause is None else f"the node has stopped: {cause}")
        self.cause = cause
