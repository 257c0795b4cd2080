"""Whoever answers at a member's address without being that member: no link, a reason in the status, and the others go on."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
import pytest

from tests.aio.answering import Answer, answering, says
from tests.aio.certificates import complaints, peer, refusal
from tests.aio.strangers import hello
from tests.processes.waiting import QUICK, eventually, run
from tests.wire.samples import SAMPLES, framed
from totora import Node
from totora.aio.links import Links
from totora.cli.demo_cluster import free_addresses
from totora.types import NodeId
from totora.wire.frames import frame
from totora.wire.handshake import Refusal, Welcome, encode_handshake

OTHER: Final = b"o" * 16
IMPATIENT: Final = dataclasses.replace(QUICK, handshake_timeout_s=0.1)


def welcome(**fields: Any) -> bytes:
    """Node 3's, unless said otherwise."""
    usual = Welcome(1, None, 3, b"s" * 16, 1, 0)
    return b"".join(encode_handshake(msgspec.structs.replace(usual, **fields)))


@asynccontextmanager
async def with_an_impostor(answer: Answer) -> AsyncGenerator[dict[NodeId, Node[str]]]:
    """Nodes 1 and 2 of three; somebody else has the address of the third."""
    nodes = free_addresses(3)
    async with (
        answering(nodes[3], answer),
        Node(1, nodes, entry_type=str, settings=QUICK) as one,
        Node(2, nodes, entry_type=str, settings=QUICK) as two,
    ):
        yield {1: one, 2: two}


def shows(node: Node[str], why: str) -> bool:
    return why in (peer(node, 3).refused or "")


def has_dialled(node: Node[str], times: int) -> bool:
    return dialled(node) >= times


def dialled(node: Node[str]) -> int:
    links = node._backend()._links
    assert isinstance(links, Links)
    return links.counters.dialled


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (welcome(version=2), "wants protocol version 2, node {id} speaks 1 to 1: upgrade the older one"),
        (welcome(node_id=2), "node 2 answers at the address of node 3"),
        (welcome(cluster_id=OTHER), "belongs to another cluster"),
        (
            b"".join(encode_handshake(Refusal("version", "speaks 7 to 9: upgrade the older one"))),
            "speaks 7 to 9: upgrade the older one",
        ),
        (
            b"".join(encode_handshake(Refusal("version", "\x1b[2J"))),
            "does not answer as a node: handshake: control characters in a refusal",
        ),
        (b"".join(encode_handshake(hello())), "does not answer as a node: handshake: "),
        (framed(SAMPLES[0]), "does not answer as a node: handshake: "),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer as a node: frame: a frame of "),
        (b"".join(frame(b"\xc1")), "does not answer as a node: handshake: "),
        (b"\xff" * 12, "does not answer as a node: frame: a frame of 4,294,967,295 bytes exceeds the limit"),
        (
            b"\x15\x03\x03\x00\x02\x02\x46",
            "does not answer as a node: frame: this is TLS: give all nodes tls=, or none",
        ),
    ],
    ids=[
        "version",
        "id",
        "cluster",
        "refusal",
        "refusal with control characters",
        "hello",
        "message",
        "http",
        "garbage",
        "4 GiB",
        "tls alert",
    ],
)
def test_a_wrong_answer_is_shown_and_logged_once(
    answer: bytes, why: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("totora.aio.links.BACKOFF_MAX_NS", 100_000_000)

    async def scenario() -> None:
        async with with_an_impostor(says(answer)) as started:
            # A cluster's id is known, and so compared, only once its first entry is committed.
            await started[1].propose("one")
            for id, node in started.items():
                await eventually("it says why", partial(shows, node, why.format(id=id)))
            before = {id: dialled(node) for id, node in started.items()}
            for id, node in started.items():
                await eventually("it tries again", partial(has_dialled, node, before[id] + 3))
                assert not peer(node, 3).linked
            await started[2].propose("two")

    run(scenario())
    said = complaints(caplog.records)
    assert said
    assert len(set(said)) <= len(said) <= 8, "each witness, cause and minute once"


@pytest.mark.parametrize("then", ["waits", "closes"])
def test_who_takes_connections_and_says_nothing_is_shown(then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once or at the handshake's deadline; one that ends before a word may just have been stopping."""
    monkeypatch.setattr("totora.aio.links.BACKOFF_MAX_NS", 100_000_000)
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with (
            answering(nodes[3], says(b"", then=then)),
            Node(1, nodes, entry_type=str, settings=IMPATIENT) as one,
            Node(2, nodes, entry_type=str, settings=IMPATIENT),
        ):
            assert await refusal(one, 3) == (
                "takes connections and does not answer: does it use tls, or is it no node?"
            )
            await one.propose("entry")

    run(scenario())


def test_a_node_that_comes_in_place_of_an_impostor_is_linked() -> None:
    """What was shown of the other one is gone then."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with (
            Node(1, nodes, entry_type=str, settings=QUICK) as one,
            Node(2, nodes, entry_type=str, settings=QUICK),
        ):
            async with answering(nodes[3], says(b"HTTP/1.1 400 Bad Request\r\n\r\n", then="closes")):
                await refusal(one, 3)
            async with Node(3, nodes, entry_type=str, settings=QUICK):
                await eventually("it is linked", lambda: peer(one, 3).linked)
                assert peer(one, 3).refused is None

    run(scenario())


def test_a_member_that_is_away_is_not_said_to_refuse() -> None:
    """Nobody listens there: that is no refusal, and no reason to try less often."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with (
            Node(1, nodes, entry_type=str, settings=QUICK) as one,
            Node(2, nodes, entry_type=str, settings=QUICK),
        ):
            await eventually("it tries", lambda: dialled(one) >= 8)
            assert not peer(one, 3).linked
            assert peer(one, 3).refused is None

    run(scenario())


def test_an_answer_that_goes_on_ends_the_link_and_is_shown_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A stream is dialled to send over it: whoever answers more than a Welcome is no node."""

    async def scenario() -> None:
        async with with_an_impostor(says(welcome() + framed(SAMPLES[0]))) as started:
            await started[1].propose("one")
            await eventually(
                "it is said", lambda: any("only receives" in why for _, why in complaints(caplog.records))
            )
            await started[2].propose("two")

    run(scenario())
