"""What a client tells of each request is certain: without effect, unknown, or never possible; and its queues are bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.aio.answering import Answer, answering, says
from tests.aio.test_client import at_least, client_of, link
from tests.processes.waiting import HANG_S, QUICK, eventually, run, running
from totora import (
    Client,
    ConfigurationError,
    Node,
    NodeStatus,
    NodeStopped,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from totora.aio import questions
from totora.cli.demo_cluster import free_addresses
from totora.core.messages import Propose
from totora.wire import codec
from totora.wire.frames import FRAME_BYTES_MAX, FrameReader
from totora.wire.handshake import Refusal, Welcome, decode_hello, encode_handshake

# -- what is certain -------------------------------------------------------------------------------


def test_what_never_left_is_unavailable_and_says_why() -> None:
    """All nodes are down: each is named with its reason. Not a moment later than was asked for, and without effect."""
    nodes = free_addresses(2)

    async def scenario() -> None:
        async with client_of(nodes) as client:
            for call in (
                client.propose("entry", timeout_s=0.2),
                client.append(["a", "b"], timeout_s=0.2),
                client.index_range(1, 1, timeout_s=0.2),
                client.read_index(timeout_s=0.2),
            ):
                with pytest.raises(Unavailable) as raised:
                    await call
                for host, port in nodes.values():
                    assert f"{host}:{port} connection refused" in str(raised.value)
            async with Node(1, {1: nodes[1]}, entry_type=str, settings=QUICK) as node:
                entry = await client.propose("the only one")
                assert [found async for found in node.entries()] == [entry]

    run(scenario())


class Swallowing:
    """A node that welcomes clients, takes what they propose, and answers nothing."""

    def __init__(self) -> None:
        self.swallowed: list[Propose] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader(FRAME_BYTES_MAX)
        greeted = False
        while data := await reader.read(1 << 16):
            for header, blob in frames.feed(data):
                if greeted:
                    message = codec.decode(header, blob)
                    if isinstance(message, Propose):
                        self.swallowed.append(message)
                else:
                    decode_hello(header)
                    writer.write(b"".join(encode_handshake(Welcome(1, None, 1, b"", 1, 0))))
                    greeted = True


def test_what_was_handed_over_and_never_answered_is_unknown() -> None:
    """It may be in a log. A read has no effect, so it is only unavailable."""
    nodes = free_addresses(1)
    swallowing = Swallowing()

    async def scenario() -> None:
        async with answering(nodes[1], swallowing), client_of(nodes) as client:
            with pytest.raises(OutcomeUnknown, match="it may still take effect"):
                await client.propose("entry", timeout_s=0.3)
            with pytest.raises(Unavailable):
                await client.read_index(timeout_s=0.1)
            assert swallowing.swallowed

    run(scenario())


def test_what_was_handed_over_travels_again_with_the_same_numbers_and_bytes() -> None:
    """So that whoever has it already recognizes it."""
    nodes = free_addresses(1)
    swallowing = Swallowing()

    async def scenario() -> None:
        async with client_of(nodes) as client:
            asking = client.propose("entry", timeout_s=HANG_S)
            for n in range(1, 4):
                async with answering(nodes[1], swallowing):
                    await eventually("it is handed over", partial(at_least, swallowing.swallowed, n))
                    end = link(client)._end
                    assert end is not None
                    end.give_up("lost")
            asking.cancel()
            await asyncio.wait([asking])
        first, *others = swallowing.swallowed
        for other in others:
            assert other.request_id != first.request_id
            same = msgspec.structs.replace(
                other, request_id=first.request_id, remaining_ns=first.remaining_ns
            )
            assert same == first

    run(scenario())


def test_when_the_client_stops_every_request_gets_an_outcome() -> None:
    """Known to be without effect where it never left."""
    nodes = free_addresses(1)
    swallowing = Swallowing()

    async def outcomes(client: Client[str], ready: Callable[[], Awaitable[object]]) -> list[Any]:
        asked: list[asyncio.Future[Any]] = [client.propose(str(n)) for n in range(5)]
        asked += [client.index_range(1, 1) for _ in range(5)]
        await ready()
        await client.stop()
        return await asyncio.gather(*asked, return_exceptions=True)

    async def scenario() -> None:
        async with client_of(nodes) as client:
            for outcome in await outcomes(client, lambda: asyncio.sleep(0)):
                assert type(outcome) is Unavailable
                assert "the client was closed" in str(outcome)
        async with answering(nodes[1], swallowing), client_of(nodes) as client:
            found = await outcomes(client, lambda: eventually("all left", lambda: swallowing.swallowed))
            assert [type(outcome) for outcome in found] == [OutcomeUnknown] * 5 + [Unavailable] * 5
            with pytest.raises(NodeStopped):
                await client.propose("late")

    run(scenario())


# -- being refused ---------------------------------------------------------------------------------


def refusing(code: Any) -> Answer:
    return says(b"".join(encode_handshake(Refusal(code, f"refuses for {code}"))))


@pytest.mark.parametrize("code", ["version", "cluster", "entry_type", "certificate"])
def test_who_is_refused_by_all_for_good_must_mend_its_settings(code: str) -> None:
    """The request that waits is told so as soon as it is known, and later ones at once."""
    nodes = free_addresses(2)

    async def scenario() -> None:
        async with (
            answering(nodes[1], refusing(code)),
            answering(nodes[2], refusing(code)),
            client_of(nodes) as client,
        ):
            entry, index = client.propose("entry", timeout_s=HANG_S), client.read_index(timeout_s=HANG_S)
            for outcome in await asyncio.gather(entry, index, return_exceptions=True):
                assert isinstance(outcome, ConfigurationError)
                assert str(outcome).count(f"refuses for {code}") == 2
            with pytest.raises(ConfigurationError, match="this client is refused: "):
                await client.propose("another", timeout_s=HANG_S)
            with pytest.raises(ConfigurationError, match="this client is refused: "):
                await client.index_range(1, 1, timeout_s=HANG_S)

    run(scenario())


@pytest.mark.parametrize("code", ["full", "address"])
def test_a_refusal_that_may_pass_is_waited_out(code: str) -> None:
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with client_of(nodes) as client:
            asking = client.propose("entry", timeout_s=HANG_S)
            async with answering(nodes[1], refusing(code)):
                await eventually("it is refused", lambda: link(client)._failures)
                with pytest.raises(Unavailable, match=f"refuses for {code}"):
                    await client.read_index(timeout_s=0.1)
            async with Node(1, nodes, entry_type=str, settings=QUICK):
                await asking

    run(scenario())


def test_one_node_that_refuses_for_good_is_passed_over() -> None:
    """A member with other settings than the rest is not the client's mistake."""
    nodes = free_addresses(2)

    async def scenario() -> None:
        async with (
            Node[bytes](1, {1: nodes[1]}, entry_type=bytes, settings=QUICK),
            Node(2, {2: nodes[2]}, entry_type=str, settings=QUICK),
            client_of(nodes, 1) as client,
        ):
            await client.propose("entry")

    run(scenario())


