"""What the holder of a session carries: requests, lots of small ones, and the units in which they travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from ..core.messages import ProposeRejected
from ..errors import RaftError
from ..types import LogIndex, Term

__all__ = ["LENGTH_BYTES", "Appended", "Lot", "Request", "Resolve", "ResolvePart", "Unit"]

LENGTH_BYTES: Final = 4
"""What an entry takes in a batch beside its payload."""


@dataclass(slots=True, frozen=True)
class Appended:
    """The entries of a request are committed, the first at `first_index`, all in `term`."""

    first_index: LogIndex
    term: Term


Resolve: TypeAlias = Callable[[Appended | RaftError], None]

ResolvePart: TypeAlias = Callable[[int, int, Appended | RaftError], None]
"""The outcome of the requests of a lot from one place up to, without, another."""


@dataclass(slots=True)
class Request:
    """Entries to append, all or none.

    count: for how many requests of the user it stands. resolve: None once it has its outcome.
    """

    number: int
    payloads: Sequence[bytes]
    size_bytes: int
    condition: tuple[LogIndex, Term] | None
    deadline_ns: int
    resolve: Resolve | None
    count: int = 1

    def parts(self) -> list[Request]:
        """Itself; of a lot that waits for its outcome, the single requests."""
        return [self]


class Lot(Request):
    """Requests of one entry each that came in one turn of the loop: one deadline, one wake-up, no object for each.

    taken: the entries so far. room_bytes: what it still takes, each entry with LENGTH_BYTES; 0 once it is closed. Whoever adds
        an entry to `taken` reduces it: this is all that happens for each entry before they are joined into a batch.
    """

    __slots__ = ("resolve_part", "room_bytes", "taken")

    def __init__(self, number: int, room_bytes: int, deadline_ns: int, resolve_part: ResolvePart) -> None:
        taken: list[bytes] = []

        def resolve_all(outcome: Appended | RaftError) -> None:
            resolve_part(0, len(taken), outcome)

        # Nothing here refers to itself: what a lot holds is to go with it, not with the next garbage collection.
        super().__init__(number, taken, room_bytes, None, deadline_ns, resolve_all)
        self.taken = taken
        self.room_bytes = room_bytes
        self.resolve_part = resolve_part

    def close(self) -> None:
        self.size_bytes -= self.room_bytes
        self.room_bytes = 0
        self.count = len(self.taken)

    def parts(self) -> list[Request]:
        if self.resolve is None:
            return [self]
        return [
            Request(
                self.number,
                (payload,),
                len(payload) + LENGTH_BYTES,
                None,
                self.deadline_ns,
                partial(self.resolve_part, at, at + 1),
            )
            for at, payload in enumerate(self.payloads)
        ]


@dataclass(slots=True)
class Unit:
    """Requests that travel, and stand in the log, as one batch.

    number: its place among the units of its session. patience_ns: until when anybody waits for it.
    request_id: of the latest attempt; 0: the next one has a new number. attempts: how often it was handed over.
    unanswered: attempts of which it is not known that they were without effect. refusal: the latest answer.
    handed: to the present leader, at handed_ns, and not answered yet.
    """

    number: int
    session: int
    sequence: int
    count: int
    opened_at: LogIndex
    body: bytes
    condition: tuple[LogIndex, Term] | None
    requests: list[Request] = field(default_factory=list)
    patience_ns: int = 0
    request_id: int = 0
    attempts: int = 0
    unanswered: int = 0
    refusal: ProposeRejected | None = None
    handed: bool = False
    handed_ns: int = 0

    @property
    def abandoned(self) -> bool:
        """Nobody waits for it any more; it may still commit."""
        return all(request.resolve is None for request in self.requests)
