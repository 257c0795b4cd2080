"""Settings and lists of nodes: what cannot work is refused when it is given, in a sentence that says what to do."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import pytest

from totora import Client, ConfigurationError, Node, RaftNode, Settings
from totora.config import (
    SECONDS_MAX,
    UDP_BATCH_BYTES_MAX,
    checked_member,
    checked_nodes,
    is_loopback,
    require_safety,
)
from totora.types import NUMBER_MAX, Address

HERE: Final[Address] = ("127.0.0.1", 7001)
THERE: Final[Address] = ("127.0.0.1", 7002)
TIMES: Final = [field.name for field in dataclasses.fields(Settings) if field.name.endswith("_s")]
SIZES: Final = [field.name for field in dataclasses.fields(Settings) if field.name.endswith("_bytes")]


def refusal(**settings: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        Settings(**settings)
    return str(raised.value)


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [0, -1, -0.1, math.nan, math.inf, 2 * SECONDS_MAX, "1", None, True])
def test_a_time_is_a_positive_number_of_seconds(name: str, value: Any) -> None:
    why = refusal(**{name: value})
    assert why.startswith(f"{name} is a positive number of seconds, at most ")
    assert why.endswith(f", not {value!r}")


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", ["1", None, True, 65_536.0, math.nan])
def test_a_size_is_a_whole_number_of_bytes(name: str, value: Any) -> None:
    assert refusal(**{name: value}) == f"{name} is a whole number of bytes, not {value!r}"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"heartbeat_s": 0.6}, "election_min_s must be at least twice heartbeat_s"),
        ({"election_min_s": 0.1}, "election_min_s must be at least twice heartbeat_s"),
        ({"election_max_s": 1.0}, "election_max_s must exceed election_min_s"),
        ({"election_min_s": 3.0}, "election_max_s must exceed election_min_s"),
        ({"transport": "tls"}, "transport is 'tcp' or 'udp', not 'tls'"),
        ({"transport": None}, "transport is 'tcp' or 'udp', not None"),
        ({"entry_max_bytes": 0}, "entry_max_bytes is 1 to 1,048,576"),
        ({"entry_max_bytes": (1 << 20) + 1}, "entry_max_bytes is 1 to 1,048,576"),
        ({"batch_max_bytes": (1 << 20) - 1}, "batch_max_bytes lies between entry_max_bytes and 8,388,608"),
        ({"batch_max_bytes": (8 << 20) + 1}, "batch_max_bytes lies between entry_max_bytes and 8,388,608"),
        (
            {"segment_bytes": 0},
            "segment_bytes must be a multiple of 4,096, up to 1 GiB",
        ),
        (
            {"segment_bytes": (64 << 10) + 1},
            "segment_bytes must be a multiple of 4,096, up to 1 GiB",
        ),
        ({"segment_bytes": 2 << 30}, "segment_bytes must be a multiple of 4,096, up to 1 GiB"),
        ({"segment_bytes": -(64 << 10)}, "segment_bytes must be a multiple of 4,096, up to 1 GiB"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any], why: str) -> None:
    assert refusal(**settings).startswith(why)


def test_settings_at_their_bounds_are_taken() -> None:
    Settings(heartbeat_s=0.5, election_min_s=1.0, election_max_s=SECONDS_MAX, request_timeout_s=SECONDS_MAX)
    Settings(entry_max_bytes=1, batch_max_bytes=1, segment_bytes=4096)
    Settings(entry_max_bytes=1 << 20, batch_max_bytes=8 << 20)


def test_times_are_nanoseconds_inside() -> None:
    settings = Settings(
        heartbeat_s=1,
        election_min_s=2,
        election_max_s=3,
        failover_delay_s=4,
        request_timeout_s=5,
        handshake_timeout_s=6,
    )
    inside = (
        settings.heartbeat_ns,
        settings.election_min_ns,
        settings.election_max_ns,
        settings.failover_delay_ns,
        settings.request_timeout_ns,
        settings.handshake_timeout_ns,
    )
    assert inside == tuple(n * 10**9 for n in range(1, 7))


def test_settings_are_frozen_and_named() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().heartbeat_s = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        Settings(0.1)  # type: ignore[call-arg]


def test_udp_carries_smaller_batches_and_asks_again() -> None:
    tcp, udp = Settings(), Settings(transport="udp")
    assert tcp.batch_limit_bytes == tcp.batch_max_bytes
    assert udp.batch_limit_bytes == UDP_BATCH_BYTES_MAX
    assert Settings(transport="udp", entry_max_bytes=100, batch_max_bytes=100).batch_limit_bytes == 100
    assert tcp.retransmit_ns == 0
    assert udp.retransmit_ns == 2 * udp.heartbeat_ns
    assert udp.in_flight_limit_bytes < tcp.in_flight_limit_bytes


# -- nodes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nodes",
    [
        {2: THERE, 1: HERE},
        [(2, THERE), (1, HERE)],
        ((2, THERE), (1, HERE)),
        iter([(2, THERE), (1, HERE)]),
        [[2, list(THERE)], [1, list(HERE)]],
    ],
    ids=["mapping", "list", "tuple", "iterator", "from JSON"],
)
def test_nodes_are_a_mapping_or_pairs(nodes: Any) -> None:
    """Whichever it is, they are kept in ascending order."""
    assert list(checked_nodes(nodes).items()) == [(1, HERE), (2, THERE)]


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ({}, "nodes lists no node: give the address of every member"),
        ([], "nodes lists no node: give the address of every member"),
        (None, r"nodes is a mapping or a list of pairs of an id and \(host, port\), not None"),
        (3, r"nodes is a mapping or a list of pairs of an id and \(host, port\), not 3"),
        ("1=a:1", r"nodes are pairs of an id and \(host, port\), not '1'"),
        ([1, 2], r"nodes are pairs of an id and \(host, port\), not 1"),
        ({1: "127.0.0.1:7001"}, r"nodes are pairs of an id and \(host, port\)"),
        ({1: ("a", 1, 2)}, r"nodes are pairs of an id and \(host, port\)"),
        ([(1, HERE), (1, THERE)], "node 1 is listed twice: give every node an id of its own"),
        ({1: HERE, 2: HERE}, "nodes 1 and 2 share the address 127.0.0.1:7001: give every node its own"),
        ({1: ("::1", 7), 2: ("0:0::1", 7)}, "nodes 1 and 2 share the address 0:0::1:7"),
        ({1: ("Host", 7), 2: ("host", 7)}, "nodes 1 and 2 share the address host:7"),
    ],
    ids=str,
)
def test_what_is_no_list_of_nodes(nodes: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        checked_nodes(nodes)


@pytest.mark.parametrize("id", [0, -1, True, "1", 1.0, None, NUMBER_MAX + 1])
def test_an_id_is_a_positive_integer(id: Any) -> None:
    """In the list, and as a node's own: True is no 1."""
    with pytest.raises(ConfigurationError, match="a node id is a positive integer, not "):
        checked_nodes({id: HERE})
    with pytest.raises(ConfigurationError, match="a node id is a positive integer, not "):
        checked_member(id, {1: HERE})


