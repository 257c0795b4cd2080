"""Settings: frozen, keyword-only, checked when made. Times are seconds outside, integer nanoseconds inside."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from .errors import ConfigurationError
from .types import NUMBER_MAX, Address, NodeId

__all__ = [
    "ENTRY_BYTES_MAX",
    "RANGE_BYTES_MAX",
    "SECONDS_MAX",
    "UDP_BATCH_BYTES_MAX",
    "Settings",
    "checked_member",
    "checked_nodes",
    "is_loopback",
    "require_safety",
]

ENTRY_BYTES_MAX: Final = 1 << 20
SEGMENT_BYTES_MAX: Final = 1 << 30
BATCH_BYTES_MAX: Final = 8 << 20
UDP_BATCH_BYTES_MAX: Final = 44 << 10
"""A batch under `udp` travels as base64 in one datagram of at most 64 KiB."""

IN_FLIGHT_BYTES_MAX: Final = 16 << 20
UDP_IN_FLIGHT_BYTES_MAX: Final = 3 * UDP_BATCH_BYTES_MAX
"""What Linux keeps for a socket by default, 208 KiB, holds this as base64: a burst beyond it is lost."""

RANGE_BYTES_MAX: Final = 8 << 20
"""One answer to an IndexRange holds at most this much."""

SECONDS_MAX: Final = 10_000_000.0
"""About four months. A message carries nanoseconds, and those of an endless wait would not fit."""


def checked_nodes(
    nodes: Mapping[NodeId, Address] | Iterable[tuple[NodeId, Address]],
) -> dict[NodeId, Address]:
    """The members' addresses by id, ascending; ConfigurationError for what cannot be a cluster."""
    checked: dict[NodeId, Address] = {}
    owners: dict[Address, NodeId] = {}
    for pair in _pairs(nodes):
        try:
            node, (host, port) = pair
        except (TypeError, ValueError):
            raise ConfigurationError(f"nodes are pairs of an id and (host, port), not {pair!r}") from None
        _check_id(node)
        if not _is_host(host) or type(port) is not int or not 0 < port < 65_536:
            raise ConfigurationError(
                f"node {node} needs a host and a port from 1 to 65535, not {(host, port)!r}"
            )
        if node in checked:
            raise ConfigurationError(f"node {node} is listed twice: give every node an id of its own")
        place = _plain(host), port
        if place in owners:
            raise ConfigurationError(
                f"nodes {owners[place]} and {node} share the address {host}:{port}: give every node its own"
            )
        checked[node] = (host, port)
        owners[place] = node
    if not checked:
        raise ConfigurationError("nodes lists no node: give the address of every member")
    return dict(sorted(checked.items()))


def _pairs(nodes: Any) -> list[Any]:
    try:
        return list(nodes.items() if isinstance(nodes, Mapping) else nodes)
    except TypeError:
        raise ConfigurationError(
            f"nodes is a mapping or a list of pairs of an id and (host, port), not {nodes!r}"
        ) from None


def _check_id(node: object) -> None:
    if type(node) is not int or not 0 < node <= NUMBER_MAX:
        raise ConfigurationError(f"a node id is a positive integer, not {node!r}")


def _is_host(host: object) -> bool:
    """A name or an address that a resolver takes; whether it exists is found out later."""
    if not isinstance(host, str) or not host.isprintable() or " " in host:
        return False
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def _plain(host: str) -> str:
    """One spelling of each address: there are many for IPv6."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def checked_member(
    id: NodeId, nodes: Mapping[NodeId, Address] | Iterable[tuple[NodeId, Address]]
) -> dict[NodeId, Address]:
    """`checked_nodes`, and `id` is one of them."""
    checked = checked_nodes(nodes)
    _check_id(id)
    if id not in checked:
        listed = ", ".join(map(str, checked))
        raise ConfigurationError(f"node {id} is not in nodes (listed: {listed}): add its own address there")
    return checked


def is_loopback(host: str) -> bool:
    """True if `host` names this machine's loopback: what needs no encryption."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_address(address: Any) -> Address:
    match address:
        case (str(host), int(port)):
            return host, port
        case _:
            raise ConfigurationError(f"an address is (host, port), not {address!r}")


def require_safety(
    addresses: Iterable[Address], settings: Settings, *, encrypted: bool, allowed: bool
) -> None:
    """Raise ConfigurationError if plaintext would leave this machine and nobody allowed it."""
    places = [_checked_address(address) for address in addresses]
    exposed = next((f"{host}:{port}" for host, port in places if not is_loopback(host)), None)
    if exposed is None or allowed:
        return
    if settings.transport == "udp":
        raise ConfigurationError(
            f"udp is not encrypted and {exposed} is not loopback: pass insecure_plaintext=True if the network is trusted"
        )
    if not encrypted:
        raise ConfigurationError(
            f"{exposed} is not loopback: pass tls=, or insecure_plaintext=True if the network is trusted"
        )


