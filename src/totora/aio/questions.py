"""What a client asks and nobody is changed by: each question is asked of one node after the other until it has an outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..errors import Overloaded, RaftError, Unavailable
from ..types import FAR_NS
from ..wire.client import RangeRead, ReadRange, RequestReadIndex

__all__ = ["PENDING_QUESTIONS_MAX", "Answered", "Question", "Questions"]

PENDING_QUESTIONS_MAX: Final = 1_024
QUESTIONS_IN_FLIGHT_MAX: Final = 6
"""Each may be answered by a whole page, and a node drops a receiver that is 64 MiB behind."""

Question: TypeAlias = Callable[[int, int], ReadRange | RequestReadIndex]
"""Makes the message of a request_id and the nanoseconds that are left."""

Answered: TypeAlias = Callable[[RangeRead | RaftError], None]


@dataclass(slots=True)
class _Asked:
    make: Question
    deadline_ns: int
    resolve: Answered
    handed: bool = False


class Questions:
    """Those without an outcome, in the order in which they were asked.

    patience_ns: no node is given longer for an answer.
    """

    def __init__(self, next_request_id: Callable[[], int], patience_ns: int) -> None:
        self._next_request_id = next_request_id
        self._patience_ns = patience_ns
        self._asked: dict[int, _Asked] = {}
        self._in_flight = 0

    def __len__(self) -> int:
        return len(self._asked)

    def add(self, question: Question, deadline_ns: int, resolve: Answered) -> None:
        """`resolve` is called once, later. Raises Overloaded."""
        if len(self._asked) >= PENDING_QUESTIONS_MAX:
            raise Overloaded(PENDING_QUESTIONS_MAX, "reads")
        self._asked[self._next_request_id()] = _Asked(question, deadline_ns, resolve)

    def outgoing(self, now: int) -> Iterator[ReadRange | RequestReadIndex]:
        """What to ask now."""
        if self._in_flight == len(self._asked):
            return
        for request_id, asked in self._asked.items():
            if self._in_flight >= QUESTIONS_IN_FLIGHT_MAX:
                return
            if not asked.handed:
                asked.handed = True
                self._in_flight += 1
                yield asked.make(request_id, min(max(1, asked.deadline_ns - now), self._patience_ns))

    def ask_again(self) -> None:
        """There is another stream: nothing that was asked over the former one is answered any more."""
        self._in_flight = 0
        for asked in self._asked.values():
            asked.handed = False

    def answered(self, request_id: int, outcome: RangeRead | RaftError) -> None:
        asked = self._asked.pop(request_id, None)
        if asked is not None:
            self._in_flight -= 1
            asked.resolve(outcome)

    def deadline(self) -> int:
        """When `expire` is wanted next."""
        return min((asked.deadline_ns for asked in self._asked.values()), default=FAR_NS)

    def expire(self, now: int, why: Callable[[], str]) -> None:
        """Give an outcome to those whose time is over; `why` tells what is missing."""
        for request_id, asked in list(self._asked.items()):
            if asked.deadline_ns <= now:
                del self._asked[request_id]
                self._in_flight -= asked.handed
                asked.resolve(Unavailable(why()))