def test_another_entry_type_than_the_clusters_is_refused_in_words() -> None:
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with (
            Node[bytes](1, nodes, entry_type=bytes, settings=QUICK),
            Client(nodes, entry_type=str) as client,
        ):
            with pytest.raises(
                ConfigurationError, match="has another entry type than node 1: use the cluster's"
            ):
                await client.propose("entry", timeout_s=HANG_S)

    run(scenario())


def test_a_client_keeps_to_the_cluster_that_it_found_first(tmp_path: Path) -> None:
    """Another one at the same address, made anew: its log is not the one that the client wrote to."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with client_of(nodes) as client:
            async with running(nodes, tmp_path / "first"):
                await client.propose("in the first")
                # The cluster has its id since its first entry: the next welcome tells it.
                end = link(client)._end
                assert end is not None
                end.give_up("lost")
                await client.propose("in the first, again")
            async with running(nodes, tmp_path / "second") as started:
                await started[1].propose("in the second")
                with pytest.raises(ConfigurationError, match="belongs to "):
                    await client.propose("in the first?", timeout_s=HANG_S)
                assert len([entry async for entry in started[1].entries()]) == 1

    run(scenario())


def test_a_client_waits_for_a_node_that_does_not_know_its_cluster(tmp_path: Path) -> None:
    """It may be an empty one at the address of the right one: a request of an old session has no business there."""
    nodes = free_addresses(1)
    welcome = Welcome(1, None, 1, b"", 1, 0)

    async def scenario() -> None:
        async with client_of(nodes) as client:
            async with running(nodes, tmp_path):
                await client.propose("first")
                status = (await client.statuses())[1]
                assert isinstance(status, NodeStatus)
                # As it would learn with its next stream.
                link(client)._cluster_id = bytes.fromhex(status.cluster_id or "")
            async with answering(nodes[1], says(b"".join(encode_handshake(welcome)))):
                with pytest.raises(Unavailable, match="does not know yet which cluster it belongs to"):
                    await client.propose("second", timeout_s=0.3)
            async with running(nodes, tmp_path) as started:
                await client.propose("third", timeout_s=HANG_S)
                assert [entry.value async for entry in started[1].entries()] == ["first", "third"]

    run(scenario())


# -- bounds ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def waiting_for(calls: list[Any]) -> AsyncGenerator[None]:
    """These calls are under way, and get no answer."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def test_reads_that_wait_are_bounded() -> None:
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with client_of(nodes) as client:
            count = questions.PENDING_QUESTIONS_MAX
            async with waiting_for([client.read_index(timeout_s=HANG_S) for _ in range(count)]):
                with pytest.raises(Overloaded, match="1,024 reads") as raised:
                    await client.index_range(1, 1)
                assert raised.value.limit == count == 1_024
                with pytest.raises(Unavailable):
                    await client.propose("an append has a bound of its own", timeout_s=0.05)

    run(scenario())


@pytest.mark.parametrize(
    ("bound", "what"), [("PENDING_PROPOSALS_MAX", "10 requests"), ("PENDING_BYTES_MAX", "10 bytes")]
)
def test_appends_that_wait_are_bounded(bound: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by size; both bounds are lowered here. One that is larger than the bound is taken alone."""
    monkeypatch.setattr(f"totora.session.proposals.{bound}", 10)
    nodes = free_addresses(1)
    count = 10 if bound == "PENDING_PROPOSALS_MAX" else 1

    async def scenario() -> None:
        async with (
            client_of(nodes) as client,
            waiting_for([client.propose("more than ten bytes") for _ in range(count)]),
        ):
            with pytest.raises(Overloaded, match=what) as raised:
                await client.propose("more than ten bytes")
            assert raised.value.limit == 10

    run(scenario())
