"""A node with a state machine: every committed entry is applied once, in order, and each call gets its own result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import pytest

from tests.processes.waiting import QUICK, eventually, run
from totora import (
    Address,
    CommandFailed,
    ConfigurationError,
    InvalidRequest,
    Node,
    NodeId,
    NodeStopped,
    NotAppended,
    OutcomeUnknown,
    Overloaded,
    QueryFailed,
    RaftError,
    Unavailable,
)
from totora.aio import applier
from totora.aio.runtime import Runtime
from totora.cli.demo_cluster import free_addresses
from totora.core.messages import Message, ProposeAccepted
from totora.session.requests import Result
from totora.session.units import Appended
from totora.sim.key_value import Append, Command, Get, KeyValue, Put, Value
from totora.types import FAR_NS


class Note(msgspec.Struct, frozen=True, array_like=True, tag="note"):
    """Write something down."""

    text: str


class Refuse(msgspec.Struct, frozen=True, array_like=True, tag="refuse"):
    """Raise, after half of the work is done."""

    text: str


Order: TypeAlias = Note | Refuse


class Book:
    """What it was told, in order; `apply` returns how many that are. seen: called with every command."""

    def __init__(self, seen: Callable[[Order], object] = lambda order: None) -> None:
        self.notes: list[str] = []
        self._seen = seen

    def apply(self, order: Order) -> int:
        self._seen(order)
        self.notes.append(order.text)
        if isinstance(order, Refuse):
            raise LookupError(f"{order.text} is refused")
        return len(self.notes)

    def query(self, place: int) -> str:
        return self.notes[place]


BookNode: TypeAlias = Node[Order, int, int, str]


def node_of(
    book: Book, id: NodeId, nodes: Mapping[NodeId, Address], data_dir: Path | None = None
) -> BookNode:
    return Node(id, nodes, entry_type=Order, machine=book, data_dir=data_dir, settings=QUICK)


@asynccontextmanager
async def cluster(books: Mapping[NodeId, Book]) -> AsyncGenerator[dict[NodeId, BookNode]]:
    nodes = free_addresses(len(books))
    async with AsyncExitStack() as stack:
        yield {id: await stack.enter_async_context(node_of(book, id, nodes)) for id, book in books.items()}


def applier_of(node: Node[Any, Any, Any, Any]) -> applier.Applier[Any, Any, Any, Any]:
    assert node._applier is not None
    return node._applier


def owes_nothing(node: Node[Any, Any, Any, Any]) -> bool:
    """No call is remembered, and no result."""
    applier = applier_of(node)
    return not applier._pending and not applier._waiting and applier.deadline() == FAR_NS


# -- results


def test_each_call_gets_its_own_result_through_any_node() -> None:
    """Leaders and followers, many at a time; nothing is applied twice anywhere, and all apply the same."""
    books = {id: Book() for id in (1, 2, 3)}

    async def scenario() -> None:
        async with cluster(books) as nodes:
            orders = [(id, f"{id}/{n}") for n in range(100) for id in nodes]
            places = await asyncio.gather(*(nodes[id].apply(Note(text)) for id, text in orders))
            assert sorted(places) == list(range(1, len(orders) + 1))
            for (id, text), place in zip(orders, places, strict=True):
                assert await nodes[id].query(place - 1) == text
            assert all(map(owes_nothing, nodes.values()))
        assert books[1].notes == books[2].notes == books[3].notes
        assert len(books[1].notes) == len(orders)

    run(scenario())


def test_a_query_sees_what_was_acknowledged_before_it_through_another_node() -> None:
    async def scenario() -> None:
        async with cluster({id: Book() for id in (1, 2, 3)}) as nodes:
            for n in range(30):
                place = await nodes[1 + n % 3].apply(Note(f"note {n}"))
                answers = await asyncio.gather(*(node.query(place - 1) for node in nodes.values()))
                assert answers == [f"note {n}"] * 3

    run(scenario())


def test_entries_that_were_appended_as_entries_are_applied_too() -> None:
    """`append` and `propose` return places, as without a machine; the machine gets what they hold, in the log's order."""
    book = Book()

    async def scenario() -> None:
        async with cluster({1: book}) as nodes:
            node = nodes[1]
            entries, place, entry = await asyncio.gather(
                node.append([Note("a"), Refuse("b"), Note("c")]),
                node.apply(Note("d")),
                node.propose(Note("e")),
            )
            assert [entry.value.text for entry in entries] == ["a", "b", "c"]
            assert place == 4
            assert entry.index == entries[0].index + 4
            assert await node.query(4) == "e"
            assert owes_nothing(node)
            assert [entry.value.text async for entry in node.entries()] == book.notes

    run(scenario())


