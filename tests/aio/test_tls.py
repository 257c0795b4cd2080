"""Mutual TLS: who shows the right certificate is let in; who does not is refused, which is said once; the others go on."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.aio.certificates import (
    Authority,
    Contexts,
    complaints,
    peer,
    refusal,
    run_on,
    with_tls,
)
from tests.aio.strangers import Stranger, hello
from tests.processes.waiting import HANG_S, eventually, run
from totora import Client, ConfigurationError, Node, RaftError, RaftNode, Settings, Unavailable
from totora.aio import network
from totora.aio.links import Links
from totora.cli.demo_cluster import free_addresses
from totora.types import NodeId
from totora.wire.handshake import encode_handshake

LOOPS: Final = pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def another(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "another")


def all_three(authority: Authority) -> dict[NodeId, Contexts | None]:
    return {id: authority.of_node(id) for id in (1, 2, 3)}


def links(node: Node[str]) -> Links:
    found = node._backend()._links
    assert isinstance(found, Links)
    return found


# -- those who belong ------------------------------------------------------------------------------


@LOOPS
def test_a_cluster_and_its_client_work_under_tls(uvloop: bool, authority: Authority) -> None:
    """Entries larger than a record of TLS, through any node; a client's certificate may have any name."""
    nodes = free_addresses(3)
    large = "x" * (200 << 10)

    async def scenario() -> None:
        async with with_tls(nodes, all_three(authority)) as started:
            entries = [await started[id].propose(f"from {id} {large}") for id in nodes]
            async with Client(nodes, entry_type=str, tls=authority.contexts("a-service")[1]) as client:
                entries.append(await client.propose("from the client"))
                assert await client.index_range(entries[0].index, entries[-1].index) == entries
                statuses = await client.statuses()
                assert all(not isinstance(status, RaftError) for status in statuses.values())
            for node in started.values():
                assert await node.index_range(entries[0].index, entries[-1].index) == entries
            await eventually("all links are up", lambda: all(all_linked(node) for node in started.values()))

    def all_linked(node: Node[str]) -> bool:
        return all(other.linked and other.refused is None for other in node.status().peers)

    run_on(uvloop, scenario())


def test_one_certificate_may_name_several_nodes(authority: Authority) -> None:
    """A host that runs two of them, for a test."""
    nodes = free_addresses(2)
    both = authority.contexts("node-1", "node-2", "db.example")

    async def scenario() -> None:
        async with with_tls(nodes, {1: both, 2: both}) as started:
            await started[1].propose("entry")

    run(scenario())


# -- those who do not ------------------------------------------------------------------------------


def wrong(kind: str, authority: Authority, another: Authority) -> Mapping[NodeId, Contexts | None]:
    """Contexts of three nodes, the third of which does not fit."""
    shown = all_three(authority)
    match kind:
        case "another authority":
            return shown | {3: another.of_node(3)}
        case "another node's":
            return shown | {3: authority.of_node(2)}
        case "nobody's":
            return shown | {3: authority.contexts("db.example")}
        case "plaintext among tls":
            return shown | {3: None}
        case _:
            return {1: None, 2: None, 3: authority.of_node(3)}


NOT_ACCEPTED: Final = (
    "shows a certificate that is not accepted (self-signed certificate in certificate chain): "
    "give all certificates of one authority"
)
ENDED: Final = "ended the TLS handshake: does it use tls, and accept this certificate?"
UNANSWERED: Final = "takes connections and does not answer: does it use tls, or is it no node?"


