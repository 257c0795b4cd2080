"""Requests in, responses out in their order; a read waits for earlier appends, an append for earlier reads; all bounded."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.levels import by_level
from totora.errors import Overloaded
from totora.session.channel import Channel, Ticket


def is_read(request: str) -> bool:
    return request.startswith("r")


def channel(requests_max: int = 8, responses_max: int = 16) -> Channel[str, str]:
    return Channel(is_read, requests_max=requests_max, responses_max=responses_max)


def take(pair: Channel[str, str], expected: str) -> Ticket[str]:
    taken = pair.take()
    assert taken is not None, f"{expected} may be taken"
    ticket, request = taken
    assert request == expected
    return ticket


def test_responses_come_in_the_order_of_the_requests() -> None:
    pair = channel()
    for request in ("a1", "a2", "a3"):
        assert pair.offer(request)
    tickets = [take(pair, request) for request in ("a1", "a2", "a3")]
    assert pair.take() is None
    assert not pair.answer(tickets[1], "2")
    assert not pair.answer(tickets[2], "3")
    assert pair.poll() is None, "the first one is not there yet"
    assert pair.answer(tickets[0], "1")
    assert [pair.poll() for _ in range(4)] == ["1", "2", "3", None]


def test_a_read_waits_for_every_earlier_append_and_an_append_for_every_earlier_read() -> None:
    pair = channel()
    for request in ("a1", "a2", "r3", "r4", "a5"):
        pair.offer(request)
    one, two = take(pair, "a1"), take(pair, "a2")
    assert pair.take() is None
    pair.answer(two, "2")
    assert pair.take() is None, "one append is still under way"
    pair.answer(one, "1")
    three, four = take(pair, "r3"), take(pair, "r4")
    assert pair.take() is None
    pair.answer(three, "3")
    assert pair.take() is None
    pair.answer(four, "4")
    take(pair, "a5")


def test_the_queue_of_requests_is_bounded() -> None:
    pair = channel(requests_max=2)
    assert pair.offer("a1")
    assert not pair.full
    assert pair.offer("a2")
    assert pair.full
    assert not pair.offer("a3"), "it waits for the node, which is not overload"
    take(pair, "a1")
    assert pair.offer("a3")


def test_unread_responses_are_overload_at_once() -> None:
    """Whatever will become a response counts: queued, under way, ready."""
    pair = channel(responses_max=3)
    pair.offer("a1")
    pair.answer(take(pair, "a1"), "1")
    pair.offer("a2")
    take(pair, "a2")
    pair.offer("a3")
    with pytest.raises(Overloaded, match="3 responses"):
        pair.offer("a4")
    assert pair.poll() == "1"
    assert pair.offer("a4")


def test_what_was_sent_before_close_is_answered() -> None:
    pair = channel()
    assert not pair.wants_node
    pair.offer("a1")
    assert pair.wants_node
    pair.offer("r2")
    pair.close()
    assert pair.closed
    with pytest.raises(AssertionError, match="a closed sender sends nothing"):
        pair.offer("a3")
    assert not pair.drained
    one = take(pair, "a1")
    pair.answer(one, "1")
    assert not pair.drained
    two = take(pair, "r2")
    assert not pair.drained, "it has no answer yet"
    pair.answer(two, "2")
    assert pair.drained
    assert pair.wants_node, "the node may stop"
    assert [pair.poll(), pair.poll()] == ["1", "2"]


def test_discarded_responses_are_dropped_and_requests_go_on() -> None:
    pair = channel(responses_max=2)
    pair.offer("a1")
    pair.offer("a2")
    pair.answer(take(pair, "a1"), "1")
    pair.discard()
    assert pair.poll() is None
    assert not pair.answer(take(pair, "a2"), "2"), "nobody is to be woken"
    assert pair.poll() is None
    assert pair.offer("a3"), "they fill nothing"


def test_abandon_answers_what_was_never_taken_in_its_turn() -> None:
    pair = channel()
    for request in ("a1", "r2", "a3"):
        pair.offer(request)
    one = take(pair, "a1")
    pair.abandon("stopped")
    assert pair.closed
    assert pair.take() is None
    assert pair.poll() is None, "the first one is still under way"
    assert not pair.drained
    pair.answer(one, "1")
    assert [pair.poll() for _ in range(4)] == ["1", "stopped", "stopped", None]
    assert pair.drained


class AgainstAModel(RuleBasedStateMachine):
    """The model keeps every request's state in one list."""

    REQUESTS_MAX = 3
    RESPONSES_MAX = 6

    def __init__(self) -> None:
        super().__init__()
        self.pair = channel(self.REQUESTS_MAX, self.RESPONSES_MAX)
        self.number = 0
        self.queued: deque[str] = deque()
        self.taken: list[tuple[str, Ticket[str]]] = []
        self.order: deque[str] = deque()
        self.answers: dict[str, str] = {}
        self.closed = self.discarded = False

    @property
    def ready(self) -> int:
        """How many of the oldest have an answer."""
        return next((n for n, name in enumerate(self.order) if name not in self.answers), len(self.order))

    def drop_if_nobody_reads(self) -> None:
        if self.discarded:
            for _ in range(self.ready):
                self.order.popleft()

    @precondition(lambda self: not self.closed)
    @rule(kind=st.sampled_from("ar"))
    def offer(self, kind: str) -> None:
        self.number += 1
        request = f"{kind}{self.number}"
        if len(self.order) >= self.RESPONSES_MAX:
            with pytest.raises(Overloaded):
                self.pair.offer(request)
        elif len(self.queued) >= self.REQUESTS_MAX:
            assert not self.pair.offer(request)
        else:
            assert self.pair.offer(request)
            self.queued.append(request)
            self.order.append(request)

    @rule()
    def take(self) -> None:
        other = "a" if self.queued and self.queued[0][0] == "r" else "r"
        expected = self.queued and not any(request[0] == other for request, _ in self.taken)
        taken = self.pair.take()
        assert (taken is not None) == bool(expected)
        if taken is not None:
            ticket, request = taken
            assert request == self.queued.popleft()
            self.taken.append((request, ticket))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        request, ticket = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        before = self.ready
        self.answers[request] = f"answer to {request}"
        rose = self.ready > before
        assert self.pair.answer(ticket, self.answers[request]) == (rose and not self.discarded)
        self.drop_if_nobody_reads()

    @rule()
    def poll(self) -> None:
        expected = self.answers[self.order.popleft()] if self.ready and not self.discarded else None
        assert self.pair.poll() == expected

    @rule()
    def close(self) -> None:
        self.pair.close()
        self.closed = True

    @rule()
    def discard(self) -> None:
        self.pair.discard()
        self.discarded = True
        self.drop_if_nobody_reads()

    @rule()
    def abandon(self) -> None:
        self.pair.abandon("stopped")
        self.closed = True
        self.answers.update(dict.fromkeys(self.queued, "stopped"))
        self.queued.clear()
        self.drop_if_nobody_reads()

    @invariant()
    def looks_alike(self) -> None:
        assert self.pair.full == (len(self.queued) >= self.REQUESTS_MAX)
        assert self.pair.closed == self.closed
        assert self.pair.drained == (self.closed and not self.queued and not self.taken)
        assert self.pair.wants_node == (self.closed or bool(self.queued))


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(
    max_examples=by_level(quick=50, ci=1_000), stateful_step_count=40, deadline=None
)