def test_with_callbacks_it_is_the_same() -> None:
    told: list[Result[Any]] = []

    async def scenario() -> None:
        async with cluster({1: Book()}) as nodes:
            nodes[1].submit_command(Note("a"), told.append)
            nodes[1].submit_command(Refuse("b"), told.append)
            await eventually("both are answered", lambda: len(told) == 2)
            nodes[1].submit_query(0, told.append)
            nodes[1].submit_query(7, told.append)
            await eventually("all are answered", lambda: len(told) == 4)
        nodes[1].submit_command(Note("late"), told.append)
        nodes[1].submit_query(0, told.append)
        assert owes_nothing(nodes[1])

    run(scenario())
    assert told[0].unwrap() == 1
    assert told[2].unwrap() == "a"
    for result, kind in (
        (told[1], CommandFailed),
        (told[3], QueryFailed),
        (told[4], NodeStopped),
        (told[5], NodeStopped),
    ):
        with pytest.raises(kind):
            result.unwrap()


def test_a_follower_whose_answer_is_lost_tells_the_result_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it applies is committed: that is an answer to its proposal. Nothing is remembered, and what follows works too."""
    send = Runtime.send

    def lossy(self: Runtime, peer: NodeId, message: Message) -> None:
        if not isinstance(message, ProposeAccepted):
            send(self, peer, message)

    async def scenario() -> None:
        async with cluster({id: Book() for id in (1, 2, 3)}) as nodes:
            await nodes[1].apply(Note("first"))
            monkeypatch.setattr(Runtime, "send", lossy)
            for n in range(5):
                await asyncio.gather(
                    *(node.apply(Note(f"note {n}")) for node in nodes.values() for _ in range(5))
                )
            assert all(map(owes_nothing, nodes.values()))

    run(scenario())


# -- errors


def test_an_error_in_apply_is_the_callers_and_the_log_goes_on() -> None:
    """With its index and the error itself; all replicas hold the same, what was done before the error included."""
    books = {id: Book() for id in (1, 2, 3)}

    async def scenario() -> None:
        async with cluster(books) as nodes:
            for id, node in nodes.items():
                with pytest.raises(CommandFailed, match=f"LookupError: '?{id}/x is refused") as failed:
                    await node.apply(Refuse(f"{id}/x"))
                assert isinstance(failed.value.error, LookupError)
                (entry,) = await node.index_range(failed.value.index, failed.value.index)
                assert entry.value == Refuse(f"{id}/x")
                assert not isinstance(failed.value, NotAppended | OutcomeUnknown)
                assert await node.apply(Note(f"{id}/y")) == 2 * id
            last = max(node.status().commit_index for node in nodes.values())
            for node in nodes.values():
                await eventually("it has applied all", partial(has_applied, node, last))
        assert (
            books[1].notes
            == books[2].notes
            == books[3].notes
            == [f"{n}/{x}" for n in (1, 2, 3) for x in "xy"]
        )

    run(scenario())


def has_applied(node: Node[Any, Any, Any, Any], index: int) -> bool:
    return node.status().applied_index >= index


def test_an_error_in_query_is_the_callers_alone() -> None:
    async def scenario() -> None:
        async with cluster({1: Book()}) as nodes:
            with pytest.raises(QueryFailed, match="IndexError") as failed:
                await nodes[1].query(7)
            assert isinstance(failed.value.__cause__, IndexError)
            assert await nodes[1].apply(Note("on")) == 1
            assert await nodes[1].query(0) == "on"

    run(scenario())


def test_a_command_of_another_type_is_never_sent() -> None:
    async def scenario() -> None:
        async with cluster({1: Book()}) as nodes:
            wrong: Any = "text"
            with pytest.raises(InvalidRequest):
                await nodes[1].apply(wrong)
            assert owes_nothing(nodes[1])

    run(scenario())


def test_what_is_no_command_is_passed_over_on_every_node(caplog: pytest.LogCaptureFixture) -> None:
    """A client process may append any bytes: it must not stop the nodes. Said once a minute."""
    books = {id: Book() for id in (1, 2, 3)}
    outcomes: list[Appended | RaftError] = []

    async def scenario() -> None:
        async with cluster(books) as nodes:
            for node in nodes.values():
                node._backend().submit((b"\xc1", b"\xc1"), None, None, outcomes.append)
            await eventually("they stand in the log", lambda: len(outcomes) == 3)
            for id, node in nodes.items():
                assert await node.apply(Note(f"{id}")) == id
            last = max(node.status().commit_index for node in nodes.values())
            for node in nodes.values():
                await eventually("it has applied all", partial(has_applied, node, last))

    run(scenario())
    assert books[1].notes == books[2].notes == books[3].notes == ["1", "2", "3"]
    assert [record.message for record in caplog.records].count("entry_passed_over") == 3


def test_a_machine_without_memory_stops_its_node() -> None:
    """The other nodes have applied the command: this one cannot go on as if it had failed."""

    def out_of_memory(order: Order) -> None:
        if order.text == "much":
            raise MemoryError

    async def scenario() -> None:
        async with cluster({1: Book(out_of_memory)}) as nodes:
            with pytest.raises(OutcomeUnknown):
                await nodes[1].apply(Note("much"))
            assert isinstance(await nodes[1].stopped(), MemoryError)
            assert owes_nothing(nodes[1])

    run(scenario())


def test_without_a_machine_there_is_nothing_to_call() -> None:
    """Everything else is as ever: what is committed counts as applied."""
    told: list[Result[Any]] = []

    async def scenario() -> None:
        async with Node(1, free_addresses(1), entry_type=str, settings=QUICK) as node:
            untyped: Any = node
            for call in (untyped.apply, untyped.query):
                with pytest.raises(ConfigurationError, match="machine="):
                    await call("x")
            untyped.submit_command("x", told.append)
            untyped.submit_query("x", told.append)
            assert len(told) == 2
            entry = await node.propose("x")
            assert node.status().applied_index == node.status().commit_index == entry.index

    run(scenario())


def test_a_node_of_one_type_variable_can_be_named_at_run_time() -> None:
    """As ever; before Python 3.13 no type variable has a default."""

    class Named(Node[str]):
        pass

    assert issubclass(Named, Node)
    assert str(Node[str]) != str(Node[str, int, int, str])


# -- the whole log


def test_a_restart_applies_the_log_from_its_start(tmp_path: Path) -> None:
    """To a new machine, from storage, failed commands included; results go to nobody, and calls go on behind."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        before, after = Book(), Book()
        async with node_of(before, 1, nodes, tmp_path) as node:
            for n in range(40):
                await asyncio.gather(*(node.apply(Note(f"{n}/{k} " + "x" * 5_000)) for k in range(10)))
            with pytest.raises(CommandFailed):
                await node.apply(Refuse("no"))
        async with node_of(after, 1, nodes, tmp_path) as node:
            assert await node.query(400) == "no"
            assert after.notes == before.notes
            assert await node.apply(Note("more")) == 402
            assert node.status().applied_index == node.status().commit_index

    run(scenario())


