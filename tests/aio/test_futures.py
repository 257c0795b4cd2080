"""What a request returns: a future, under way when the call returns, whatever is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.aio.test_ranges import KINDS, face_of
from tests.processes.waiting import HANG_S, run
from totora import EntryTooLarge, InvalidRequest, NodeStopped, RaftError
from totora.aio import Client, Node
from totora.aio.face import Face

Ask = Callable[[Face[bytes]], "asyncio.Future[Any]"]


@KINDS
def test_requests_are_under_way_when_the_call_returns_in_the_order_of_the_calls(kind: str) -> None:
    async def scenario() -> None:
        async with face_of(kind) as face:
            one_by_one = [face.propose(b"%d" % n) for n in range(500)]
            together = face.append([b"a", b"b"])
            patient = [face.propose(b"patient", timeout_s=HANG_S) for _ in range(3)]
            last = await face.propose(b"last")
            entries = [
                *await asyncio.gather(*one_by_one),
                *await together,
                *await asyncio.gather(*patient),
                last,
            ]
            first = entries[0].index
            assert [entry.index for entry in entries] == list(range(first, first + 506))
            assert await face.index_range(first, last.index) == entries

    run(scenario())


@KINDS
def test_who_cancels_stops_waiting_and_the_request_goes_on(kind: str) -> None:
    async def scenario() -> None:
        async with face_of(kind) as face:
            given_up = face.propose(b"given up")
            given_up.cancel()
            read = face.index_range(1, 1)
            read.cancel()
            last = await face.propose(b"last")
            (entry, _) = await face.index_range(last.index - 1, last.index)
            assert entry.value == b"given up"
            assert given_up.cancelled()
            assert read.cancelled()

    run(scenario())


WRONG: dict[str, tuple[Ask, type[RaftError]]] = {
    "an entry of another type": (lambda face: face.propose("text"), InvalidRequest),  # type: ignore[arg-type]
    "one of them": (lambda face: face.append([b"a", 5]), InvalidRequest),  # type: ignore[list-item]
    "no entries": (lambda face: face.append([]), InvalidRequest),
    "half a condition": (lambda face: face.append([b"a"], prev_log_index=1), InvalidRequest),
    "an entry too large": (lambda face: face.propose(bytes(2 << 20)), EntryTooLarge),
    "too large, with a deadline": (lambda face: face.propose(bytes(2 << 20), timeout_s=1), EntryTooLarge),
    "a range that begins nowhere": (lambda face: face.index_range(0, 5), InvalidRequest),
    "a range without a number": (lambda face: face.index_range(None, 5), InvalidRequest),  # type: ignore[arg-type]
}


@KINDS
def test_what_is_wrong_with_a_request_its_future_raises(kind: str) -> None:
    async def scenario() -> None:
        async with face_of(kind) as face:
            for ask, error in WRONG.values():
                asked = ask(face)
                with pytest.raises(error):
                    await asked

    run(scenario())


@pytest.mark.parametrize("ask", [ask for ask, _ in WRONG.values()], ids=list(WRONG))
def test_so_it_does_where_nothing_runs(ask: Ask) -> None:
    async def scenario() -> None:
        nodes = {1: ("127.0.0.1", 1)}
        for face in (Node(1, nodes, entry_type=bytes), Client(nodes, entry_type=bytes)):
            asked = ask(face)
            with pytest.raises((NodeStopped, InvalidRequest, EntryTooLarge)):
                await asked

    run(scenario())
