"""The channels from event loops that are not the node's: any loop, several at once, and loops that end before the node does."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.processes.waiting import HANG_S, eventually, run
from tests.threads.pairs import alone, channel_of, cut_off, held_up, pair_of, received, values
from totora import Overloaded, Requests, Response, Responses, append_request
from totora.aio.loops import new_event_loop


def answered(responses: Responses[str], receiving: asyncio.Task[Response[str]]) -> bool:
    return bool(channel_of(responses)._ready) or receiving.done()


def test_async_for_ends_when_the_sender_is_closed() -> None:
    async def scenario(requests: Requests[str], responses: Responses[str]) -> None:
        for n in range(100):
            await requests.send_async(append_request([str(n)]))
        requests.close()
        assert [values(answer) async for answer in responses] == [[str(n)] for n in range(100)]
        assert [answer async for answer in responses] == []

    with alone() as (requests, responses):
        run(scenario(requests, responses))


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_either_loop_of_the_caller_serves(use_uvloop: bool) -> None:
    async def scenario(requests: Requests[str], responses: Responses[str]) -> None:
        receiving = asyncio.ensure_future(responses.recv_async())
        await eventually("it waits", lambda: pair_of(requests).watchers)
        await requests.send_async(append_request(["a"]))
        assert values(await receiving) == ["a"]

    with alone() as (requests, responses):
        loop = new_event_loop(use_uvloop=use_uvloop)
        try:
            loop.run_until_complete(scenario(requests, responses))
        finally:
            loop.close()


def test_several_loops_and_threads_share_one_pair() -> None:
    """Three loops in three threads, each sends and receives; a plain thread reads what is left."""
    each = 50

    async def half(requests: Requests[str], responses: Responses[str], name: int) -> list[str]:
        found = []
        for n in range(each):
            await requests.send_async(append_request([f"{name}.{n}"]))
            if n % 2:
                found += values(await responses.recv_async(timeout=HANG_S))
        return found

    with alone() as (requests, responses), ThreadPoolExecutor(3) as others:
        working = [others.submit(run, half(requests, responses, name)) for name in range(3)]
        found = [value for one in working for value in one.result(HANG_S)]
        found += [value for answer in received(responses, 3 * each // 2) for value in values(answer)]
    assert sorted(found) == sorted(f"{name}.{n}" for name in range(3) for n in range(each))


def test_a_coroutine_that_is_cancelled_takes_no_response_with_it() -> None:
    async def scenario(requests: Requests[str], responses: Responses[str]) -> None:
        for n in range(50):
            receiving = asyncio.ensure_future(responses.recv_async())
            await eventually("it waits", lambda: pair_of(requests).watchers)
            await requests.send_async(append_request([str(n)]))
            if n % 2:
                await eventually("it is answered", partial(answered, responses, receiving))
            receiving.cancel()
            await asyncio.wait([receiving])
            if receiving.cancelled():
                assert values(await responses.recv_async(timeout=HANG_S)) == [str(n)]
            else:
                assert values(receiving.result()) == [str(n)]

    with alone() as (requests, responses):
        run(scenario(requests, responses))


def test_a_send_that_is_cancelled_is_not_sent() -> None:
    async def scenario(requests: Requests[str]) -> None:
        with held_up(requests):
            while not channel_of(requests).full:
                await requests.send_async(append_request(["sent"]))
            sending = asyncio.ensure_future(requests.send_async(append_request(["cancelled"])))
            await eventually("it waits", lambda: pair_of(requests).watchers)
            sending.cancel()
            await asyncio.wait([sending])
            with pytest.raises(Overloaded):
                await requests.send_async(append_request(["late"]), timeout=0)

    with alone() as (requests, responses):
        run(scenario(requests))
        count = channel_of(requests)._requests_max
        assert {value for answer in received(responses, count) for value in values(answer)} == {"sent"}
        requests.send(append_request(["the next one"]))
        assert values(responses.recv(timeout=HANG_S)) == ["the next one"]


@pytest.mark.parametrize("use_uvloop", [False, True], ids=["asyncio", "uvloop"])
def test_a_loop_that_was_closed_under_a_waiting_coroutine_harms_nobody(use_uvloop: bool) -> None:
    """A framework that ends without cancelling its tasks: the node, which would wake them, goes on."""
    with cut_off() as (requests, responses):
        loop = new_event_loop(use_uvloop=use_uvloop)
        receiving = loop.create_task(responses.recv_async())
        loop.run_until_complete(asyncio.sleep(0))
        assert pair_of(requests).watchers
        loop.close()
        requests.send(append_request(["a"]))
        assert requests.status().id == 1, "its thread lives"
        requests.send(append_request(["b"]))
        assert requests.status().id == 1
        assert not pair_of(requests).watchers
        # Collected as it is, a task complains that it never ended: that is its loop's fault, and not what is tested.
        receiving._log_destroy_pending = False  # type: ignore[attr-defined]
        del receiving, loop
        gc.collect()