def test_what_is_known_to_be_committed_is_applied_without_a_leader(tmp_path: Path) -> None:
    """Of three nodes one starts again, alone: it has applied what it knew, and reads of it have to wait."""
    nodes = free_addresses(3)
    first, alone = Book(), Book()

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(node_of(first, 1, nodes, tmp_path / "1"))
            for id in (2, 3):
                await stack.enter_async_context(node_of(Book(), id, nodes, tmp_path / f"{id}"))
            for n in range(20):
                await one.apply(Note(f"{n}"))
        async with node_of(alone, 1, nodes, tmp_path / "1") as one:
            known = one.status().commit_index
            assert known > 1
            await eventually("it has applied what it knows", partial(has_applied, one, known))
            assert alone.notes == first.notes[: len(alone.notes)] != []
            with pytest.raises(Unavailable):
                await one.query(0, timeout_s=0.1)

    run(scenario())


def test_a_long_replay_leaves_the_loop_time_for_everything_else(tmp_path: Path) -> None:
    """No turn of the loop applies more than a slice, one batch of very many entries included."""
    nodes = free_addresses(1)
    turn = 0
    applied: dict[int, int] = {}

    def seen(order: Order) -> None:
        applied[turn] = applied.get(turn, 0) + 1

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def scenario() -> None:
        async with node_of(Book(), 1, nodes, tmp_path) as node:
            await node.append([Note("x")] * 10_000)
            for _ in range(3):
                await asyncio.gather(*(node.apply(Note("y")) for _ in range(1_000)))
        counting = asyncio.ensure_future(count_turns())
        async with node_of(Book(seen), 1, nodes, tmp_path) as node:
            assert await node.query(12_999) == "y"
        counting.cancel()

    run(scenario())
    assert sum(applied.values()) == 13_000
    assert max(applied.values()) <= applier.SLICE_STEPS_MAX


