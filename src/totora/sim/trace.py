"""What happened in a run, a record a line: enough to redraw it and to check it. Version 1 of the format.

    {"type": "header", "version": 1, "voters": [1, 2, 3], "seed": 7, ...}
    {"type": "started", "t_ns": 0, "node": 1, "term": 0, "voted_for": null, "commit_index": 0, "log": []}
    {"type": "step", "t_ns": 19, "node": 1, "event": "received", "sender": 2, "message": {"type": "RequestVote", "term": 1, ...},
     "role": "follower", "term": 1, "voted_for": 2, "commit_index": 0, "last_index": 0, "last_term": 0,
     "sent": [[2, {"type": "VoteAccepted", ...}]], "wrote": {"token": 1, ...}}
    {"type": "crashed", "t_ns": 31, "node": 1, "how": "power"}

A step is one event that the core handled: its state afterwards, what it asked to write and to send. Messages are whole, but that
batches are named (place, term, kind, checksum) instead of repeated. Times are nanoseconds of the world. docs/guide/traces.md
tells all of it, for those who write traces of other implementations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

__all__ = [
    "BatchRef",
    "Crashed",
    "Header",
    "Record",
    "Started",
    "Step",
    "Wrote",
    "dump_record",
    "key_of",
    "load_trace",
    "numbered_trace",
]

VERSION: Final = 1


class BatchRef(msgspec.Struct, frozen=True, array_like=True):
    """Which batch: its place, its term, what it holds (`core.batch.Kind`), its checksum."""

    first_index: int
    last_index: int
    term: int
    kind: int
    checksum: int


class Header(msgspec.Struct, tag="header"):
    """First line: who takes part. What made the run is told in `run`."""

    voters: list[int]
    version: int = VERSION
    run: dict[str, Any] = {}


class Started(msgspec.Struct, tag="started"):
    """A node begins, with what its disk holds. wiped: it lost what it had before."""

    t_ns: int
    node: int
    term: int
    voted_for: int | None
    commit_index: int
    log: list[BatchRef]
    wiped: bool = False


class Crashed(msgspec.Struct, tag="crashed"):
    """A node is no more."""

    t_ns: int
    node: int
    how: Literal["power", "kill", "stop"]


class Wrote(msgspec.Struct, omit_defaults=True):
    """What a step asked to be made durable, in this order; `persisted` with this token says that it is."""

    token: int
    truncate_after: int | None = None
    hard_state: tuple[int, int | None] | None = None
    batches: list[BatchRef] = []


class Step(msgspec.Struct, tag="step", omit_defaults=True):
    """One event that the core of a node handled, and what it made of it.

    event: the event's name. sender, message: of `received`; token: of `persisted`; key: of `read_requested`.
    reads: (key, read_index) of the reads that were answered.
    """

    t_ns: int
    node: int
    event: str
    role: str
    term: int
    voted_for: int | None
    commit_index: int
    last_index: int
    last_term: int
    sender: int | None = None
    message: dict[str, Any] | None = None
    token: int | None = None
    key: str | None = None
    sent: list[tuple[int, dict[str, Any]]] = []
    wrote: Wrote | None = None
    reads: list[tuple[str, int]] = []


Record: TypeAlias = Header | Started | Step | Crashed


# -- files


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Record)

EVENTS: Final = frozenset(
    (
        "tick",
        "received",
        "persisted",
        "proposed",
        "read_requested",
        "transfer_requested",
        "entries_read",
        "link_up",
        "link_lost",
    )
)
ROLES: Final = frozenset(("follower", "pre-candidate", "candidate", "leader"))


def key_of(message: dict[str, Any]) -> bytes:
    """The same for the same message, in memory or from a file."""
    return _ENCODER.encode(message)


def dump_record(record: Record) -> bytes:
    """One line, without its end."""
    return _ENCODER.encode(record)


def load_trace(lines: Iterable[bytes | str]) -> Iterator[Record]:
    """Decode a trace. Raises ValueError, which names the line."""
    for _, record in numbered_trace(lines):
        yield record


def numbered_trace(lines: Iterable[bytes | str]) -> Iterator[tuple[int, Record]]:
    """Decode a trace, with the number of each record's line. Raises ValueError, which names the line."""
    header: Header | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _DECODER.decode(line)
            if header is None:
                header = _checked_header(record)
            else:
                _check(record, header)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from error
        yield number, record
    if header is None:
        raise ValueError("line 1: a trace begins with its header, and this one is empty")


def _checked_header(record: Record) -> Header:
    if not isinstance(record, Header):
        raise ValueError("a trace begins with its header")
    if not 1 <= record.version <= VERSION:
        raise ValueError(f"version {record.version} of the format, this totora knows {VERSION}")
    if not record.voters or len(set(record.voters)) < len(record.voters):
        raise ValueError(f"voters are at least one, each named once: {record.voters}")
    return record


