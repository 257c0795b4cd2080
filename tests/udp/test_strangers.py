"""Datagrams from whoever can reach a node's address: they are counted, answered at most now and then, and change nothing."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
import pytest

from tests.aio.certificates import complaints
from tests.levels import by_level
from tests.processes.waiting import eventually, run
from tests.udp.cluster import Faults, Raw, counters, peer, raw_socket, running
from tests.udp.test_json_datagrams import KINDS, example, with_checksum
from totora import Node
from totora.aio.seldom import CAUSES_MAX
from totora.cli.demo_cluster import free_addresses
from totora.core.messages import AppendEntries, RequestVote
from totora.types import NodeId
from totora.wire.entries import EntryCodec
from totora.wire.handshake import Hello, Refusal, hash_of_list
from totora.wire.json_datagrams import DATAGRAM_BYTES_MAX, decode_datagram, encode_datagram

COUNT: Final = by_level(quick=1_000, ci=10_000)
AT_A_TIME: Final = 50
"""So many fit into any socket's buffer."""

OTHER: Final = b"o" * 16


def hello(**fields: Any) -> Hello:
    """What node 3 of a cluster of three says of itself to node 1, unless said otherwise."""
    usual = Hello(
        "totora",
        1,
        1,
        "control",
        None,
        hash_of_list([1, 2, 3]),
        3,
        b"s" * 16,
        1,
        EntryCodec(str).fingerprint,
        "",
        1,
        1,
    )
    return msgspec.structs.replace(usual, **fields)


class Host:
    """Nodes 1 and 2 of three, which have a leader and an entry, and a socket that speaks for node 3 or for nobody."""

    def __init__(self, started: dict[NodeId, Node[str]], raw: Raw, cluster_id: bytes) -> None:
        self.started, self.raw, self.cluster_id = started, raw, cluster_id
        self.node = started[1]

    def send(self, data: bytes) -> None:
        self.raw.send(self.node.address, data)

    def handled(self) -> int:
        """Datagrams of strangers that node 1 has dealt with."""
        found = counters(self.node)
        return found.garbage + found.refused

    async def dealt_with(self, count: int) -> None:
        await eventually(f"{count} are counted", lambda: self.handled() >= count)

    def refusals(self) -> list[Refusal]:
        said = [decode_datagram(data).refusal() for data in self.raw.arrived]
        return [refusal for refusal in said if refusal is not None]


@asynccontextmanager
async def host(*, as_member: bool = False) -> AsyncGenerator[Host]:
    """In the end the nodes are asked whether all is well."""
    nodes = free_addresses(3)
    async with (
        running(nodes, ids=[1, 2]) as started,
        raw_socket(nodes[3] if as_member else ("127.0.0.1", 0)) as raw,
    ):
        await started[1].propose("before")
        cluster_id = await eventually("it has an id", lambda: started[1].status().cluster_id)
        before = started[1].status()
        one = Host(started, raw, bytes.fromhex(cluster_id))
        yield one
        entry = await started[2].propose("after")
        assert [found.value async for found in started[1].entries()] == ["before", "after"]
        after = started[1].status()
        assert (after.term, after.leader) == (before.term, before.leader), "nobody made it stand again"
        assert after.commit_index >= entry.index
        assert not peer(started[1], 3).linked
        links: Any = started[1]._backend()._links
        assert len(links._logged) <= CAUSES_MAX
        assert len(links._answered_strangers) <= CAUSES_MAX


async def in_bursts(one: Host, datagrams: list[bytes], node: NodeId = 1) -> None:
    """All of them, as fast as they are dealt with: each must be counted."""
    total = one.handled()
    for start in range(0, len(datagrams), AT_A_TIME):
        burst = datagrams[start : start + AT_A_TIME]
        for data in burst:
            one.send(data)
        total += len(burst)
        await one.dealt_with(total)
    assert one.handled() == total