def test_a_slow_machine_costs_no_leader_its_office() -> None:
    """A slice ends by time too: thousands of slow commands take far longer than an election timeout."""

    async def scenario() -> None:
        async with cluster({id: Book(lambda order: time.sleep(0.001)) for id in (1, 2, 3)}) as nodes:
            await nodes[1].apply(Note("first"))
            term = nodes[1].status().term
            await nodes[1].append([Note("x")] * 600)
            assert await nodes[1].apply(Note("last"), timeout_s=60) == 602
            assert {node.status().term for node in nodes.values()} == {term}

    run(scenario())


def test_the_applied_index_is_what_was_really_applied() -> None:
    seen: list[tuple[int, int]] = []
    nodes: dict[NodeId, BookNode] = {}

    def look(order: Order) -> None:
        status = nodes[1].status()
        seen.append((status.applied_index, status.commit_index))

    async def scenario() -> None:
        async with cluster({1: Book(look)}) as started:
            nodes.update(started)
            first = await started[1].append([Note("x")] * 5)
            await started[1].apply(Note("y"))
            behind = [first[0].index - 1 + n for n in range(6)]
            assert [applied for applied, _ in seen] == behind
            assert all(applied < committed for applied, committed in seen)
            assert started[1].status().applied_index == first[0].index + 5

    run(scenario())


# -- outcomes

MANY: Final = 3_000


def slow(order: Order) -> None:
    time.sleep(0.001)


def test_calls_whose_time_is_over_before_this_node_has_applied_enough() -> None:
    """A command is committed, so its outcome is unknown; a query has none. Both are forgotten then, others wait on.

    Nothing else wakes this node meanwhile: it has nobody to send heartbeats to, and they are rare.
    """
    rare = replace(QUICK, heartbeat_s=30.0, election_min_s=60.0, election_max_s=90.0)

    async def scenario() -> None:
        async with Node(1, free_addresses(1), entry_type=Order, machine=Book(slow), settings=rare) as node:
            await node.append([Note("x")] * MANY)
            command = node.apply(Note("y"), timeout_s=0.2)
            query = node.query(0, timeout_s=0.2)
            patient = node.apply(Note("z"), timeout_s=60)
            await asyncio.gather(command, query, return_exceptions=True)
            with pytest.raises(OutcomeUnknown, match="committed at"):
                await command
            with pytest.raises(Unavailable, match="has applied up to"):
                await query
            assert not patient.done()
            assert await patient == MANY + 2
            assert owes_nothing(node)

    run(scenario())


