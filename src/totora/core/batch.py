"""The batch: the unit of the log, encoded once, the same bytes on every disk and on the wire.

A batch holds the entries of one term that were appended together. It is atomic: never split, merged or cut, so
conflicts and truncations fall on its ends. Its header, version 1, little-endian, 64 bytes:

    offset  size  field
    0       4     checksum         zlib.crc32 of everything after it, body included
    4       1     version          1
    5       1     kind             `Kind`; open numbering, an unknown kind stops the node
    6       2     reserved         0
    8       4     body_bytes       length of the body
    12      4     count            entries, at least 1
    16      8     term
    24      8     first_index
    32      8     session          0: none (a leader's own batch)
    40      8     sequence         number of the first entry within the session, from 1
    48      8     leader_time_ns   the leader's clock, nanoseconds since the epoch
    56      4     machine_version  of the state machine that the commands are for; 0: none
    60      4     reserved         0

The body is `count` lengths (4 bytes each) followed by the entries, each as its entry type encodes it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final

from ..errors import ProtocolError
from ..types import LogIndex, Term

__all__ = ["HEADER_BYTES", "Batch", "Kind", "join_payloads", "split_payloads"]

_HEADER: Final = struct.Struct("<IBBHIIQQQQQII")
_CHECKSUM: Final = struct.Struct("<I")
_LENGTH: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEADER.size
VERSION: Final = 1


class Kind(IntEnum):
    """What the entries of a batch are."""

    NOOP = 1
    """A new leader's first entry, so that it can commit (section 8)."""
    ENTRIES = 2
    """The users' entries."""
    CONFIGURATION = 3
    """The cluster's members, as the log agrees on them (section 6)."""


def join_payloads(payloads: Sequence[bytes]) -> bytes:
    """The body of a batch that holds `payloads`, one entry each."""
    return b"".join((struct.pack(f"<{len(payloads)}I", *map(len, payloads)), *payloads))


def split_payloads(body: memoryview, count: int) -> list[memoryview]:
    """The entries of a body of `count`; ProtocolError if the lengths do not add up."""
    _check_count(body, count)
    lengths = struct.unpack_from(f"<{count}I", body)
    _check_end(body, 4 * count + sum(lengths))
    return _cut(body, 4 * count, lengths)


def _cut(body: memoryview, at: int, lengths: Sequence[int]) -> list[memoryview]:
    payloads = []
    for length in lengths:
        end = at + length
        payloads.append(body[at:end])
        at = end
    return payloads


def _check_count(body: memoryview, count: int) -> None:
    if count < 1 or 4 * count > len(body):
        raise ProtocolError("batch", f"a body of {len(body)} bytes cannot hold {count} entries")


def _check_end(body: memoryview, end: int) -> None:
    if end != len(body):
        raise ProtocolError("batch", f"entries take {end} bytes, the body has {len(body)}")


def _each_payload(body: memoryview, count: int) -> Iterator[memoryview]:
    _check_count(body, count)
    start = lengths_bytes = 4 * count
    for (length,) in _LENGTH.iter_unpack(body[:lengths_bytes]):
        end = start + length
        yield body[start:end]
        start = end
    _check_end(body, start)


class Batch:
    """A batch, its header's fields beside the encoded bytes (`data`: header and body). Never changed once made."""

    __slots__ = (
        "count",
        "data",
        "first_index",
        "kind",
        "last_index",
        "leader_time_ns",
        "machine_version",
        "sequence",
        "session",
        "term",
    )

    def __init__(self, data: bytes, fields: tuple[int, ...]) -> None:
        _, _, self.kind, _, _, self.count, self.term, self.first_index = fields[:8]
        self.session, self.sequence, self.leader_time_ns, self.machine_version, _ = fields[8:]
        self.last_index: LogIndex = self.first_index + self.count - 1
        self.data = data

    @classmethod
    def build(
        cls,
        kind: int,
        term: Term,
        first_index: LogIndex,
        count: int,
        body: bytes,
        *,
        session: int = 0,
        sequence: int = 0,
        leader_time_ns: int = 0,
        machine_version: int = 0,
    ) -> Batch:
        """Encode a batch: the only place where one comes into being."""
        fields = (
            0,
            VERSION,
            kind,
            0,
            len(body),
            count,
            term,
            first_index,
            session,
            sequence,
            leader_time_ns,
            machine_version,
            0,
        )
        header = _HEADER.pack(*fields)[4:]
        checksum = _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header)))
        return cls(b"".join((checksum, header, body)), fields)

    @classmethod
    def parse(cls, data: bytes) -> Batch:
        """Take a batch from its bytes, verified; ProtocolError if they are not exactly one sound batch."""
        if len(data) < HEADER_BYTES:
            raise ProtocolError("batch", f"{len(data)} bytes are less than a header")
        fields = _HEADER.unpack_from(data)
        checksum, version, _, _, body_bytes, count, term, first_index = fields[:8]
        if version != VERSION:
            raise ProtocolError("batch", f"version {version} is not known here (only {VERSION} is)")
        if len(data) != HEADER_BYTES + body_bytes:
            raise ProtocolError("batch", f"{len(data)} bytes do not match a body of {body_bytes}")
        if zlib.crc32(memoryview(data)[4:]) != checksum:
            raise ProtocolError("batch", "checksum does not match")
        if count < 1 or term < 1 or first_index < 1:
            raise ProtocolError(
                "batch", f"count {count}, term {term}, first index {first_index} must be positive"
            )
        return cls(data, fields)

    def payloads(self) -> list[memoryview]:
        """The entries as they were encoded, without a copy."""
        return split_payloads(memoryview(self.data)[HEADER_BYTES:], self.count)

    def payloads_between(self, start: LogIndex, end: LogIndex) -> list[memoryview]:
        """The same of those entries that it holds of the ones from `start` to `end`; it does not look at the others."""
        skip, stop = max(0, start - self.first_index), min(self.count, end + 1 - self.first_index)
        if skip == 0 and stop == self.count:
            return self.payloads()
        if skip >= stop:
            return []
        body = memoryview(self.data)[HEADER_BYTES:]
        _check_count(body, self.count)
        lengths = struct.unpack_from(f"<{stop}I", body)
        return _cut(body, 4 * self.count + sum(lengths[:skip]), lengths[skip:])

    def each_payload(self) -> Iterator[memoryview]:
        """The same one by one: a batch may hold very many, too many for one turn of a loop."""
        return _each_payload(memoryview(self.data)[HEADER_BYTES:], self.count)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"<Batch kind={self.kind} term={self.term} {self.first_index}..{self.last_index}>"