def _check(record: Record, header: Header) -> None:
    """What the specification takes for granted. Messages get their batches and the order of their fields."""
    if isinstance(record, Header):
        raise ValueError("a second header")
    if record.node not in header.voters:
        raise ValueError(f"node {record.node} is none of the voters {header.voters}")
    if isinstance(record, Started):
        _check_numbers(record.term, record.commit_index)
        _check_batches(record.log)
        if record.log and record.log[0].first_index != 1:
            raise ValueError(f"a log begins at 1, not at {record.log[0].first_index}")
    elif isinstance(record, Step):
        _check_step(record)


def _check_step(record: Step) -> None:
    _check_numbers(record.term, record.commit_index, record.last_index, record.last_term)
    if record.event not in EVENTS:
        raise ValueError(f"no such event: {record.event!r}; there are {', '.join(sorted(EVENTS))}")
    if record.role not in ROLES:
        raise ValueError(f"no such role: {record.role!r}; there are {', '.join(sorted(ROLES))}")
    if record.event == "received":
        if record.sender is None or record.message is None:
            raise ValueError("received needs a sender and a message")
        record.message = _message(record.message)
    elif record.message is not None:
        raise ValueError(f"a message belongs to received, not to {record.event}")
    if record.event == "persisted" and record.token is None:
        raise ValueError("persisted needs a token")
    if record.event == "read_requested" and record.key is None:
        raise ValueError("read_requested needs a key")
    if record.wrote is not None:
        _check_numbers(record.wrote.truncate_after or 0)
        _check_batches(record.wrote.batches)
    if record.sent:
        record.sent = [(to, _message(message)) for to, message in record.sent]


def _check_numbers(*numbers: int) -> None:
    if min(numbers) < 0:
        raise ValueError(f"terms and indexes are not negative: {min(numbers)}")


def _check_batches(batches: Iterable[BatchRef]) -> None:
    """Each holds something, and each begins where the one before it ends."""
    end: int | None = None
    for batch in batches:
        if not 1 <= batch.first_index <= batch.last_index or batch.term < 0:
            raise ValueError(f"no batch is so: {batch}")
        if end is not None and batch.first_index != end + 1:
            raise ValueError(f"after {end} comes {end + 1}, not {batch}")
        end = batch.last_index


# -- messages: what the specification reads of them; whatever else they hold is kept

_Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Leader: TypeAlias = int | msgspec.UnsetType | None
_Round: TypeAlias = int | msgspec.UnsetType


class _Any(msgspec.Struct, kw_only=True):
    term: _Natural
    current_leader: _Leader = msgspec.UNSET
    batches: list[BatchRef] | msgspec.UnsetType = msgspec.UNSET


class _Asks(msgspec.Struct, kw_only=True):
    term: _Natural
    candidate_id: int
    last_log_index: _Natural
    last_log_term: _Natural


class _AppendEntries(msgspec.Struct, kw_only=True):
    term: _Natural
    leader_id: _Leader = msgspec.UNSET
    prev_log_index: _Natural
    prev_log_term: _Natural
    leader_commit: _Natural
    round: _Round = msgspec.UNSET
    batches: list[BatchRef]


class _AppendAccepted(msgspec.Struct, kw_only=True):
    term: _Natural
    current_leader: _Leader = msgspec.UNSET
    match_index: _Natural
    round: _Round = msgspec.UNSET


class _AppendRejected(msgspec.Struct, kw_only=True):
    term: _Natural
    current_leader: _Leader = msgspec.UNSET
    prev_log_index: int | msgspec.UnsetType = msgspec.UNSET
    hint_index: int | msgspec.UnsetType = msgspec.UNSET
    hint_term: int | msgspec.UnsetType = msgspec.UNSET
    round: _Round = msgspec.UNSET


_SHAPES: Final[dict[str, type[msgspec.Struct]]] = {
    "RequestVote": _Asks,
    "RequestPreVote": _Asks,
    "AppendEntries": _AppendEntries,
    "AppendAccepted": _AppendAccepted,
    "AppendRejected": _AppendRejected,
}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """With its batches, and its fields in one order: who sends and who receives it may write them in different ones."""
    kind = message.get("type")
    if not isinstance(kind, str):
        raise ValueError("a message has a type")
    shape = _SHAPES.get(kind, _Any)
    _ = msgspec.convert(message, shape)
    ordered = ("type", *shape.__struct_fields__)
    told = {name: message[name] for name in ordered if name in message}
    told |= {name: message[name] for name in sorted(message.keys() - told.keys())}
    if "batches" in told:
        told["batches"] = msgspec.convert(told["batches"], list[BatchRef])
        _check_batches(told["batches"])
    return told
