"""The leader's side of a proposal: from its place in the log to the answer once that is committed."""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..types import LogIndex, Term

__all__ = ["CommitTracker"]

K = TypeVar("K")


@dataclass(slots=True, order=True)
class _Waiting(Generic[K]):
    last_index: LogIndex
    number: int
    term: Term
    first_index: LogIndex
    key: K


class CommitTracker(Generic[K]):
    """Appended proposals that wait for commitment. Bounded by what the core lets be uncommitted, and by sessions."""

    def __init__(self) -> None:
        self.waiting: deque[_Waiting[K]] = deque()
        self._number = 0

    def appended(self, key: K, first_index: LogIndex, last_index: LogIndex, term: Term) -> None:
        self._number += 1
        waiting = _Waiting(last_index, self._number, term, first_index, key)
        if not self.waiting or self.waiting[-1].last_index <= last_index:
            self.waiting.append(waiting)
        else:
            # A retry of what was appended earlier: its place lies before the latest.
            insort(self.waiting, waiting)

    def committed(self, commit_index: LogIndex) -> list[tuple[K, LogIndex, LogIndex, Term]]:
        """Take out (key, first_index, last_index, term) of all that lie at or before `commit_index`."""
        done = []
        while self.waiting and self.waiting[0].last_index <= commit_index:
            waiting = self.waiting.popleft()
            done.append((waiting.key, waiting.first_index, waiting.last_index, waiting.term))
        return done

    def abandon(self) -> list[K]:
        """Leadership is lost: take out everything."""
        keys = [waiting.key for waiting in self.waiting]
        self.waiting.clear()
        return keys
