"""What a user asks of the log and gets back: the ancestor's requests and results, each a type of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NoReturn, TypeAlias, TypeVar

import msgspec

from ..errors import InvalidRequest, RaftError
from ..types import NUMBER_MAX, Entry, LogIndex, Term

__all__ = [
    "AppendRequest",
    "ClientRequest",
    "Err",
    "IndexRange",
    "Ok",
    "Response",
    "Result",
    "append_request",
    "check_numbers",
    "index_range",
]

T = TypeVar("T")
V = TypeVar("V")


def check_numbers(**fields: object) -> None:
    """What a message cannot carry is the caller's mistake, not a peer's. Raises InvalidRequest."""
    for name, value in fields.items():
        if type(value) is not int or not 0 <= value <= NUMBER_MAX:
            raise InvalidRequest(f"{name} is a whole number, at least 0 and below 2**63, not {value!r}")


class IndexRange(msgspec.Struct, frozen=True):
    """Read the users' entries from `start_index` to `end_index`, both included, linearizably.

    Answered by `Ok` of entries, ascending (indexes of no-ops and configurations are skipped, so it may be empty), or by
    `Err` of OutOfRange, RangeTooLarge, Compacted or Unavailable.
    """

    start_index: LogIndex
    end_index: LogIndex

    def __post_init__(self) -> None:
        if (
            type(self.start_index) is not int
            or type(self.end_index) is not int
            or self.end_index > NUMBER_MAX
        ):
            check_numbers(start_index=self.start_index, end_index=self.end_index)
        if not 1 <= self.start_index <= self.end_index:
            raise InvalidRequest(
                f"a range runs from an index of at least 1 to one that is not smaller, not {self.start_index} to {self.end_index}"
            )


class AppendRequest(msgspec.Struct, Generic[T], frozen=True):
    """Append these entries, all or none, at the end of the log.

    prev_log_index, prev_log_term: append only if this is the last user's entry of the log ((0, 0): there is none yet);
        both or neither. Answered by `Ok` of the entries with their places, or by `Err` of LogMismatch, EntryTooLarge,
        Overloaded, Unavailable or OutcomeUnknown.
    """

    entries: Sequence[T]
    prev_log_index: LogIndex | None = None
    prev_log_term: Term | None = None

    def __post_init__(self) -> None:
        if not self.entries:
            raise InvalidRequest("a request to append needs at least one entry")
        if isinstance(self.entries, str | bytes | bytearray | memoryview):
            raise InvalidRequest("entries is a sequence of entries: write [entry] to append a single one")
        if (self.prev_log_index is None) != (self.prev_log_term is None):
            raise InvalidRequest("give both prev_log_index and prev_log_term, or neither")
        if self.prev_log_index is not None:
            check_numbers(prev_log_index=self.prev_log_index, prev_log_term=self.prev_log_term)

    @property
    def condition(self) -> tuple[LogIndex, Term] | None:
        if self.prev_log_index is None or self.prev_log_term is None:
            return None
        return self.prev_log_index, self.prev_log_term


ClientRequest: TypeAlias = IndexRange | AppendRequest[T]


def index_range(start_index: LogIndex, end_index: LogIndex) -> IndexRange:
    """Read the entries from `start_index` to `end_index`, both included. Raises InvalidRequest."""
    return IndexRange(start_index, end_index)


def append_request(
    entries: Sequence[T], *, prev_log_index: LogIndex | None = None, prev_log_term: Term | None = None
) -> AppendRequest[T]:
    """Append `entries`, all or none; with both `prev_` only if that is the log's last entry. Raises InvalidRequest."""
    return AppendRequest(entries, prev_log_index, prev_log_term)


class Ok(msgspec.Struct, Generic[V], frozen=True):
    """A request was carried out."""

    value: V

    def unwrap(self) -> V:
        return self.value


class Err(msgspec.Struct, frozen=True):
    """A request was not carried out, or that is not known; `str(error)` is a sentence for a person."""

    error: RaftError

    def unwrap(self) -> NoReturn:
        """Raise the error."""
        raise self.error


Result: TypeAlias = Ok[V] | Err
Response: TypeAlias = Ok[Sequence[Entry[T]]] | Err