@LOOPS
@pytest.mark.parametrize(
    ("kind", "at_the_others", "at_the_third"),
    [
        ("another authority", NOT_ACCEPTED, NOT_ACCEPTED),
        (
            "another node's",
            "shows a certificate for node-2, not for node-3: give every node its own",
            "shows a certificate for node-2, not for node-3: give every node its own",
        ),
        (
            "nobody's",
            "shows a certificate for db.example, not for node-3: give every node its own",
            "shows a certificate for db.example, not for node-3: give every node its own",
        ),
        ("plaintext among tls", ENDED, UNANSWERED),
        ("tls among plaintext", UNANSWERED, ENDED),
    ],
    ids=lambda value: value if value.startswith(("an", "no", "pl", "tls a")) else "",
)
def test_a_node_with_a_wrong_certificate_is_refused_and_the_others_go_on(
    kind: str,
    at_the_others: str,
    at_the_third: str,
    uvloop: bool,
    authority: Authority,
    another: Authority,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both sides show the reason in their status; each logs it once, however often it is tried again."""
    monkeypatch.setattr("totora.aio.links.BACKOFF_MAX_NS", 100_000_000)
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with with_tls(nodes, wrong(kind, authority, another)) as started:
            await started[1].propose("one")
            for id in (1, 2):
                assert await refusal(started[id], 3) == at_the_others
                assert await refusal(started[3], id) == at_the_third
            dialled = links(started[3]).counters.dialled
            await eventually("it tries again", lambda: links(started[3]).counters.dialled >= dialled + 4)
            await started[2].propose("two")
            third = started[3].status()
            assert third.last_index == 0, "nothing reached it"
            assert third.leader is None
            assert not any(other.linked for other in third.peers)
            assert not any(peer(started[id], 3).linked for id in (1, 2))

    run_on(uvloop, scenario())
    said = complaints(caplog.records)
    for id, why in ((1, at_the_third), (2, at_the_third), (3, at_the_others)):
        # Node 3 has two witnesses, and each of them dials it; a refusal in words comes from the other end.
        count = sum(said.count((f"node {id}", f"{prefix}{why}")) for prefix in ("", "refused this node: "))
        assert 1 <= count <= (2 if id == 3 else 1), said
    assert len(said) < 16, said


def test_a_dialler_without_a_certificate_is_refused(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in TLS's own words, and the node's log says who it was; it is counted each time, and logged once."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with with_tls(nodes, {1: authority.of_node(1)}) as started:
            node = started[1]
            for _ in range(5):
                reader, writer = await asyncio.open_connection(*nodes[1], ssl=authority.without_certificate())
                writer.write(b"".join(encode_handshake(hello())))
                with contextlib.suppress(OSError):  # How it is told depends on which of both ends is faster.
                    assert await reader.read() == b""
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            await eventually("each is counted", lambda: links(node).counters.refused == 5)
            assert links(node).counters.received == 0
            await node.propose("entry")

    run(scenario())
    (said,) = complaints(caplog.records)
    assert said[0].startswith("127.0.0.1:")
    assert said[1] == "was refused: it shows no certificate: give it one, in tls="


@LOOPS
@pytest.mark.parametrize(
    "data",
    [
        b"".join(encode_handshake(hello())),
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(4_096),
        b"\x16\x03\x01\xff\xff" + b"\xff" * 300,
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    ],
    ids=["a plaintext Hello", "http", "zeros", "a long ClientHello", "a short ClientHello"],
)
def test_what_is_no_tls_ends_the_connection_at_once(
    data: bytes, uvloop: bool, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at a deadline."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with with_tls(nodes, {1: authority.of_node(1)}) as started:
            for _ in range(3):
                stranger = await Stranger.connect(started[1].address)
                await stranger.send(data)
                stranger.finish()
                await stranger.rest()
                stranger.close()
            await eventually("each is counted", lambda: links(started[1]).counters.refused == 3)
            await started[1].propose("entry")
            assert not links(started[1])._unidentified

    run_on(uvloop, scenario())
    assert len(complaints(caplog.records)) == 1


def test_a_clienthello_at_a_plaintext_port_is_called_so(caplog: pytest.LogCaptureFixture) -> None:
    """A number of bytes that exceeds a limit would tell a person nothing."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with with_tls(nodes, {1: None}) as started:
            stranger = await Stranger.connect(started[1].address)
            await stranger.send(b"\x16\x03\x01\x02\x00\x01\x00")
            assert await stranger.rest() == b""
            stranger.close()
            assert links(started[1]).counters.garbage == 1

    run(scenario())
    assert complaints(caplog.records) == [
        ("127.0.0.1", "sent what it must not: frame: this is TLS: give all nodes tls=, or none")
    ]


# -- saying nothing --------------------------------------------------------------------------------


@LOOPS
def test_connections_that_say_nothing_of_tls_are_bounded_and_end(
    uvloop: bool, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound the oldest is dropped, at the deadline all are; a node and a client go on meanwhile."""
    assert (network.HANDSHAKES_MAX, network.HANDSHAKE_TIMEOUT_S) == (128, 5.0)
    monkeypatch.setattr(network, "HANDSHAKES_MAX", 20)
    monkeypatch.setattr(network, "HANDSHAKE_TIMEOUT_S", 1.0)
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with with_tls(nodes, {1: authority.of_node(1)}) as started:
            silent = [await Stranger.connect(nodes[1]) for _ in range(100)]
            listener: Any = links(started[1])._listener
            # The first 80 end because there is no room for them, the rest at the deadline.
            for number, stranger in enumerate(silent):
                assert await stranger.rest() == b""
                stranger.close()
                if number == 0:
                    assert len(listener._opening) <= 21, "the one too many is being dropped"
                    async with Client(nodes, entry_type=str, tls=authority.contexts("client")[1]) as client:
                        await client.propose("from a client that came after them")
            await eventually("nothing of them is kept", lambda: not listener._opening)

    run_on(uvloop, scenario())


def test_who_says_nothing_within_tls_meets_the_nodes_deadline(authority: Authority) -> None:
    """A certificate alone says not yet what for."""
    nodes = free_addresses(1)
    settings = Settings(handshake_timeout_s=0.3)

    async def scenario() -> None:
        async with Node(1, nodes, entry_type=str, tls=authority.of_node(1), settings=settings) as node:
            reader, writer = await asyncio.open_connection(*nodes[1], ssl=authority.contexts("client")[1])
            await eventually("it is known", lambda: links(node)._unidentified)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                assert await reader.read() == b""
            assert not links(node)._unidentified
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    run(scenario())


@LOOPS
def test_a_node_stops_although_handshakes_are_under_way(uvloop: bool, authority: Authority) -> None:
    """Nothing of them is left behind, and its port is free at once."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        for _ in range(2):
            async with with_tls(nodes, {1: authority.of_node(1)}):
                silent = [await Stranger.connect(nodes[1]) for _ in range(10)]
            for stranger in silent:
                assert await stranger.rest() == b""
                stranger.close()

    run_on(uvloop, scenario())


# -- clients ---------------------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("another authority", "shows a certificate that is not accepted"),
        ("plaintext", "closed the connection without an answer: does it use tls?"),
    ],
)
def test_a_client_that_does_not_fit_is_told_why(
    kind: str, why: str, uvloop: bool, authority: Authority, another: Authority
) -> None:
    """Its request never left it; so are those who ask for the status."""
    nodes = free_addresses(1)
    tls = another.contexts("client")[1] if kind == "another authority" else None

    async def scenario() -> None:
        async with (
            with_tls(nodes, {1: authority.of_node(1)}) as started,
            Client(nodes, entry_type=str, tls=tls) as client,
        ):
            with pytest.raises(Unavailable, match=why.replace("?", r"\?")):
                await client.propose("entry", timeout_s=0.5)
            status = (await client.statuses())[1]
            assert isinstance(status, Unavailable)
            assert why in str(status)
            assert links(started[1]).counters.received == 0

    run_on(uvloop, scenario())