@pytest.mark.parametrize("port", [0, -1, 65_536, "7001", None, True, 7001.0])
def test_a_port_is_a_number_up_to_65535(port: Any) -> None:
    with pytest.raises(ConfigurationError, match="node 3 needs a host and a port from 1 to 65535, not "):
        checked_nodes({3: ("127.0.0.1", port)})


@pytest.mark.parametrize("host", ["", None, 7, b"h", "a b", "a\0b", "a\n", "a..b", "h" * 64, ".", "\ud800"])
def test_a_host_is_a_name_or_an_address(host: Any) -> None:
    """What no resolver takes is not dialled for ever."""
    with pytest.raises(ConfigurationError, match="node 3 needs a host and a port from 1 to 65535, not "):
        checked_nodes({3: (host, 7001)})


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "::1", "fe80::1%lo", "a-b.example", "b\u00fccher.example", "h" * 63]
)
def test_hosts_that_are_taken_as_they_are(host: str) -> None:
    assert checked_nodes({1: (host, 65_535)}) == {1: (host, 65_535)}


def test_the_largest_id_is_taken() -> None:
    assert checked_member(NUMBER_MAX, {NUMBER_MAX: HERE}) == {NUMBER_MAX: HERE}


def test_a_node_must_be_in_its_list() -> None:
    with pytest.raises(ConfigurationError) as raised:
        checked_member(3, {2: THERE, 1: HERE})
    assert str(raised.value) == "node 3 is not in nodes (listed: 1, 2): add its own address there"


@pytest.mark.parametrize(
    ("id", "nodes"), [(3, {1: HERE, 2: THERE}), (0, {0: HERE}), (1, {1: HERE, 2: HERE}), (1, {})], ids=str
)
def test_every_face_refuses_a_bad_list_at_once(id: int, nodes: dict[int, Address]) -> None:
    """Before anything is opened: no thread, no socket, no file."""
    with pytest.raises(ConfigurationError):
        Node(id, nodes, entry_type=str)
    with pytest.raises(ConfigurationError):
        RaftNode.start(id, nodes, entry_type=str)
    if id not in nodes:
        return
    with pytest.raises(ConfigurationError):
        Client(nodes, entry_type=str)


def test_an_entry_type_that_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"entry_type .* is not supported by msgspec"):
        Node(1, {1: HERE}, entry_type=Node)


# -- safety ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
        ("128.0.0.1", False),
    ],
)
def test_what_is_loopback(host: str, local: bool) -> None:
    """What a name leads to is not asked: only the usual one counts."""
    assert is_loopback(host) == local


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("away", [False, True])
def test_plaintext_leaves_this_machine_only_if_it_is_allowed(
    transport: Any, encrypted: bool, allowed: bool, away: bool
) -> None:
    """One address beyond loopback is enough, and tls does nothing for udp."""
    addresses = [HERE, ("192.0.2.1", 9)] if away else [HERE]
    settings = Settings(transport=transport)
    if not away or allowed or (encrypted and transport == "tcp"):
        require_safety(addresses, settings, encrypted=encrypted, allowed=allowed)
        return
    with pytest.raises(ConfigurationError) as raised:
        require_safety(addresses, settings, encrypted=encrypted, allowed=allowed)
    why = str(raised.value)
    assert "192.0.2.1:9 is not loopback" in why
    assert "insecure_plaintext=True" in why
    assert ("tls=" in why) == (transport == "tcp"), "it proposes what would help"


def test_every_face_refuses_plaintext_beyond_loopback() -> None:
    """A node also for the address that it binds."""
    away = {1: HERE, 2: ("192.0.2.1", 7001)}
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1:7001 is not loopback"):
        Node(1, away, entry_type=str)
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1:7001 is not loopback"):
        RaftNode.start(1, away, entry_type=str)
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1:7001 is not loopback"):
        Client(away, entry_type=str)
    with pytest.raises(ConfigurationError, match=r"0\.0\.0\.0:7001 is not loopback"):
        Node(1, {1: HERE}, entry_type=str, bind=("0.0.0.0", 7001))
    Node(1, away, entry_type=str, insecure_plaintext=True)
    Client(away, entry_type=str, insecure_plaintext=True)
