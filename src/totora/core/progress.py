"""What a leader knows of one follower's log: Figure 2's `next_index` and `match_index`, and what is under way to it.

A follower whose log is not known to match is probed: one message at a time. Once it matches, messages follow each other
without waiting for answers, within a window (thesis 10.2.1).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from ..types import LogIndex

__all__ = ["APPEND_BYTES_MAX", "IN_FLIGHT_MESSAGES_MAX", "Progress"]

APPEND_BYTES_MAX: Final = 1 << 20
"""One AppendEntries carries at most this much, or one batch."""

IN_FLIGHT_MESSAGES_MAX: Final = 256


@dataclass(slots=True)
class Progress:
    """One follower, seen from its leader.

    next_index: the next entry to send; match_index: the highest known to be durable there (Figure 2).
    acked_round: the highest round of heartbeats that it answered.
    contact_ns: when it was last heard of in this leadership.
    progress_ns: when its match_index last rose, or something was first sent with nothing under way.
    """

    next_index: LogIndex
    match_index: LogIndex = 0
    probing: bool = True
    probe_sent: bool = False
    reading: bool = False
    acked_round: int = 0
    contact_ns: int = 0
    progress_ns: int = 0
    in_flight_bytes: int = 0
    _in_flight: deque[tuple[LogIndex, int]] = field(default_factory=deque)

    def may_send(self, window_bytes: int) -> bool:
        """Nothing keeps the next message back: no read, no probe, no full window."""
        if self.reading:
            return False
        if self.probing:
            return not self.probe_sent
        return len(self._in_flight) < IN_FLIGHT_MESSAGES_MAX and self.in_flight_bytes < window_bytes

    @property
    def under_way(self) -> bool:
        return bool(self._in_flight)

    def sent(self, last_index: LogIndex, size_bytes: int, now: int) -> None:
        """Entries up to `last_index` left; while probing they wait for an answer, else the next ones may follow."""
        if self.probing:
            self.probe_sent = True
            return
        if not self._in_flight:
            self.progress_ns = now
        self.next_index = last_index + 1
        self._in_flight.append((last_index, size_bytes))
        self.in_flight_bytes += size_bytes

    def matched(self, match_index: LogIndex, now: int) -> None:
        """The follower holds everything up to `match_index`, which never falls (Figure 2)."""
        if match_index > self.match_index:
            self.match_index = match_index
            self.progress_ns = now
        self.next_index = max(self.next_index, self.match_index + 1)
        while self._in_flight and self._in_flight[0][0] <= self.match_index:
            self.in_flight_bytes -= self._in_flight.popleft()[1]

    def confirmed(self) -> None:
        """The follower's log matches up to next_index - 1: stop probing."""
        self.probing = self.probe_sent = False

    def probe(self, next_index: LogIndex) -> None:
        """What is under way may be lost, or did not match: begin again at `next_index`, one message at a time."""
        self.probing, self.probe_sent, self.reading = True, False, False
        self.next_index = max(next_index, self.match_index + 1)
        self._in_flight.clear()
        self.in_flight_bytes = 0