def test_a_client_under_tls_is_told_that_a_node_is_not(authority: Authority) -> None:
    """The other way round."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        tls = authority.contexts("client")[1]
        async with with_tls(nodes, {1: None}), Client(nodes, entry_type=str, tls=tls) as client:
            with pytest.raises(Unavailable, match="ended the TLS handshake: does it use tls"):
                await client.propose("entry", timeout_s=0.5)

    run(scenario())


def test_a_client_does_not_talk_to_a_node_with_another_nodes_certificate(authority: Authority) -> None:
    """All of them, so nothing is left to try: the settings are wrong."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with (
            with_tls(nodes, {1: authority.of_node(2)}),
            Client(nodes, entry_type=str, tls=authority.contexts("client")[1]) as client,
        ):
            with pytest.raises(ConfigurationError, match="shows a certificate for node-2, not for node-1"):
                await client.propose("entry", timeout_s=HANG_S)

    run(scenario())


# -- contexts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("mode", [ssl.CERT_NONE, ssl.CERT_OPTIONAL])
def test_contexts_that_do_not_demand_certificates_are_refused_at_the_start(
    place: int, mode: ssl.VerifyMode, authority: Authority
) -> None:
    """Every face, before it listens or connects."""
    nodes = free_addresses(1)
    contexts = authority.of_node(1)
    contexts[place].verify_mode = mode

    async def scenario() -> None:
        node = Node(1, nodes, entry_type=str, tls=contexts)
        with pytest.raises(ConfigurationError, match=r"verify_mode = ssl\.CERT_REQUIRED"):
            await node.start()
        client = Client(nodes, entry_type=str, tls=contexts[place])
        with pytest.raises(ConfigurationError, match=r"verify_mode = ssl\.CERT_REQUIRED"):
            await client.start()

    run(scenario())
    with pytest.raises(ConfigurationError, match=r"verify_mode = ssl\.CERT_REQUIRED"):
        RaftNode.start(1, nodes, entry_type=str, tls=contexts)
