"""What happened in a run, a record a line: enough to redraw it and to check it. Version 1 of the format.

    {"type": "header", "version": 1, "voters": [1, 2, 3], "seed": 7, ...}
    {"type": "started", "t_ns": 0, "node": 1, "term": 0, "voted_for": null, "commit_index": 0, "log": []}
    {"type": "step", "t_ns": 19, "node": 1, "event": "received", "sender": 2, "message": {"type": "RequestVote", "term": 1, ...},
     "role": "follower", "term": 1, "voted_for": 2, "commit_index": 0, "last_index": 0, "last_term": 0,
     "sent": [[2, {"type": "VoteAccepted", ...}]], "wrote": {"token": 1, ...}}
    {"type": "crashed", "t_ns": 31, "node": 1, "how": "power"}

A step is one event that the core handled: its state afterwards, what it asked to write and to send. Messages are whole, but that
batches are named (place, term, kind, checksum) instead of repeated. Times are nanoseconds of the world.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, TypeAlias

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


def key_of(message: dict[str, Any]) -> bytes:
    """The same for the same message, in memory or from a file."""
    return _ENCODER.encode(message)


def dump_record(record: Record) -> bytes:
    """One line, without its end."""
    return _ENCODER.encode(record)


def load_trace(lines: Iterable[bytes | str]) -> Iterator[Record]:
    """Decode a trace. Raises ValueError, which names the line."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _DECODER.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from error
        if number == 1 and not isinstance(record, Header):
            raise ValueError("line 1: a trace begins with its header")
        if isinstance(record, Header) and record.version > VERSION:
            raise ValueError(
                f"line {number}: version {record.version} of the format, this totora knows {VERSION}"
            )
        if isinstance(record, Step):
            _restore(record)
        yield record


def _restore(record: Step) -> None:
    """Batches in messages come as plain lists from a file."""
    for message in (record.message, *(message for _, message in record.sent)):
        if message is not None and "batches" in message:
            message["batches"] = [BatchRef(*fields) for fields in message["batches"]]
