"""Ranges that are read in one turn of the loop travel as one question, and each gets its own entries or its own error."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from tests.processes.waiting import HANG_S, QUICK, run
from totora import Client, Entry, Node, OutOfRange, Overloaded, RangeTooLarge
from totora.aio import face as face_module
from totora.aio import ranges as ranges_module
from totora.aio.face import Face
from totora.aio.questions import Questions
from totora.cli.demo_cluster import free_addresses
from totora.config import RANGE_BYTES_MAX
from totora.core.batch import HEADER_BYTES
from totora.wire.client import ReadRanges

KINDS = pytest.mark.parametrize("kind", ["node", "client"])


@asynccontextmanager
async def face_of(kind: str) -> AsyncGenerator[Face[bytes]]:
    nodes = free_addresses(1)
    async with Node(1, nodes, entry_type=bytes, settings=QUICK) as node:
        if kind == "node":
            yield node
        else:
            async with Client(nodes, entry_type=bytes) as client:
                yield client


@KINDS
def test_each_reader_gets_its_own_range(kind: str) -> None:
    """Parts of batches, whole ones and several; one that is not there is told so, and no other."""

    async def scenario() -> None:
        async with face_of(kind) as face:
            first = (await face.append([b"%d" % n for n in range(5)]))[0].index
            await face.append([b"%d" % n for n in range(5, 8)])
            await face.propose(b"8")
            places = [(a, b) for a in range(9) for b in range(a, 9)]
            reading = [face.index_range(first + a, first + b) for a, b in places]
            beyond = [face.index_range(first, first + 9), face.index_range(first + 50, first + 51)]
            found = await asyncio.gather(*reading, *beyond, return_exceptions=True)
            for (a, b), entries in zip(places, found, strict=False):
                assert isinstance(entries, list)
                assert [entry.value for entry in entries] == [b"%d" % n for n in range(a, b + 1)]
                assert [entry.index for entry in entries] == list(range(first + a, first + b + 1))
            for error in found[len(places) :]:
                assert isinstance(error, OutOfRange)
                assert error.commit_index == first + 8

    run(scenario())


@KINDS
def test_what_exceeds_an_answer_comes_in_several(kind: str) -> None:
    """Each of these is most of one; one alone that is larger is refused, and where to go on is said."""
    entry = bytes(250_000)
    most = RANGE_BYTES_MAX // (len(entry) + 4 + HEADER_BYTES)

    async def scenario() -> None:
        async with face_of(kind) as face:
            first = (await face.propose(entry)).index
            for _ in range(39):
                await face.propose(entry)
            found = await asyncio.gather(
                face.index_range(first, first + 25),
                face.index_range(first + 20, first + 39),
                face.index_range(first, first + 39),
                face.index_range(first + 2, first + 2),
                return_exceptions=True,
            )
            assert [len(entries) for entries in found if isinstance(entries, list)] == [26, 20, 1]
            error = found[2]
            assert isinstance(error, RangeTooLarge)
            assert error.next_index == first + most

    run(scenario())


def test_reads_of_one_turn_are_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with a patience of their own travel alone."""
    asked: list[ReadRanges] = []
    outgoing = Questions.outgoing

    def watched(self: Questions, now: int) -> Any:
        for question in outgoing(self, now):
            asked.append(question)
            yield question

    monkeypatch.setattr(Questions, "outgoing", watched)

    async def scenario() -> None:
        async with face_of("client") as client:
            index = (await client.propose(b"entry")).index
            await asyncio.gather(*(client.index_range(index, index) for _ in range(100)))
            assert [question.places for question in asked] == [(index, index) * 100]
            asked.clear()
            await asyncio.gather(
                client.index_range(index, index),
                client.index_range(index, index, timeout_s=HANG_S),
                client.index_range(index, index),
            )
            assert sorted(len(question.places) // 2 for question in asked) == [1, 1, 1]

    run(scenario())


def test_the_reads_of_a_node_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("totora.aio.ranges.PENDING_READS_MAX", 10)

    async def scenario() -> None:
        async with face_of("node") as node:
            index = (await node.propose(b"entry")).index
            reading = [node.index_range(index, index) for _ in range(11)]
            found = await asyncio.gather(*reading, return_exceptions=True)
            assert [isinstance(entries, list) for entries in found] == [True] * 10 + [False]
            assert isinstance(found[-1], Overloaded)
            assert len(await node.index_range(index, index)) == 1, "there is room again"

    run(scenario())


def test_what_is_no_entry_harms_only_its_reader() -> None:
    """Of those that are answered together."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with (
            Node(1, nodes, entry_type=str, settings=QUICK) as node,
            Client(nodes, entry_type=str) as client,
        ):
            good = await node.propose("good")
            bad = await node.propose("bad")
            decode = client._codec.decode

            def picky(payload: bytes | memoryview) -> str:
                if payload == b"bad":
                    raise ValueError("no entry")
                return decode(payload)

            client._codec.decode = picky  # type: ignore[method-assign]
            found = await asyncio.gather(
                client.index_range(good.index, good.index),
                client.index_range(bad.index, bad.index),
                client.index_range(good.index, good.index),
                return_exceptions=True,
            )
            assert found[0] == found[2] == [good]
            assert "no entry" in str(found[1])

    run(scenario())


# -- lots that are over


class Kept(msgspec.Struct, weakref=True):
    text: str


def test_nothing_of_a_lot_waits_for_a_garbage_collection() -> None:
    """At hundreds of thousands of entries a second the collector would have to look at all of them again and again."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with Node(1, nodes, entry_type=Kept, settings=QUICK) as node:
            gc.disable()
            try:
                index = 0

                async def propose() -> weakref.ref[Kept]:
                    nonlocal index
                    entry = await node.propose(Kept("entry"))
                    index = entry.index
                    return weakref.ref(entry.value)

                proposed = await asyncio.gather(*(propose() for _ in range(10)))
                await node.propose(Kept("the next lot"))
                assert [entry() for entry in proposed] == [None] * 10

                async def read() -> None:
                    await node.index_range(index, index)

                await asyncio.gather(*(read() for _ in range(10)))
                readers = weakref.ref(node._readers.lot.resolve.__self__.answers[0].args[0])  # type: ignore[union-attr]
                await node.index_range(index, index)
                assert readers() is None
            finally:
                gc.enable()

    run(scenario())


def test_of_very_many_some_wake_in_the_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its own place."""
    monkeypatch.setattr(face_module, "WAKE_MAX", 10)

    async def scenario() -> None:
        async with face_of("node") as node:
            woken: list[Entry[bytes]] = []
            turns: list[int] = []
            loop = asyncio.get_running_loop()

            def count() -> None:
                turns.append(len(woken))
                if len(woken) < 35:
                    loop.call_soon(count)

            async def propose(n: int) -> None:
                entry = await node.propose(b"%d" % n)
                if not woken:
                    loop.call_soon(count)
                woken.append(entry)

            await asyncio.gather(*(propose(n) for n in range(35)))
            assert [entry.value for entry in woken] == [b"%d" % n for n in range(35)]
            assert [entry.index - woken[0].index for entry in woken] == list(range(35))
            assert {20, 30} <= set(turns), "the loop came round in between"

    run(scenario())


@KINDS
def test_of_many_readers_half_wake_in_the_next_turn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first ask for next is under way by then; each gets its own entries all the same."""
    monkeypatch.setattr(ranges_module, "WAKE_MIN", 10)

    async def scenario() -> None:
        async with face_of(kind) as face:
            first = (await face.append([b"%d" % n for n in range(50)]))[0].index
            loop = asyncio.get_running_loop()
            woken: list[int] = []
            turns: list[int] = []

            async def read(n: int) -> None:
                (entry,) = await face.index_range(first + n, first + n)
                assert entry.value == b"%d" % n
                woken.append(n)
                if len(woken) == 1:
                    look()

            def look() -> None:
                turns.append(len(woken))
                if len(woken) < 50:
                    loop.call_soon(look)

            await asyncio.gather(*(read(n) for n in range(50)))
            assert woken == list(range(50))
            assert {37, 47} <= set(turns), "the loop came round in between"

    run(scenario())


@KINDS
def test_a_read_of_the_next_turn_is_another_question(kind: str) -> None:
    """It must see what was acknowledged in between, so it joins no lot that is on its way."""

    async def scenario() -> None:
        async with face_of(kind) as face:
            index = (await face.propose(b"entry")).index
            first = face.index_range(index, index)
            lot = face._readers.lot  # type: ignore[union-attr]
            assert lot.room
            await asyncio.sleep(0)
            assert not lot.room, "the turn is over"
            second = face.index_range(index, index)
            assert await asyncio.wait_for(second, HANG_S) == await first
            assert lot.places == [index, index]

    run(scenario())
