"""Strangers at a node's address: whatever they send or leave unsent, it appends, it says so, and it keeps nothing of them."""

from __future__ import annotations

import asyncio
import random
import resource
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import pytest

from tests.aio.strangers import Host, Stranger, hello, node_alone
from tests.levels import by_level
from tests.processes.waiting import eventually, run
from tests.wire.samples import HANDSHAKES, SAMPLES, any_value, bits_flipped, framed
from totora import Client, DecodeFailed, Node, Settings
from totora.aio.links import CLIENTS_MAX, UNIDENTIFIED_MAX
from totora.aio.streams import BUFFERED_BYTES_MAX
from totora.cli.demo_cluster import free_addresses
from totora.core.batch import join_payloads
from totora.core.messages import (
    AppendEntries,
    Message,
    Propose,
    ProposeAccepted,
    ProposeRejected,
    RequestVote,
)
from totora.wire.client import (
    RangesRead,
    ReadRanges,
    RequestFailed,
    RequestStatus,
    StatusReport,
)
from totora.wire.codec import WireMessage
from totora.wire.entries import EntryCodec
from totora.wire.frames import FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, frame
from totora.wire.handshake import Refusal, Welcome, encode_handshake, hash_of_list

SILENT: Final = 1_000
FRAMES: Final = by_level(quick=600, ci=10_000)
AT_ONCE: Final = 50
"""Connections that random frames come in over, at a time."""

SECOND_NS: Final = 1_000_000_000
PREFIX: Final = struct.Struct("<III")
FOUR_GIB: Final = PREFIX.pack(0xFFFF_FFFF, 16, 0)


@contextmanager
def open_files(count: int) -> Generator[None]:
    """This process may have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, count) if hard == resource.RLIM_INFINITY else min(max(soft, count), hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- saying nothing --------------------------------------------------------------------------------


def test_a_thousand_connections_that_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond a bound the oldest is dropped, at the deadline all are; meanwhile this node and its clients append."""

    async def scenario() -> None:
        async with node_alone(caplog.records) as host:
            silent = await host.strangers(SILENT)
            assert host.unidentified <= UNIDENTIFIED_MAX
            await host.append()
            async with Client({1: host.address}, entry_type=str) as client:
                await client.propose("from a client that came after them")
            ends = await asyncio.gather(*(stranger.rest() for stranger in silent))
            assert ends == [b""] * SILENT, "each is dropped, without a word"
            for stranger in silent:
                stranger.close()

    with open_files(2 * SILENT + 1_024):
        run(scenario())