# -- garbage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_member", [False, True], ids=["from anywhere", "from a member's address"])
def test_random_datagrams_are_counted_and_nothing_else(
    as_member: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes, JSON of other things, nothing at all, and as much as a datagram holds."""
    chance = random.Random(1)

    def datagram() -> bytes:
        match chance.randrange(5):
            case 0:
                return chance.randbytes(chance.randrange(1_500))
            case 1:
                return json.dumps({"from": chance.random(), "to": [1, {}], "message": None}).encode()
            case 2:
                return with_checksum(json.dumps({"totora": [1, 1], "from": chance.randrange(5)}))
            case 3:
                return b'{"checksum":"%08x",' % chance.getrandbits(32) + chance.randbytes(50)
            case _:
                return b"" if chance.random() < 0.5 else b"x" * DATAGRAM_BYTES_MAX

    async def scenario() -> None:
        async with host(as_member=as_member) as one:
            await in_bursts(one, [datagram() for _ in range(COUNT)])
            assert counters(one.node).garbage >= COUNT
            assert one.refusals() == [], "nobody is answered who did not say who it is"

    run(scenario())
    assert len(complaints(caplog.records)) <= 2


def test_what_was_valid_before_it_was_changed_is_counted_and_nothing_else() -> None:
    """Real datagrams of the nodes, sent on with a flipped bit, a part cut off or put in twice."""
    faults = Faults(recording=True)
    nodes = free_addresses(3)
    chance = random.Random(2)

    def changed(data: bytes) -> bytes:
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
            case 1:
                return data[:at]
            case 2:
                return data[:at] + data[at + 1 :]
            case _:
                return data[:at] + data[at:] + data[at:]

    async def scenario() -> None:
        async with running(nodes, faults=faults) as started:
            for n in range(20):
                await started[1 + n % 3].propose(f"entry {n}")
        said = [data for data in faults.passed if json.loads(data)["to"] == 1]
        async with host() as one:
            await in_bursts(one, [changed(chance.choice(said)) for _ in range(COUNT)])

    run(scenario())


def test_whatever_stands_under_a_right_checksum_and_a_members_name() -> None:
    """From the member's own address, in its cluster's name: kinds and numbers at random. It may be heard, as that member
    would be; it must not stop a node or make it append."""
    chance = random.Random(3)
    junk: list[Any] = [
        None,
        -1,
        1.5,
        "",
        "x" * 600,
        [],
        {},
        [[1]],
        True,
        {"type": "RequestVote"},
        2**64,
        "/w==",
    ]

    async def scenario() -> None:
        nodes = free_addresses(3)
        async with running(nodes, ids=[1, 2]) as started, raw_socket(nodes[3]) as raw:
            await started[1].propose("before")
            cluster_id = bytes.fromhex(started[1].status().cluster_id or "")
            for number in range(by_level(quick=300, ci=5_000)):
                said = json.loads(
                    encode_datagram(hello(cluster_id=cluster_id), True, example(chance.choice(KINDS), 1))
                )
                del said["checksum"]
                target = chance.choice([said, said["message"]])
                target[chance.choice(list(target))] = chance.choice(junk)
                raw.send(nodes[1], with_checksum(json.dumps(said)))
                if number % AT_A_TIME == 0:
                    await asyncio.sleep(0)
            await started[2].propose("after", timeout_s=30.0)
            assert [entry.value async for entry in started[1].entries(timeout_s=30.0)] == ["before", "after"]

    run(scenario())


# -- those who say who they are, and do not belong -------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"version_min": 2, "version_max": 9}, "version", "upgrade the older one"),
        ({"version_min": 0, "version_max": 0}, "version", "upgrade the older one"),
        ({"cluster_id": OTHER}, "cluster", "two clusters share an address"),
        ({"cluster_id": None, "list_hash": hash_of_list([1, 3])}, "list", "give all the same nodes"),
        ({"fingerprint": EntryCodec(bytes).fingerprint}, "entry_type", "give all the same"),
        ({"to": 2}, "address", "this is node 1, not 2: correct the addresses in nodes"),
        ({"node_id": 1}, "self", "give every node its own id"),
        ({"node_id": 4}, "member", "node 4 is not a member"),
        ({"node_id": 0}, "member", "node 0 is not a member"),
        ({"node_id": 2}, "store", "the cluster knows node 2 by another data directory"),
    ],
    ids=["newer", "older", "cluster", "list", "entry type", "to", "self", "no member", "nobody", "store"],
)
def test_who_does_not_belong_is_told_so_and_not_listened_to(
    fields: dict[str, Any], code: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A vote in a far term under it is not looked at. It is answered at most every half second, and logged once."""

    async def scenario() -> None:
        async with host(as_member=True) as one:
            await stores_of_both(one.started[1])
            received = counters(one.node).received
            wrong = hello(**({"cluster_id": one.cluster_id} | fields))
            data = encode_datagram(wrong, True, RequestVote(99, 3, 99, 99))
            refused = counters(one.node).refused
            for _ in range(20):
                one.send(data)
            await eventually("each is counted", lambda: counters(one.node).refused == refused + 20)
            await eventually("it is told", one.refusals)
            (refusal,) = one.refusals()
            assert refusal.code == code
            assert says in refusal.text
            assert counters(one.node).received >= received
            assert one.node.status().term < 99

    run(scenario())
    assert len(complaints(caplog.records)) == 1


async def stores_of_both(node: Node[str]) -> None:
    def known() -> bool:
        configuration = node._backend()._engine.raft.configuration
        found = [configuration.member(id) for id in (1, 2)]
        return all(member is not None and member.store_id is not None for member in found)

    await eventually("the log names both stores", known)


def test_a_member_that_speaks_from_another_address_is_refused() -> None:
    """There is no connection to tell two senders apart."""

    async def scenario() -> None:
        async with host() as one:
            one.send(encode_datagram(hello(cluster_id=one.cluster_id), True, RequestVote(99, 3, 99, 99)))
            await eventually("it is told", one.refusals)
            (refusal,) = one.refusals()
            assert refusal.code == "address"
            assert "speaks as node 3 from 127.0.0.1:" in refusal.text
            assert "correct the addresses in nodes" in refusal.text
            assert one.node.status().term < 99

    run(scenario())


def test_a_flood_under_many_names_is_bounded_in_memory_and_log(caplog: pytest.LogCaptureFixture) -> None:
    """Ids, stores and versions at random: what is remembered of them has a limit."""
    chance = random.Random(4)

    async def scenario() -> None:
        async with host() as one:
            datagrams = [
                encode_datagram(
                    hello(
                        node_id=chance.getrandbits(62),
                        store_id=chance.randbytes(16),
                        version_min=1 + chance.getrandbits(40),
                        version_max=1 << 41,
                        cluster_id=chance.randbytes(16),
                    ),
                    True,
                    None,
                )
                for _ in range(COUNT)
            ]
            await in_bursts(one, datagrams)

    run(scenario())
    assert len(complaints(caplog.records)) == 1


def counted(node: Node[str], refused: int) -> bool:
    return counters(node).refused == refused


def test_a_refusal_from_anybody_has_no_effect() -> None:
    """It is shown if it comes from a member's address, and counted otherwise; links stay as they are."""

    async def scenario() -> None:
        text = Refusal("cluster", "belongs to another cluster")
        async with host() as one:
            for id in (2, 3):
                refused = counters(one.node).refused
                one.send(encode_datagram(hello(node_id=id), False, text))
                await eventually("it is counted", partial(counted, one.node, refused + 1))
                assert peer(one.node, id).refused is None
            assert peer(one.node, 2).linked
        async with host(as_member=True) as one:
            one.send(encode_datagram(hello(), False, text))
            await eventually("it is shown", lambda: peer(one.node, 3).refused == text.text)

    run(scenario())


def test_a_message_of_the_last_of_all_terms_stops_nobody() -> None:
    """A member that lies: it is heard as what it says it is, and a message that no correct peer sends is counted."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes, ids=[1, 2]) as started, raw_socket(nodes[3]) as raw:
            await started[1].propose("before")
            cluster_id = bytes.fromhex(started[1].status().cluster_id or "")
            garbage = counters(started[1]).garbage
            call = AppendEntries((1 << 63) - 1, 3, 0, 0, 0, 0)
            raw.send(nodes[1], encode_datagram(hello(cluster_id=cluster_id), True, call))
            await eventually(
                "it had its effect",
                lambda: counters(started[1]).garbage > garbage or started[1].status().term == call.term,
            )
            assert started[1]._backend()._open

    run(scenario())


def test_a_node_that_stops_listens_to_nobody() -> None:
    """Datagrams that arrive while it closes its log find it gone."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with raw_socket(nodes[3]) as raw:
            async with running(nodes, ids=[1, 2]) as started:
                await started[1].propose("entry")
                for _ in range(100):
                    raw.send(nodes[1], encode_datagram(hello(), True, RequestVote(9, 3, 9, 9)))
                await started[1].stop()
            for _ in range(100):
                try:
                    raw.send(nodes[1], b"late")
                except ConnectionRefusedError:
                    continue

    run(scenario())
