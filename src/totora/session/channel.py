"""The channel without threads: requests in, responses out in the order of the requests, both bounded.

    offer -> queued -> take (as far as order allows) -> carried out -> answer -> kept until its turn -> poll

Appends may be carried out while others are under way: the session keeps them in order. A read waits for every earlier append,
and an append for every earlier read, so each request takes effect in its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ..errors import Overloaded

__all__ = ["REQUESTS_MAX", "RESPONSES_MAX", "Channel", "Ticket"]

REQUESTS_MAX: Final = 1_024
"""Requests that were sent and not yet taken by the node."""

RESPONSES_MAX: Final = 65_536
"""Responses that nobody has read, and requests that will each become one."""

Req = TypeVar("Req")
Resp = TypeVar("Resp")


class Ticket(Generic[Resp]):
    """A request's place in the order of responses."""

    __slots__ = ("is_read", "response")

    def __init__(self, is_read: bool) -> None:
        self.is_read = is_read
        self.response: Resp | None = None


class Channel(Generic[Req, Resp]):
    """One pair of channels. Not thread-safe: a face that has threads locks around it."""

    def __init__(
        self,
        is_read: Callable[[Req], bool],
        *,
        requests_max: int = REQUESTS_MAX,
        responses_max: int = RESPONSES_MAX,
    ) -> None:
        self._is_read = is_read
        self._requests_max = requests_max
        self._responses_max = responses_max
        self._queued: deque[Req] = deque()
        self._tickets: deque[Ticket[Resp]] = deque()
        self._ready: deque[Resp] = deque()
        self._reads_under_way = 0
        self._appends_under_way = 0
        self._closed = False
        self._discard = False

    # -- the sender's end

    @property
    def full(self) -> bool:
        """The queue of requests is full: offer again once the node has taken some."""
        return len(self._queued) >= self._requests_max

    def offer(self, request: Req) -> bool:
        """Queue a request; False if the queue is full. Raises Overloaded while unread responses fill theirs."""
        assert not self._closed, "a closed sender sends nothing"
        if len(self._ready) + len(self._tickets) + len(self._queued) >= self._responses_max:
            raise Overloaded(self._responses_max, "responses")
        if self.full:
            return False
        self._queued.append(request)
        return True

    def close(self) -> None:
        """Nothing more will be sent; what was sent is still answered."""
        self._closed = True

    @property
    def closed(self) -> bool:
        return self._closed

    # -- the node's end

    def take(self) -> tuple[Ticket[Resp], Req] | None:
        """The next request that may be carried out now; None if there is none, or it must wait for earlier ones."""
        if not self._queued:
            return None
        is_read = self._is_read(self._queued[0])
        if self._appends_under_way if is_read else self._reads_under_way:
            return None
        if is_read:
            self._reads_under_way += 1
        else:
            self._appends_under_way += 1
        ticket: Ticket[Resp] = Ticket(is_read)
        self._tickets.append(ticket)
        return ticket, self._queued.popleft()

    def answer(self, ticket: Ticket[Resp], response: Resp) -> bool:
        """The outcome of a request that was taken; True if responses became ready to be read."""
        ticket.response = response
        if ticket.is_read:
            self._reads_under_way -= 1
        else:
            self._appends_under_way -= 1
        return self._release()

    def _release(self) -> bool:
        became_ready = False
        while self._tickets and (head := self._tickets[0].response) is not None:
            self._tickets.popleft()
            if not self._discard:
                self._ready.append(head)
                became_ready = True
        return became_ready

    @property
    def drained(self) -> bool:
        """The sender is closed and everything that it sent has its answer: the node may stop."""
        return self._closed and not self._queued and not self._tickets

    @property
    def wants_node(self) -> bool:
        """There may be something for the node to take, or it may stop."""
        return bool(self._queued) or self._closed

    def abandon(self, response: Resp) -> None:
        """The node stops: `response` is what every request gets that it never took, in its turn."""
        self._closed = True
        while self._queued:
            ticket: Ticket[Resp] = Ticket(self._is_read(self._queued.popleft()))
            ticket.response = response
            self._tickets.append(ticket)
        self._release()

    # -- the receiver's end

    def poll(self) -> Resp | None:
        """The next response, in the order of the requests; None if it is not there yet."""
        return self._ready.popleft() if self._ready else None

    def discard(self) -> None:
        """Nobody will read: responses are dropped from now on."""
        self._discard = True
        self._ready.clear()