def test_at_the_handshakes_deadline_a_silent_connection_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """Fewer than the bound: it is the deadline alone that ends them."""

    async def scenario() -> None:
        async with node_alone(caplog.records) as host:
            silent = await host.strangers(UNIDENTIFIED_MAX // 2)
            await host.append()
            for stranger in silent:
                assert await stranger.rest() == b""
                stranger.close()

    run(scenario())


def test_a_hello_that_comes_byte_by_byte_meets_the_same_deadline(caplog: pytest.LogCaptureFixture) -> None:
    """Who is slow on purpose is as silent as who says nothing."""
    greeting = b"".join(encode_handshake(hello()))

    async def scenario() -> None:
        async with node_alone(caplog.records) as host:
            stranger = await host.stranger()
            sent = 0
            while sent < len(greeting) - 1 and await stranger.send(greeting[sent : sent + 1]):
                sent += 1
            assert await stranger.rest() == b""
            stranger.close()

    run(scenario())


def test_a_client_that_came_before_many_silent_ones_keeps_its_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who said who it is has nothing to do with the handshake's deadline or bound any more."""

    async def scenario() -> None:
        async with node_alone(caplog.records) as host:
            client = await host.stranger(hello())
            silent = await host.strangers(3 * UNIDENTIFIED_MAX)
            for stranger in silent:
                await stranger.rest()
                stranger.close()
            await client.send(framed(RequestStatus(7)))
            assert isinstance(await client.message(), StatusReport)
            client.close()

    with open_files(2_048):
        run(scenario())


def test_connections_that_end_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Port scanners: connect, and away, with a byte or without."""

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            for n in range(200):
                stranger = await host.stranger()
                if n % 3:
                    await stranger.send(b"\0" * (n % 3))
                stranger.close()

    run(scenario())


def test_beyond_a_bound_clients_are_refused(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is lowered here; each that leaves makes room for another."""
    assert CLIENTS_MAX == 1_024
    monkeypatch.setattr("totora.aio.links.CLIENTS_MAX", 3)

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            clients = [await host.stranger(hello()) for _ in range(3)]
            late = await host.stranger()
            answer = await late.greet(hello())
            assert isinstance(answer, Refusal)
            assert answer.code == "full"
            assert await late.rest() == b""
            late.close()
            clients.pop().close()
            await eventually("there is room", lambda: host.clients == 2)
            clients.append(await host.stranger(hello()))
            for client in clients:
                client.close()

    run(scenario())


# -- frames that lie -------------------------------------------------------------------------------


@pytest.mark.parametrize("greeted", [False, True], ids=["before the handshake", "after it"])
@pytest.mark.parametrize(
    "data",
    [
        FOUR_GIB,
        PREFIX.pack(FRAME_BYTES_MAX + 1, 16, 0),
        PREFIX.pack(16, 17, 0),
        PREFIX.pack(4, 4, 0) + b"\x92\x05\x01\x00",
        b"GET / HTTP/1.1\r\nHost: totora\r\n\r\n",
        bytes(4_096),
    ],
    ids=["4 GiB", "over the limit", "a header beyond its frame", "a wrong checksum", "http", "zeros"],
)
def test_what_is_no_frame_ends_the_connection_at_once(
    greeted: bool, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at a deadline, and not when more has come: the other end sends no more and waits."""

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            garbage = host.links.counters.garbage
            stranger = await host.stranger(hello() if greeted else None)
            await stranger.send(data)
            assert await stranger.rest() == b""
            stranger.close()
            assert host.links.counters.garbage == garbage + 1, "it is counted"

    run(scenario())


def test_before_the_handshake_a_frame_is_small(caplog: pytest.LogCaptureFixture) -> None:
    """What is allowed to those who are known is not to others; also not behind what is no Hello."""

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            for data in (
                PREFIX.pack(HANDSHAKE_BYTES_MAX + 1, 16, 0),
                framed(RequestStatus(1)),
                b"".join(encode_handshake(Welcome(1, None, 1, b"", 1, 0))),
                b"".join(encode_handshake(hello(magic="Totora"))),
                b"".join(encode_handshake(hello(cluster_id=b"x" * 65))),
                b"".join(frame(b"\x9e\x40" + b"\x91" * 1_000)),
                b"".join(frame(msgspec.msgpack.encode(hello())[:-1] + b"\xc0" * 2)),
            ):
                stranger = await host.stranger()
                await stranger.send(data)
                assert await stranger.rest() == b""
                stranger.close()

    run(scenario())


def test_nesting_in_a_hello_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """As deep as a frame of the handshake allows, behind the last field, where the decoder only passes over it."""
    fields = msgspec.msgpack.encode(hello())
    longer = bytes([fields[0] + 1]) + fields[1:]
    depths = range(HANDSHAKE_BYTES_MAX - len(fields) - 60, HANDSHAKE_BYTES_MAX - len(fields))

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            for depth in depths:
                stranger = await host.stranger()
                await stranger.send(b"".join(frame(longer + b"\x91" * depth + b"\x00")))
                answer = await stranger.answer()
                assert answer is None or isinstance(answer, Welcome)
                stranger.close()

    run(scenario())


def test_a_frame_as_large_as_allowed_may_come_slowly(caplog: pytest.LogCaptureFixture) -> None:
    """A client that announces 16 MiB and sends some: it has its stream for as long as it likes, and the node goes on."""

    async def scenario() -> None:
        async with node_alone(caplog.records) as host:
            client = await host.stranger(hello())
            await client.send(PREFIX.pack(FRAME_BYTES_MAX, 16, 0) + bytes(1 << 20))
            await host.append()
            assert host.clients == 1
            client.close()

    run(scenario())


# -- chance ----------------------------------------------------------------------------------------


def random_frame(chance: random.Random) -> bytes:
    """Random bytes; a sound frame around them; sound fields of a wrong kind; a valid frame, changed a little."""
    match chance.randrange(5):
        case 0:
            return chance.randbytes(chance.randrange(1, 200))
        case 1:
            return b"".join(
                frame(chance.randbytes(chance.randrange(40)), [chance.randbytes(chance.randrange(99))])
            )
        case 2:
            tag = chance.choice([*range(1, 6), *range(16, 26), *range(32, 38), 64, 65, 66])
            fields = [any_value(chance) for _ in range(chance.randrange(14))]
            return b"".join(frame(msgspec.msgpack.encode([tag, *fields])))
        case 3:
            data = framed(chance.choice(SAMPLES))
            return bits_flipped(data, (chance.randrange(8 * len(data)) for _ in range(3)))
        case _:
            header = msgspec.msgpack.encode(chance.choice([*SAMPLES, *HANDSHAKES]), enc_hook=lambda _: 99)
            bits = [chance.randrange(8 * len(header)) for _ in range(chance.randrange(4))]
            return b"".join(frame(bits_flipped(header, bits)))


async def in_many_hands(count: int, one: Callable[[int], Any]) -> None:
    """`one` for each number, some at a time."""
    numbers = iter(range(count))

    async def hand() -> None:
        for number in numbers:
            await one(number)

    async with asyncio.TaskGroup() as hands:
        for _ in range(AT_ONCE):
            hands.create_task(hand())


@pytest.mark.parametrize("greeted", [False, True], ids=["before the handshake", "after it"])
def test_random_frames(greeted: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Each over a connection of its own, which then says that nothing more comes; the node appends all the while."""

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            sent = 0

            async def one(number: int) -> None:
                nonlocal sent
                stranger = await host.stranger(hello() if greeted else None)
                sent += await stranger.send(random_frame(random.Random(number)))
                stranger.finish()
                await stranger.rest()
                stranger.close()
                if number % 100 == 0:
                    await host.append()

            await in_many_hands(FRAMES, one)
            assert sent == FRAMES
            assert host.links.counters.garbage > FRAMES // 4

    run(scenario())


def test_random_requests_over_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Requests of a client's kinds with any numbers in them: many are sound, each gets an answer or ends the stream."""

    def numbers(chance: random.Random) -> int:
        return chance.choice(
            [0, 1, 2, 5, chance.getrandbits(64), -chance.getrandbits(63), 1 << 62, SECOND_NS]
        )

    def request(chance: random.Random) -> WireMessage:
        n = [numbers(chance) for _ in range(6)]
        match chance.randrange(3):
            case 0:
                return ReadRanges(n[0], n[1], tuple(n[2 : 2 + chance.randrange(5)]))
            case 1:
                return RequestStatus(n[0])
            case _:
                body = chance.choice([join_payloads([b"a", b"b"]), chance.randbytes(chance.randrange(30))])
                condition = chance.choice([(None, None), (1, 1), (n[0], None), (n[1], n[2])])
                return Propose(n[0], n[1], n[2], n[3], n[4], n[5], body, *condition)

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            chance = random.Random(1)
            for _ in range(by_level(quick=50, ci=1_000)):
                client = await host.stranger(hello())
                for _ in range(20):
                    if not await client.send(framed(request(chance))):
                        break
                client.finish()
                await client.rest()
                client.close()
            await host.append()

    run(scenario())


# -- the wrong peer --------------------------------------------------------------------------------

OTHER: Final = b"o" * 16
LIST: Final = hash_of_list([1])
TEXT: Final = EntryCodec(str).fingerprint


def peer(**fields: Any) -> dict[str, Any]:
    """What a member says of itself, unless said otherwise."""
    return {
        "role": "control",
        "node_id": 2,
        "list_hash": LIST,
        "store_id": b"s" * 16,
        "fingerprint": TEXT,
    } | fields


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"version_min": 2, "version_max": 9}, "version"),
        ({"version_min": 0, "version_max": 0}, "version"),
        ({"cluster_id": OTHER}, "cluster"),
        ({"fingerprint": EntryCodec(bytes).fingerprint}, "entry_type"),
        ({"to": 2}, "address"),
        (peer(version_min=2, version_max=9), "version"),
        (peer(cluster_id=OTHER), "cluster"),
        (peer(fingerprint=EntryCodec(int).fingerprint), "entry_type"),
        (peer(list_hash=hash_of_list([1, 2])), "list"),
        (peer(to=3), "address"),
        (peer(node_id=1), "self"),
        (peer(), "member"),
        (peer(role="bulk", node_id=99), "member"),
        (peer(node_id=0), "member"),
    ],
    ids=lambda value: value if isinstance(value, str) else "peer" if "role" in value else "client",
)
def test_who_does_not_belong_here_is_told_so(
    fields: dict[str, Any], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A sentence for a person, then the end; what was sent behind the Hello is not looked at."""

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            refused, received = host.links.counters.refused, host.links.counters.received
            stranger = await host.stranger()
            await stranger.send(
                b"".join(encode_handshake(hello(**fields))) + framed(RequestVote(99, 2, 99, 99)) + FOUR_GIB
            )
            answer = await stranger.answer()
            assert isinstance(answer, Refusal)
            assert answer.code == code
            assert await stranger.rest() == b""
            stranger.close()
            counters = host.links.counters
            assert (counters.refused, counters.received) == (refused + 1, received)
            assert "peer_trouble" in caplog.messages, "a person may read of it"

    run(scenario())


def test_a_stranger_that_is_refused_again_and_again_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Logged at most once per peer, cause and minute."""

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            for _ in range(50):
                stranger = await host.stranger()
                assert isinstance(await stranger.greet(hello(version_min=2, version_max=2)), Refusal)
                stranger.close()

    run(scenario())
    assert caplog.messages.count("peer_trouble") < 10


def test_a_stranger_that_sends_garbage_again_and_again_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Logged at most once per peer, cause and minute, whatever the numbers in it."""

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            for n in range(50):
                stranger = await host.stranger()
                await stranger.send(PREFIX.pack(0xFFFF_0000 + n, 0, 0))
                await stranger.rest()
                stranger.close()

    run(scenario())
    assert caplog.messages.count("peer_trouble") < 10


# -- a client that is one, and misbehaves ----------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [sample for sample in SAMPLES if isinstance(sample, Message) and not isinstance(sample, Propose)]
    + [RangesRead(1, 1, 1, ()), RequestFailed(1, "invalid", "")]
    + [
        ReadRanges(1, 1, places) for places in ((0, 1), (2, 1), (1,), (1, 1, 2), (1, 1, 0, 1), (1, 1) * 1_025)
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_no_client_sends_ends_its_stream(message: WireMessage, caplog: pytest.LogCaptureFixture) -> None:
    """Votes and entries above all: they are for members."""

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            await refused_after_hello(host, framed(message))

    run(scenario())


async def refused_after_hello(host: Host, data: bytes) -> None:
    garbage = host.links.counters.garbage
    client = await host.stranger(hello())
    await client.send(data)
    assert await client.rest() == b""
    client.close()
    assert host.links.counters.garbage == garbage + 1


def test_a_second_hello_ends_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody becomes somebody else."""

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            await refused_after_hello(host, b"".join(encode_handshake(hello())))

    run(scenario())


@pytest.mark.parametrize(
    "fields",
    [
        {"session": 0},
        {"session": -1},
        {"session": 1 << 63},
        {"sequence": 0},
        {"sequence": 1 << 63},
        {"count": 0},
        {"count": -1},
        {"count": 3},
        {"count": 1 << 62},
        {"body": b""},
        {"body": b"\xff" * 4 + b"x"},
        {"prev_log_index": 1},
        {"prev_log_term": 1},
    ],
    ids=str,
)
def test_a_proposal_that_makes_no_sense_ends_the_stream(
    fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It would be a batch that nobody can read, or a number that no disk format holds."""
    sound = Propose(1, 77, 1, 1, 0, SECOND_NS, join_payloads([b"entry"]))

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            await refused_after_hello(host, framed(msgspec.structs.replace(sound, **fields)))

    run(scenario())


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({}, ProposeAccepted),
        ({"request_id": (1 << 63) - 1}, ProposeAccepted),
        ({"opened_at": (1 << 63) - 1}, ProposeAccepted),
        ({"remaining_ns": (1 << 63) - 1}, ProposeAccepted),
        ({"remaining_ns": 0}, ProposeRejected),
        ({"sequence": 2}, ProposeRejected),
        ({"sequence": (1 << 63) - 1}, ProposeRejected),
        ({"prev_log_index": (1 << 63) - 1, "prev_log_term": 0}, ProposeRejected),
    ],
    ids=str,
)
def test_a_proposal_with_odd_numbers_gets_an_answer(
    fields: dict[str, Any], answer: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    sound = Propose(1, 77, 1, 1, 0, SECOND_NS, join_payloads([b"entry"]))
    call = msgspec.structs.replace(sound, **fields)

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            client = await host.stranger(hello())
            await client.send(framed(call))
            answered = await client.message()
            assert isinstance(answered, answer)
            assert isinstance(answered, ProposeAccepted | ProposeRejected)
            assert answered.request_id == call.request_id
            client.close()

    run(scenario())


def test_a_client_that_reads_nothing_loses_its_stream(caplog: pytest.LogCaptureFixture) -> None:
    """Twenty bytes ask for eight megabytes: what waits for a receiver is bounded, also within one turn of the loop."""
    entry = b"x" * (1 << 20)
    answers = 4 * BUFFERED_BYTES_MAX // (7 * len(entry))

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            first = host.node.status().last_index + 1
            for _ in range(7):
                await host.node.propose(entry.decode()[128:])
            client = await host.stranger(hello())
            await client.send(
                b"".join(framed(ReadRanges(n, SECOND_NS, (first, first + 6))) for n in range(answers))
            )
            await eventually("it is dropped", lambda: not host.clients)
            client.close()

    run(scenario())


def test_an_entry_that_is_none_harms_only_its_reader(caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no text, from a client that does not say which type it takes them for: a reader is told."""
    call = Propose(1, 77, 1, 1, 0, SECOND_NS, join_payloads([b"\xff"]))

    async def scenario() -> None:
        async with node_alone(caplog.records, patient=True) as host:
            client: Stranger = await host.stranger(hello())
            await client.send(framed(call))
            accepted = await client.message()
            assert isinstance(accepted, ProposeAccepted)
            client.close()
            with pytest.raises(DecodeFailed, match=f"entry {accepted.first_index} is not"):
                await host.node.index_range(accepted.first_index, accepted.first_index)

    run(scenario())


# -- a member that is one, and misbehaves ----------------------------------------------------------


def test_a_member_that_leads_in_the_last_of_all_terms_stops_nobody() -> None:
    """A message of a peer trips nothing: it is counted, and costs that peer its connection."""
    nodes = free_addresses(3)
    settings = Settings(heartbeat_s=0.01, election_min_s=0.05, election_max_s=0.1)
    liar = hello(**peer(node_id=3, list_hash=hash_of_list(nodes)))

    async def scenario() -> None:
        async with (
            Node(1, nodes, entry_type=str, settings=settings) as one,
            Node(2, nodes, entry_type=str, settings=settings) as two,
        ):
            await one.propose("before")
            stranger = await Stranger.connect(one.address)
            assert isinstance(await stranger.greet(liar), Welcome)
            await stranger.send(framed(AppendEntries((1 << 64) - 1, 3, 0, 0, 0, 0)))
            stranger.finish()
            await stranger.rest()
            stranger.close()
            await eventually("it had its effect, or none", lambda: stopped(one) or refused(one))
            assert not stopped(one)
            await two.propose("after")

    def stopped(node: Node[str]) -> bool:
        return not node._backend()._open

    def refused(node: Node[str]) -> bool:
        links = node._backend()._links
        return links is not None and links.counters.garbage > 0

    run(scenario())