_TIMES: Final = (
    "heartbeat_s",
    "election_min_s",
    "election_max_s",
    "failover_delay_s",
    "request_timeout_s",
    "handshake_timeout_s",
)
_SIZES: Final = ("segment_bytes", "entry_max_bytes", "batch_max_bytes")


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What may be tuned; the defaults serve latency and throughput alike.

    heartbeat_s: a leader sends to each follower at least this often.
    election_min_s, election_max_s: a follower that hears no leader waits a random time between them (section 9.3).
        Generous by default: a process that embeds a node hogs the interpreter now and then.
    failover_delay_s: after its link to the leader broke, a follower waits a random time up to this before it asks.
    request_timeout_s: how long a request waits for its outcome unless the caller says otherwise.
    segment_bytes: size of the log's files; a multiple of 4 KiB. A batch that is larger gets a file of its own.
    """

    heartbeat_s: float = 0.1
    election_min_s: float = 1.0
    election_max_s: float = 2.0
    failover_delay_s: float = 0.03
    request_timeout_s: float = 5.0
    handshake_timeout_s: float = 5.0
    transport: Literal["tcp", "udp"] = "tcp"
    segment_bytes: int = 32 << 20
    entry_max_bytes: int = ENTRY_BYTES_MAX
    batch_max_bytes: int = BATCH_BYTES_MAX

    def __post_init__(self) -> None:
        def check(holds: bool, why: str) -> None:
            if not holds:
                raise ConfigurationError(why)

        for name in _TIMES:
            value = getattr(self, name)
            is_time = isinstance(value, int | float) and not isinstance(value, bool)
            check(
                is_time and 0 < value <= SECONDS_MAX,
                f"{name} is a positive number of seconds, at most {SECONDS_MAX:,.0f}, not {value!r}",
            )
        for name in _SIZES:
            value = getattr(self, name)
            check(type(value) is int, f"{name} is a whole number of bytes, not {value!r}")
        check(
            self.election_min_s >= 2 * self.heartbeat_s,
            "election_min_s must be at least twice heartbeat_s, or a late heartbeat starts an election",
        )
        check(
            self.election_max_s > self.election_min_s,
            "election_max_s must exceed election_min_s, or votes split",
        )
        check(self.transport in ("tcp", "udp"), f"transport is 'tcp' or 'udp', not {self.transport!r}")
        check(0 < self.entry_max_bytes <= ENTRY_BYTES_MAX, f"entry_max_bytes is 1 to {ENTRY_BYTES_MAX:,}")
        check(
            self.entry_max_bytes <= self.batch_max_bytes <= BATCH_BYTES_MAX,
            f"batch_max_bytes lies between entry_max_bytes and {BATCH_BYTES_MAX:,}",
        )
        check(
            self.segment_bytes % 4096 == 0 and 4096 <= self.segment_bytes <= SEGMENT_BYTES_MAX,
            "segment_bytes must be a multiple of 4,096, up to 1 GiB",
        )

    @property
    def heartbeat_ns(self) -> int:
        return _ns(self.heartbeat_s)

    @property
    def election_min_ns(self) -> int:
        return _ns(self.election_min_s)

    @property
    def election_max_ns(self) -> int:
        return _ns(self.election_max_s)

    @property
    def failover_delay_ns(self) -> int:
        return _ns(self.failover_delay_s)

    @property
    def retransmit_ns(self) -> int:
        """What is unanswered for so long is sent again, where the transport may lose it; 0: it does not."""
        return 2 * self.heartbeat_ns if self.transport == "udp" else 0

    @property
    def batch_limit_bytes(self) -> int:
        """The largest batch that this node's transport carries."""
        return (
            min(self.batch_max_bytes, UDP_BATCH_BYTES_MAX)
            if self.transport == "udp"
            else self.batch_max_bytes
        )

    @property
    def in_flight_limit_bytes(self) -> int:
        """A leader sends a follower no more than this ahead of its answers, but for one message."""
        return UDP_IN_FLIGHT_BYTES_MAX if self.transport == "udp" else IN_FLIGHT_BYTES_MAX

    @property
    def request_timeout_ns(self) -> int:
        return _ns(self.request_timeout_s)

    @property
    def handshake_timeout_ns(self) -> int:
        return _ns(self.handshake_timeout_s)
