"""Read indexes for those who ask here: many wait, one question goes to the leader (thesis 6.4).

submit -> waiting -> asked (one question for all that wait) -> confirmed at an index -> committed here -> resolved
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ..errors import NodeStopped, Overloaded, RaftError, Unavailable
from ..types import FAR_NS, LogIndex

__all__ = ["PENDING_READS_MAX", "ReadIndexes"]

PENDING_READS_MAX: Final = 65_536

RETRY_NS: Final = 5_000_000
"""A question that was refused is asked again after this."""

Resolve: TypeAlias = Callable[[LogIndex | RaftError], None]


@dataclass(slots=True, order=True)
class _Read:
    read_index: LogIndex
    number: int
    deadline_ns: int = field(compare=False)
    resolve: Resolve = field(compare=False)


class ReadIndexes:
    """Reads of one node that wait for a read index. A read has no effect, so one that is late is `Unavailable`.

    retransmit_ns: what is unanswered for so long is asked again, where messages may be lost; 0: they are not.
    """

    def __init__(self, next_request_id: Callable[[], int], *, retransmit_ns: int = 0) -> None:
        self._next_request_id = next_request_id
        self._retransmit_ns = retransmit_ns
        self._asked_ns: dict[int, int] = {}
        self._again: list[int] = []
        self._waiting: list[_Read] = []
        self._asked: dict[int, list[_Read]] = {}
        self._confirmed: list[_Read] = []
        self._pending = 0
        self._number = 0
        self.earliest_ns = FAR_NS
        self._paused_until_ns = 0

    def submit(self, deadline_ns: int, resolve: Resolve) -> None:
        """`resolve` is called once, later, with an index that is committed here and may be read. Raises Overloaded."""
        if self._pending >= PENDING_READS_MAX:
            raise Overloaded(PENDING_READS_MAX, "reads")
        self._pending += 1
        self._number += 1
        self._waiting.append(_Read(0, self._number, deadline_ns, resolve))
        self.earliest_ns = min(self.earliest_ns, deadline_ns)

    def outgoing(self, now: int) -> list[int]:
        """The ids of questions to ask the leader now: one for all who wait, and those that were unanswered for too long."""
        if now < self._paused_until_ns:
            return []
        again, self._again = self._again, []
        request_ids = [request_id for request_id in again if request_id in self._asked]
        if self._waiting:
            request_ids.append(self._next_request_id())
            self._asked[request_ids[-1]], self._waiting = self._waiting, []
            self._asked_ns[request_ids[-1]] = now
        return request_ids

    def _take(self, request_id: int) -> list[_Read]:
        self._asked_ns.pop(request_id, None)
        return self._asked.pop(request_id, [])

    def accepted(self, request_id: int, read_index: LogIndex, commit_index: LogIndex) -> None:
        """The leader answered; whoever asked waits until this node has committed as much."""
        for read in self._take(request_id):
            read.read_index = read_index
            insort(self._confirmed, read)
        self.committed(commit_index)

    def committed(self, commit_index: LogIndex) -> None:
        while self._confirmed and self._confirmed[0].read_index <= commit_index:
            read = self._confirmed.pop(0)
            self._finish(read, read.read_index)

    def rejected(self, request_id: int, now: int) -> None:
        """Ask again, a little later."""
        if request_id in self._asked:
            self._paused_until_ns = now + RETRY_NS
            self._waiting = self._take(request_id) + self._waiting

    def leader_changed(self) -> None:
        """What was asked may never be answered: ask the new leader."""
        asked = [read for reads in self._asked.values() for read in reads]
        self._asked.clear()
        self._asked_ns.clear()
        self._again.clear()
        self._paused_until_ns = 0
        self._waiting = asked + self._waiting

    def deadline(self) -> int:
        """When `expire` is wanted next, or `outgoing` again; FAR_NS: not for time's sake."""
        when = self.earliest_ns
        if self._paused_until_ns and self._waiting:
            when = min(when, self._paused_until_ns)
        if self._retransmit_ns and self._asked_ns:
            when = min(when, min(self._asked_ns.values()) + self._retransmit_ns)
        return when

    def expire(self, now: int, why: Callable[[], str]) -> None:
        """Give an outcome to every read whose time is over; `why` tells what is missing."""
        if now >= self._paused_until_ns:
            self._paused_until_ns = 0
        if self._retransmit_ns:
            for request_id, asked_ns in self._asked_ns.items():
                if now >= asked_ns + self._retransmit_ns:
                    # Under the same id: an answer to any copy is an answer, however slow the network is.
                    self._again.append(request_id)
                    self._asked_ns[request_id] = now
        if now < self.earliest_ns:
            return
        late: list[_Read] = []
        remaining: list[_Read] = []

        def keep(reads: list[_Read]) -> list[_Read]:
            late.extend(read for read in reads if read.deadline_ns <= now)
            kept = [read for read in reads if read.deadline_ns > now]
            remaining.extend(kept)
            return kept

        self._waiting = keep(self._waiting)
        self._confirmed = keep(self._confirmed)
        self._asked = {request_id: kept for request_id, reads in self._asked.items() if (kept := keep(reads))}
        self._asked_ns = {request_id: self._asked_ns[request_id] for request_id in self._asked}
        self.earliest_ns = min((read.deadline_ns for read in remaining), default=FAR_NS)
        for read in late:
            self._finish(read, Unavailable(why()))

    def stop(self, cause: BaseException | None) -> None:
        self.leader_changed()
        reads, self._waiting = self._waiting + self._confirmed, []
        self._confirmed = []
        for read in reads:
            self._finish(read, NodeStopped(cause))

    def _finish(self, read: _Read, outcome: LogIndex | RaftError) -> None:
        self._pending -= 1
        read.resolve(outcome)
