"""When effects are carried out: writes in groups, messages after the writes they rest on.

What is asked for while a group is being written rides in the next one, so the group sizes itself: there is no timer, and
nothing to tune between latency and throughput.
"""

from __future__ import annotations

from collections import deque

from ..core.effects import Persist, Send, WriteToken

__all__ = ["Scheduler"]


class Scheduler:
    """Orders the writes and sends of one node. Its queues are bounded by what the core lets be under way.

    queued: the writes that wait for the group under way.
    """

    def __init__(self) -> None:
        self.queued: list[Persist] = []
        self._writing: WriteToken = 0
        self._durable: WriteToken = 0
        self._held: deque[Send] = deque()

    @property
    def idle(self) -> bool:
        """Nothing is being written, and nothing waits to be."""
        return self._writing == self._durable and not self.queued

    def may_leave(self, send: Send) -> bool:
        """True if the message rests on nothing that is not durable; else it is kept until it does."""
        if send.after is None or send.after <= self._durable:
            return True
        self._held.append(send)
        return False

    def next_group(self) -> list[Persist]:
        """The writes to carry out now, all of them in one; empty while others are under way, or if there are none."""
        if self._writing != self._durable or not self.queued:
            return []
        group, self.queued = self.queued, []
        self._writing = group[-1].token
        return group

    def written(self) -> tuple[WriteToken, list[Send]]:
        """The group under way is durable: returns its last token, and the messages that may leave now."""
        self._durable = self._writing
        released = []
        while self._held and (self._held[0].after or 0) <= self._durable:
            released.append(self._held.popleft())
        return self._durable, released