def test_calls_that_nobody_waits_for_any_more_leave_nothing() -> None:
    """Commands and queries whose tasks are cancelled, whatever they wait for."""

    async def scenario() -> None:
        async with cluster({1: Book()}) as nodes:
            node = nodes[1]
            for turns in range(6):
                calls: list[asyncio.Future[Any]] = [node.apply(Note("x")) for _ in range(10)]
                calls += [node.query(0) for _ in range(10)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for call in calls:
                    call.cancel()
            await eventually("nothing is remembered", partial(owes_nothing, node))
            assert await node.apply(Note("x"))

    run(scenario())


def test_a_node_that_stops_gives_every_call_an_outcome() -> None:
    """What is committed and not applied, what is not committed, what waits to be read."""

    async def scenario() -> None:
        stopping: list[asyncio.Task[None]] = []
        nodes: dict[NodeId, BookNode] = {}

        def stop(order: Order) -> None:
            if order.text == "stop":
                stopping.append(asyncio.get_running_loop().create_task(nodes[1].stop()))
                # The rest of this batch is for later slices: so the stop comes in between.
                time.sleep(applier.SLICE_NS / 1e9)

        async with cluster({1: Book(stop)}) as started:
            nodes.update(started)
            node = nodes[1]
            await node.apply(Note("first"))
            calls = [node.apply(Note(text)) for text in ("stop", "behind", "last")]
            await eventually("it stops", lambda: stopping)
            queries = [node.query(0) for _ in range(3)]
            outcomes = await asyncio.gather(*calls, *queries, return_exceptions=True)
            assert outcomes[0] == 2
            assert [type(outcome) for outcome in outcomes[1:3]] == [OutcomeUnknown] * 2
            assert [type(outcome) for outcome in outcomes[3:]] == [NodeStopped] * 3
            assert owes_nothing(node)
            await stopping[0]

    run(scenario())


def test_without_a_majority_calls_end_as_requests_do() -> None:
    async def scenario() -> None:
        nodes = free_addresses(3)
        async with node_of(Book(), 1, nodes) as node:
            with pytest.raises(Unavailable):
                await node.apply(Note("x"), timeout_s=0.1)
            with pytest.raises(Unavailable):
                await node.query(0, timeout_s=0.1)
            waiting: list[asyncio.Future[Any]] = [node.apply(Note("x")), node.query(0)]
            await asyncio.sleep(0)
            await node.stop()
            for call in waiting:
                with pytest.raises(NodeStopped):
                    await call
            assert owes_nothing(node)

    run(scenario())


def test_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands and queries together; an outcome makes room."""
    monkeypatch.setattr(applier, "PENDING_CALLS_MAX", 4)

    async def scenario() -> None:
        async with cluster({1: Book()}) as nodes:
            node = nodes[1]
            await node.apply(Note("x"))
            calls: list[asyncio.Future[Any]] = [node.apply(Note("x")) for _ in range(3)]
            calls += [node.query(0) for _ in range(3)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [int, int, int, str, Overloaded, Overloaded]
            assert await node.apply(Note("x")) == 5

    run(scenario())


# -- the reference machine


def test_the_reference_machine_of_three_nodes() -> None:
    async def scenario() -> None:
        nodes = free_addresses(3)
        async with AsyncExitStack() as stack:
            started: list[Node[Command, Value | None, Get, Value | None]] = [
                await stack.enter_async_context(
                    Node(id, nodes, entry_type=Command, machine=KeyValue(), settings=QUICK)
                )
                for id in nodes
            ]
            one, two, three = started
            assert await one.apply(Put("a", "x")) is None
            assert await two.apply(Append("a", "y")) == "x"
            assert await three.query(Get("a")) == "xy"

    run(scenario())
