"""How a pair of channels ends: closed, dropped, collected; and what its other end then says."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.processes.waiting import HANG_S, QUICK, eventually_in_thread, run
from tests.threads.pairs import (
    alone,
    channel_of,
    cut_off,
    error_in,
    held_up,
    pair_of,
    received,
    thread_of,
    values,
)
from totora import (
    Err,
    NodeStopped,
    OutcomeUnknown,
    RaftNode,
    Requests,
    Responses,
    append_request,
    index_range,
)
from totora.cli.demo_cluster import free_addresses
from totora.cli.demo_logs import read_log


def start(folder: Path | None = None) -> tuple[Requests[str], Responses[str]]:
    return RaftNode.start(1, free_addresses(1), entry_type=str, data_dir=folder, settings=QUICK)


def ended(thread: threading.Thread) -> bool:
    thread.join(HANG_S)
    return not thread.is_alive()


# -- closing ---------------------------------------------------------------------------------------


def test_the_end_of_a_with_block_closes_the_sender() -> None:
    """What was sent within is answered; then iteration ends, and says so again whenever it is asked."""
    requests, responses = start()
    with requests:
        for n in range(50):
            requests.send(append_request([str(n)]))
    assert [values(answer) for answer in responses] == [[str(n)] for n in range(50)]
    assert list(responses) == []
    with pytest.raises(NodeStopped) as raised:
        responses.recv(timeout=HANG_S)
    assert raised.value.cause is None
    assert ended(thread_of(requests))


def test_closing_twice_is_closing_once() -> None:
    requests, responses = start()
    requests.close()
    requests.close()
    assert list(responses) == []
    requests.close()


def test_a_closed_sender_sends_nothing_and_says_why() -> None:
    """While the node still answers what was sent before, and after it has stopped."""
    requests, responses = start()
    with held_up(requests):
        requests.send(append_request(["a"]))
        requests.close()
        with pytest.raises(NodeStopped, match="the sender was closed"):
            requests.send(append_request(["late"]))
    assert [values(answer) for answer in responses] == [["a"]]
    with pytest.raises(NodeStopped):
        requests.send(append_request(["later"]))
    with pytest.raises(NodeStopped):
        run(requests.send_async(append_request(["later"])))
    with pytest.raises(NodeStopped):
        requests.status()


def test_closing_wakes_senders_that_wait_for_room() -> None:
    """They are told at once, not when there is room."""
    requests, responses = start()
    with ThreadPoolExecutor(1) as others, held_up(requests):
        sent = 0
        while not channel_of(requests).full:
            requests.send(append_request(["a"]))
            sent += 1
        waiting = others.submit(requests.send, append_request(["late"]))
        requests.close()
        with pytest.raises(NodeStopped, match="the sender was closed"):
            waiting.result(HANG_S)
    assert len(list(responses)) == sent


def test_the_end_wakes_receivers_that_wait() -> None:
    """In threads and in coroutines."""
    requests, responses = start()

    async def receive() -> None:
        async for _ in responses:
            raise AssertionError("nothing was sent")

    with ThreadPoolExecutor(3) as others:
        iterating = others.submit(list, responses)
        receiving = others.submit(responses.recv)
        looping = others.submit(run, receive())
        eventually_in_thread("they wait", lambda: pair_of(requests).watchers)
        requests.close()
        assert iterating.result(HANG_S) == []
        assert looping.result(HANG_S) is None
        with pytest.raises(NodeStopped):
            receiving.result(HANG_S)


def test_each_raise_is_an_error_of_its_own() -> None:
    """Raised again, an error keeps every frame that it ever went through: whoever polls a stopped node would fill memory."""
    requests, responses = start()
    requests.close()
    assert list(responses) == []
    raised = []
    for call in (responses.recv, lambda: requests.send(append_request(["a"]))):
        for _ in range(2):
            with pytest.raises(NodeStopped) as caught:
                call()
            raised.append(caught.value)
    assert len({id(error) for error in raised}) == 4


def test_a_stopped_node_is_not_kept_by_its_channels() -> None:
    """It holds the end of its log in memory; whoever still reads responses needs nothing of it."""
    requests, responses = start()
    node = weakref.ref(pair_of(requests)._node or pytest.fail("it runs"))
    requests.send(append_request(["a"]))
    requests.close()
    assert ended(thread_of(requests))
    gc.collect()
    assert node() is None
    assert [values(answer) for answer in responses] == [["a"]]


# -- dropping --------------------------------------------------------------------------------------


def test_dropping_the_sender_answers_what_was_sent_and_stops_the_node(tmp_path: Path) -> None:
    requests, responses = start(tmp_path)
    thread = thread_of(requests)
    for n in range(20):
        requests.send(append_request([str(n)]))
    del requests
    assert [values(answer) for answer in responses] == [[str(n)] for n in range(20)]
    assert ended(thread)
    assert [entry.value for entry in read_log(tmp_path)] == [str(n) for n in range(20)]


def test_dropping_both_ends_stops_the_node_and_leaves_nothing(tmp_path: Path) -> None:
    """What was sent is still appended, although nobody reads the answers."""
    requests, responses = start(tmp_path)
    pair, thread = weakref.ref(pair_of(requests)), thread_of(requests)
    for n in range(20):
        requests.send(append_request([str(n)]))
    del requests, responses
    assert ended(thread)
    del thread
    gc.collect()
    assert pair() is None
    assert [entry.value for entry in read_log(tmp_path)] == [str(n) for n in range(20)]


def test_dropping_the_receiver_discards_and_the_node_goes_on(tmp_path: Path) -> None:
    """Answers that nobody will read take no room: far more can be sent than there is room for."""
    requests, responses = start(tmp_path)
    channel = channel_of(requests)
    requests.send(append_request(["first"]))
    eventually_in_thread("it is answered", lambda: len(channel._ready))
    del responses
    eventually_in_thread("what was answered is dropped", lambda: not channel._ready)
    channel._responses_max = 8
    for n in range(100):
        eventually_in_thread("the node takes it", lambda: len(channel._queued) + len(channel._tickets) < 8)
        requests.send(append_request([str(n)]))
    assert not channel._ready
    requests.close()
    assert ended(thread_of(requests))
    assert [entry.value for entry in read_log(tmp_path)] == ["first", *map(str, range(100))]


@pytest.mark.parametrize("end", ["requests", "responses"])
def test_an_end_may_be_collected_while_the_lock_is_held(end: str) -> None:
    """The collector runs wherever memory is asked for, also there: an end in a cycle must not make its own thread wait."""
    requests, responses = start()
    pair, thread = pair_of(requests), thread_of(requests)

    def cycle(kept: Any) -> None:
        itself: list[Any] = [kept]
        itself.append(itself)

    gc.disable()
    try:
        if end == "requests":
            cycle(requests)
            del requests
        else:
            cycle(responses)
            del responses

        def collect_within_the_lock() -> None:
            with pair.lock:
                gc.collect()

        collecting = threading.Thread(target=collect_within_the_lock, daemon=True)
        collecting.start()
        collecting.join(HANG_S / 4)
        assert not collecting.is_alive(), "it waits for the lock that it holds"
    finally:
        gc.enable()
    pair.close_sender()
    assert ended(thread)


def test_an_iterator_keeps_its_receiver() -> None:
    """`for response in RaftNode.start(...)[1]` reads; nothing is discarded under its hands."""
    requests, responses = start()
    iterator = iter(responses)
    del responses
    gc.collect()
    requests.send(append_request(["a"]))
    assert values(next(iterator)) == ["a"]
    requests.close()
    assert list(iterator) == []


# -- without answers -------------------------------------------------------------------------------


def test_a_node_without_quorum_gives_every_request_an_outcome_when_it_is_made_to_stop() -> None:
    """Never handed to anyone: without effect, or not known; nobody waits for ever."""
    with cut_off() as (requests, responses):
        requests.send(append_request(["a"]))
        requests.send(index_range(1, 1))
        requests.send(append_request(["b"]))
        pair_of(requests).stop_now()
        answers = list(responses)
        assert len(answers) == 3
        for answer in answers:
            assert isinstance(answer, Err)
            assert isinstance(answer.error, NodeStopped | OutcomeUnknown)


def test_a_request_past_its_time_gets_an_outcome_and_the_next_one_its_turn() -> None:
    """In order, although a range waits for the append before it."""
    with cut_off(dataclasses.replace(QUICK, request_timeout_s=0.2)) as (requests, responses):
        requests.send(append_request(["a"]))
        requests.send(index_range(1, 1))
        for answer in received(responses, 2):
            assert "no quorum" in str(error_in(answer))


# -- status ----------------------------------------------------------------------------------------


def test_the_status_is_the_nodes_and_is_taken_on_its_thread() -> None:
    """Elsewhere it would be half of one step and half of the next: while that thread is held up there is none."""
    with alone() as (requests, responses), ThreadPoolExecutor(1) as others:
        requests.send(append_request(["a"]))
        (entry,) = responses.recv(timeout=HANG_S).unwrap()
        with held_up(requests):
            asking = others.submit(requests.status)
            with pytest.raises(TimeoutError):
                asking.result(timeout=0.1)
        found = asking.result(HANG_S)
        assert (found.id, found.role, found.commit_index) == (1, "leader", entry.index)


def test_threads_that_ask_for_the_status_while_the_node_stops_get_an_answer() -> None:
    """The status or NodeStopped, and none of them waits for ever."""
    for _ in range(5):
        requests, responses = start()

        def ask(requests: Requests[str] = requests) -> int:
            asked = 0
            while True:
                try:
                    assert requests.status().id == 1
                except NodeStopped:
                    return asked
                asked += 1

        with ThreadPoolExecutor(4) as others:
            asking = [others.submit(ask) for _ in range(4)]
            for n in range(20):
                requests.send(append_request([str(n)]))
            received(responses, 20)
            requests.close()
            assert list(responses) == []
            for one in asking:
                one.result(HANG_S)
        assert ended(thread_of(requests))
