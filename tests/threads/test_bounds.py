"""Both queues are bounded, and every wait ends at its timeout, however often it is woken before."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from tests.processes.waiting import HANG_S, eventually, eventually_in_thread, run
from tests.threads.pairs import alone, channel_of, cut_off, held_up, pair_of, received, values
from totora import Overloaded, Requests, append_request, index_range
from totora.session.channel import REQUESTS_MAX, RESPONSES_MAX

SOON_S: Final = 0.05


def fill(requests: Requests[str]) -> None:
    """The queue of requests, while the node takes none."""
    for n in range(REQUESTS_MAX):
        requests.send(append_request([str(n)]))


def test_a_full_queue_makes_senders_wait_and_then_is_overload() -> None:
    """Nothing of what was refused is appended; what waited long enough is, in its turn."""
    with alone() as (requests, responses), ThreadPoolExecutor(1) as others:
        with held_up(requests):
            fill(requests)
            with pytest.raises(Overloaded, match="1,024 requests") as raised:
                requests.send(append_request(["refused"]), timeout=SOON_S)
            assert raised.value.limit == REQUESTS_MAX
            with pytest.raises(Overloaded):
                requests.send(append_request(["refused"]), timeout=0)
            waiting = others.submit(requests.send, append_request(["waited"]))
            assert not waiting.done()
        assert waiting.result(HANG_S) is None
        answers = received(responses, REQUESTS_MAX + 1)
        assert [values(answer) for answer in answers] == [[str(n)] for n in range(REQUESTS_MAX)] + [
            ["waited"]
        ]
        with pytest.raises(TimeoutError):
            responses.recv(timeout=SOON_S)


def test_a_full_queue_makes_coroutines_wait_and_then_is_overload() -> None:
    async def scenario(requests: Requests[str]) -> None:
        with held_up(requests):
            fill(requests)
            with pytest.raises(Overloaded, match="1,024 requests"):
                await requests.send_async(append_request(["refused"]), timeout=SOON_S)
            with pytest.raises(Overloaded):
                await requests.send_async(append_request(["refused"]), timeout=0)
            waiting = asyncio.ensure_future(requests.send_async(append_request(["waited"])))
            await eventually("it waits", lambda: pair_of(requests).watchers)
        await waiting

    with alone() as (requests, responses):
        run(scenario(requests))
        assert values(received(responses, REQUESTS_MAX + 1)[-1]) == ["waited"]


def test_unread_responses_are_overload_at_once() -> None:
    """Not after a wait: it is the sender's own side that must read. The bound is lowered here."""
    with alone() as (requests, responses):
        assert channel_of(requests)._responses_max == RESPONSES_MAX
        channel_of(requests)._responses_max = 3
        for n in range(3):
            requests.send(append_request([str(n)]))
        with pytest.raises(Overloaded, match="3 responses are waiting already: read responses"):
            requests.send(append_request(["one too many"]))
        assert values(responses.recv(timeout=HANG_S)) == ["0"]
        requests.send(append_request(["3"]))
        with pytest.raises(Overloaded):
            requests.send(index_range(1, 1))
        assert [values(answer) for answer in received(responses, 3)] == [["1"], ["2"], ["3"]]

        async def scenario() -> None:
            for n in range(3):
                await requests.send_async(append_request([str(n)]))
            with pytest.raises(Overloaded, match="3 responses"):
                await requests.send_async(append_request(["one too many"]))

        run(scenario())


def test_a_response_that_is_there_is_received_without_a_wait() -> None:
    """A timeout of zero asks and does not wait."""
    with alone() as (requests, responses):
        with pytest.raises(TimeoutError, match="no response within 0 s"):
            responses.recv(timeout=0)
        requests.send(append_request(["a"]))
        requests.send(append_request(["b"]))
        eventually_in_thread("both are answered", lambda: len(channel_of(requests)._ready) == 2)
        assert values(responses.recv(timeout=0)) == ["a"]

        async def scenario() -> None:
            assert values(await responses.recv_async(timeout=0)) == ["b"]
            with pytest.raises(TimeoutError):
                await responses.recv_async(timeout=0)

        run(scenario())


def test_recv_ends_at_its_timeout_although_requests_keep_waking_it() -> None:
    """Each request that the node takes wakes whoever waits."""
    with cut_off() as (requests, responses):
        timed_out = threading.Event()

        def keep_sending() -> None:
            while not timed_out.wait(SOON_S / 10):
                requests.send(append_request(["never answered"]))

        with ThreadPoolExecutor(2) as others:
            sending = others.submit(keep_sending)
            try:
                receiving = others.submit(responses.recv, 4 * SOON_S)
                with pytest.raises(TimeoutError, match=r"no response within 0\.2 s"):
                    receiving.result(HANG_S / 4)
            finally:
                timed_out.set()
            sending.result(HANG_S)


def test_recv_async_ends_at_its_timeout_although_requests_keep_waking_it() -> None:
    async def scenario(requests: Requests[str], receiving: asyncio.Task[object]) -> None:
        while not receiving.done():
            await requests.send_async(append_request(["never answered"]))
            await asyncio.wait([receiving], timeout=SOON_S / 10)
        with pytest.raises(TimeoutError):
            receiving.result()

    with cut_off() as (requests, responses):

        async def both() -> None:
            await scenario(requests, asyncio.ensure_future(responses.recv_async(timeout=4 * SOON_S)))

        run(both(), hang_s=HANG_S / 4)


def test_coroutines_that_gave_up_waiting_leave_nothing_behind() -> None:
    """Polling an idle node with a short timeout is a way to use it."""
    with cut_off() as (requests, responses):

        async def scenario() -> None:
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    await responses.recv_async(timeout=0.001)
            cancelled = asyncio.ensure_future(responses.recv_async())
            await eventually("it waits", lambda: len(pair_of(requests).watchers) == 1)
            cancelled.cancel()
            await asyncio.wait([cancelled])

        run(scenario())
        assert len(pair_of(requests).watchers) == 0
