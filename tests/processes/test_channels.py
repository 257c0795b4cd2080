"""`RaftNode.start` as the README shows it: three nodes in one process, their channels used from plain threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.processes.waiting import HANG_S, QUICK, run
from totora import (
    Entry,
    Err,
    LogMismatch,
    NodeStopped,
    Ok,
    OutOfRange,
    RaftNode,
    Requests,
    Response,
    Responses,
    append_request,
    index_range,
)
from totora.cli.demo_cluster import free_addresses
from totora.cli.demo_logs import read_log

Pair = tuple[Requests[str], Responses[str]]


@pytest.fixture
def pairs(tmp_path: Path) -> Iterator[dict[int, Pair]]:
    """The channels of three nodes."""
    nodes = free_addresses(3)
    started: dict[int, Pair] = {}
    try:
        for id in nodes:
            started[id] = RaftNode.start(
                id, nodes, entry_type=str, data_dir=tmp_path / f"node-{id}", settings=QUICK
            )
        yield started
    finally:
        for requests, _ in started.values():
            requests.close()
        for _, responses in started.values():
            for _ in responses:
                pass


def entries(response: Response[str]) -> Sequence[Entry[str]]:
    assert isinstance(response, Ok), response
    return response.value


def test_what_one_node_appends_all_nodes_read(pairs: dict[int, Pair]) -> None:
    """Any node takes any request; responses are Ok of entries with their places."""
    last = 0
    for id, (requests, responses) in pairs.items():
        requests.send(append_request([f"from {id}", f"again {id}"]))
        appended = entries(responses.recv(timeout=HANG_S))
        assert [entry.value for entry in appended] == [f"from {id}", f"again {id}"]
        last = appended[1].index
        assert last == appended[0].index + 1
    logs = []
    for requests, responses in pairs.values():
        requests.send(index_range(1, last))
        logs.append(list(entries(responses.recv(timeout=HANG_S))))
    assert logs[0] == logs[1] == logs[2]
    assert [entry.value for entry in logs[0]] == [
        "from 1",
        "again 1",
        "from 2",
        "again 2",
        "from 3",
        "again 3",
    ]
    assert logs[0][0].index >= 2, "the first place is a no-op's"


def test_responses_come_in_the_order_of_the_requests(pairs: dict[int, Pair]) -> None:
    """A hundred appends without a pause, a read behind them that sees all, and a request that fails between them."""
    requests, responses = pairs[2]
    for n in range(50):
        requests.send(append_request([str(n)]))
    requests.send(index_range(1_000_000, 1_000_001))
    for n in range(50, 100):
        requests.send(append_request([str(n)]))
    answers = [responses.recv(timeout=HANG_S) for _ in range(101)]
    failed = answers.pop(50)
    assert isinstance(failed, Err)
    assert isinstance(failed.error, OutOfRange)
    assert [entries(answer)[0].value for answer in answers] == [str(n) for n in range(100)]
    indexes = [entries(answer)[0].index for answer in answers]
    assert indexes == sorted(set(indexes)), "one sender's appends stand in sending order"


def test_a_conditional_append_holds_only_behind_the_last_entry(pairs: dict[int, Pair]) -> None:
    """(0, 0) holds while there is no user's entry; then the entry that was returned, and nothing else."""
    requests, responses = pairs[3]
    requests.send(append_request(["first"], prev_log_index=0, prev_log_term=0))
    first = entries(responses.recv(timeout=HANG_S))[0]
    requests.send(append_request(["second"], prev_log_index=first.index, prev_log_term=first.term))
    second = entries(responses.recv(timeout=HANG_S))[0]
    requests.send(append_request(["late"], prev_log_index=first.index, prev_log_term=first.term))
    late = responses.recv(timeout=HANG_S)
    assert isinstance(late, Err)
    assert isinstance(late.error, LogMismatch)
    assert (late.error.last_index, late.error.last_term) == (second.index, second.term)


def test_threads_share_a_channel_and_each_entry_stands_once(pairs: dict[int, Pair]) -> None:
    """Eight threads send over the three nodes' channels; one reader for each takes the responses."""
    each = 50

    def send(requests: Requests[str], name: int) -> None:
        for n in range(each):
            requests.send(append_request([f"{name}.{n}"]), timeout=HANG_S)

    senders = [threading.Thread(target=send, args=(pairs[1 + n % 3][0], n)) for n in range(8)]
    for thread in senders:
        thread.start()
    acknowledged: list[Entry[str]] = []
    for id, (_, responses) in pairs.items():
        share = sum(1 for n in range(8) if 1 + n % 3 == id)
        for _ in range(share * each):
            acknowledged += entries(responses.recv(timeout=HANG_S))
    for thread in senders:
        thread.join()
    assert len({entry.index for entry in acknowledged}) == 8 * each
    assert {entry.value for entry in acknowledged} == {
        f"{name}.{n}" for name in range(8) for n in range(each)
    }
    by_index = sorted(acknowledged, key=lambda entry: entry.index)
    for name in range(8):
        own = [entry.value for entry in by_index if entry.value.startswith(f"{name}.")]
        assert own == [f"{name}.{n}" for n in range(each)], "one thread's appends stand in its order"


def test_closing_the_sender_answers_what_was_sent_and_ends_the_iteration(tmp_path: Path) -> None:
    """A cluster of one; its log is on disk when the iteration has ended."""
    nodes = free_addresses(1)
    requests, responses = RaftNode.start(1, nodes, entry_type=str, data_dir=tmp_path, settings=QUICK)
    for n in range(20):
        requests.send(append_request([str(n)]))
    requests.close()
    assert [entries(response)[0].value for response in responses] == [str(n) for n in range(20)]
    with pytest.raises(NodeStopped):
        requests.send(append_request(["late"]))
    assert [entry.value for entry in read_log(tmp_path)] == [str(n) for n in range(20)]


def test_the_same_channels_serve_coroutines(tmp_path: Path) -> None:
    """`send_async`, `recv_async` and `async for`, on a loop that is not the node's."""
    requests, responses = RaftNode.start(
        1, free_addresses(1), entry_type=str, data_dir=tmp_path, settings=QUICK
    )

    async def scenario() -> None:
        await requests.send_async(append_request(["a"]))
        assert [entry.value for entry in entries(await responses.recv_async(timeout=HANG_S))] == ["a"]
        sending = asyncio.ensure_future(requests.send_async(append_request(["b"])))
        await sending
        requests.close()
        assert [entries(response)[0].value async for response in responses] == ["b"]

    run(scenario())
