"""Responses in the order of the requests, each request in its place, whoever sends."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.levels import by_level
from tests.processes.waiting import HANG_S
from tests.threads.pairs import alone, error_in, held_up, received, values
from totora import (
    ClientRequest,
    Err,
    InvalidRequest,
    LogMismatch,
    OutOfRange,
    RaftError,
    Requests,
    Response,
    Responses,
    append_request,
    index_range,
)


class Expected(NamedTuple):
    """What a request must be answered: these entries, or an error, which for LogMismatch names the last entry."""

    values: list[str] | None = None
    error: type[RaftError] | None = None
    last: tuple[int, int] | None = None


class Model:
    """A log of one sender's entries: what each request must be answered, given that they take effect in order.

    first_index: of the first user's entry; indexes are dense behind it, for nobody else leads or appends.
    """

    def __init__(self, first_index: int, term: int) -> None:
        self.first_index, self.term = first_index, term
        self.log: list[str] = []

    @property
    def next_index(self) -> int:
        return self.first_index + len(self.log)

    def append(self, chance: random.Random, number: int) -> tuple[ClientRequest[str], Expected]:
        entries = [f"{number}.{n}" for n in range(chance.randint(1, 3))]
        self.log += entries
        return append_request(entries), Expected(entries)

    def conditional(self, chance: random.Random, number: int) -> tuple[ClientRequest[str], Expected]:
        last = (self.next_index - 1, self.term) if self.log else (0, 0)
        holds = chance.random() < 0.5
        index, term = last if holds else (last[0] + chance.choice([-1, 1]) if self.log else 1, last[1])
        request = append_request([f"{number} if"], prev_log_index=index, prev_log_term=term)
        if not holds:
            return request, Expected(error=LogMismatch, last=last)
        self.log.append(f"{number} if")
        return request, Expected([f"{number} if"])

    def range(self, chance: random.Random, number: int) -> tuple[ClientRequest[str], Expected]:
        start = chance.randint(1, self.next_index)
        end = chance.randint(start, self.next_index + 1)
        if end >= self.next_index:
            return index_range(start, end), Expected(error=OutOfRange)
        offset = self.first_index
        within = self.log[max(0, start - offset) : max(0, end + 1 - offset)]
        return index_range(start, end), Expected(within)


def check(response: Response[str], expected: Expected) -> None:
    if expected.error is None:
        assert values(response) == expected.values
        return
    error = error_in(response)
    assert type(error) is expected.error
    if isinstance(error, LogMismatch):
        assert (error.last_index, error.last_term) == expected.last


def test_a_mix_of_requests_takes_effect_in_sending_order() -> None:
    """Appends, conditional appends and ranges, without a pause; which fail and what each sees follows from the order."""
    for seed in range(by_level(quick=2, ci=20)):
        chance = random.Random(seed)
        with alone() as (requests, responses):
            requests.send(append_request(["first"], prev_log_index=0, prev_log_term=0))
            (first,) = responses.recv(timeout=HANG_S).unwrap()
            model = Model(first.index, first.term)
            model.log.append("first")
            kinds = [model.append, model.conditional, model.range]
            asked = [chance.choice(kinds)(chance, n) for n in range(by_level(quick=100, ci=300))]
            for request, _ in asked:
                requests.send(request)
            for (_, expected), answer in zip(asked, received(responses, len(asked)), strict=True):
                check(answer, expected)


def test_indexes_and_terms_rise_with_the_order_of_sending() -> None:
    with alone() as (requests, responses):
        for n in range(500):
            requests.send(append_request([str(n), "again"]))
        entries = [entry for answer in received(responses, 500) for entry in answer.unwrap()]
        places = [(entry.term, entry.index) for entry in entries]
        assert places == sorted(set(places))


def test_many_threads_send_and_many_receive() -> None:
    """Each response is received once, by somebody; what each thread sent stands in its own order."""
    senders, receivers, each = 8, 3, by_level(quick=100, ci=2_000)
    received_by: list[Response[str]] = []
    lock = threading.Lock()
    left = threading.Semaphore(senders * each)

    def send(requests: Requests[str], name: int) -> None:
        for n in range(each):
            requests.send(append_request([f"{name}.{n}"]), timeout=HANG_S)

    def receive(responses: Responses[str]) -> None:
        while left.acquire(blocking=False):
            answer = responses.recv(timeout=HANG_S)
            with lock:
                received_by.append(answer)

    with alone() as (requests, responses), ThreadPoolExecutor(senders + receivers) as others:
        work = [others.submit(send, requests, name) for name in range(senders)]
        work += [others.submit(receive, responses) for _ in range(receivers)]
        for one in work:
            one.result(HANG_S)
    assert not any(isinstance(answer, Err) for answer in received_by)
    entries = sorted((entry for answer in received_by for entry in answer.unwrap()), key=lambda e: e.index)
    assert len({entry.index for entry in entries}) == len(entries) == senders * each
    for name in range(senders):
        own = [entry.value for entry in entries if entry.value.startswith(f"{name}.")]
        assert own == [f"{name}.{n}" for n in range(each)]


def test_a_list_that_is_used_again_changes_nothing_that_was_sent() -> None:
    """The node reads a request later, on its own thread; whoever collects lines empties the list at once."""
    with alone() as (requests, responses):
        lines: list[str] = []
        with held_up(requests):
            for n in range(10):
                lines.append(str(n))
                requests.send(append_request(lines))
                lines.clear()
        assert [values(answer) for answer in received(responses, 10)] == [[str(n)] for n in range(10)]


def test_a_request_that_was_emptied_before_it_was_sent_is_refused() -> None:
    """A batch of nothing would be an index that stands for no entry."""
    with alone() as (requests, responses):
        lines = ["a"]
        request = append_request(lines)
        lines.clear()
        with pytest.raises(InvalidRequest, match="at least one entry"):
            requests.send(request)
        requests.send(append_request(["b"]))
        assert values(responses.recv(timeout=HANG_S)) == ["b"]
