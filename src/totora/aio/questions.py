"""What a client asks and nobody is changed by: each question is asked of one node after the other until it has an outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ..errors import Overloaded, ProtocolError, RaftError, Unavailable
from ..types import FAR_NS, LogIndex
from ..wire.client import RangesRead, ReadRanges
from .ranges import RANGES_MAX, Ranges, ResolveRanges

__all__ = ["PENDING_QUESTIONS_MAX", "Questions"]

PENDING_QUESTIONS_MAX: Final = 1_024
"""Reads that wait, however they travel."""

QUESTIONS_IN_FLIGHT_MAX: Final = 6
"""Each may be answered by a whole page, and a node drops a receiver that is 64 MiB behind."""


class _Question(Ranges):
    """A lot of ranges, or none: then what is committed is asked for.

    handed: to a node that has not answered yet.
    """

    __slots__ = ("commit_index", "handed")

    def __init__(self, deadline_ns: int, room: int, resolve: ResolveRanges) -> None:
        super().__init__(deadline_ns, room, resolve)
        self.commit_index: LogIndex = 0
        self.handed = False


class Questions:
    """Those without an outcome, in the order in which they were asked.

    patience_ns: no node is given longer for an answer.
    """

    def __init__(self, next_request_id: Callable[[], int], patience_ns: int) -> None:
        self._next_request_id = next_request_id
        self._patience_ns = patience_ns
        self._asked: dict[int, _Question] = {}
        self._opened: list[_Question] = []
        self._in_flight = 0

    def __len__(self) -> int:
        return len(self._asked)

    def open(self, deadline_ns: int, resolve: ResolveRanges) -> Ranges:
        """A lot for this turn of the loop; `resolve` is called once for each range. Raises Overloaded."""
        question = self._add(_Question(deadline_ns, min(self._room(), RANGES_MAX), resolve))
        self._opened.append(question)
        return question

    def ask_index(self, deadline_ns: int, resolve: Callable[[LogIndex | RaftError], None]) -> None:
        """What is committed now; `resolve` is called once, later. Raises Overloaded."""

        def answered(_start: int, _stop: int, outcome: object) -> None:
            resolve(outcome if isinstance(outcome, RaftError) else question.commit_index)

        self._room()
        question = self._add(_Question(deadline_ns, 0, answered))

    def _add(self, question: _Question) -> _Question:
        self._asked[self._next_request_id()] = question
        return question

    def _room(self) -> int:
        pending = sum(question.count or 1 for question in self._asked.values())
        if pending >= PENDING_QUESTIONS_MAX:
            raise Overloaded(PENDING_QUESTIONS_MAX, "reads")
        return PENDING_QUESTIONS_MAX - pending

    def close_lots(self) -> None:
        """The turn is over."""
        for question in self._opened:
            question.room = 0
        self._opened.clear()

    def outgoing(self, now: int) -> Iterator[ReadRanges]:
        """What to ask now."""
        if self._in_flight == len(self._asked):
            return
        for request_id, question in self._asked.items():
            if self._in_flight >= QUESTIONS_IN_FLIGHT_MAX:
                return
            if not question.handed:
                question.handed = True
                self._in_flight += 1
                remaining_ns = min(max(1, question.deadline_ns - now), self._patience_ns)
                yield ReadRanges(request_id, remaining_ns, tuple(question.unresolved))

    def ask_again(self) -> None:
        """There is another stream: nothing that was asked over the former one is answered any more."""
        self._in_flight = 0
        for question in self._asked.values():
            question.handed = False

    def answered(self, peer: str, message: RangesRead) -> None:
        """Raises ProtocolError if a peer answers what it was not asked."""
        question = self._taken(peer, message.request_id, message.count)
        if question is not None:
            question.commit_index = message.commit_index
            question.answered(message.count, message.batches)

    def failed(self, peer: str, request_id: int, count: int, error: RaftError) -> None:
        """The first `count` ranges of a question have this outcome. Raises ProtocolError."""
        question = self._taken(peer, request_id, count)
        if question is not None:
            question.answered(count, error)

    def _taken(self, peer: str, request_id: int, count: int) -> _Question | None:
        """What is answered; it is asked again if that is not all of it."""
        question = self._asked.get(request_id)
        if question is None or not question.handed:
            return None
        remaining = question.count or 1
        if not 1 <= count <= remaining:
            raise ProtocolError(peer, f"answers {count} of {remaining} ranges")
        question.handed = False
        self._in_flight -= 1
        if count == remaining:
            del self._asked[request_id]
        return question

    def deadline(self) -> int:
        """When `expire` is wanted next."""
        return min((question.deadline_ns for question in self._asked.values()), default=FAR_NS)

    def expire(self, now: int, why: Callable[[], str]) -> None:
        """Give an outcome to those whose time is over; `why` tells what is missing."""
        for request_id, question in list(self._asked.items()):
            if question.deadline_ns <= now:
                del self._asked[request_id]
                self._in_flight -= question.handed
                question.room = 0
                question.answered(question.count or 1, Unavailable(why()))
