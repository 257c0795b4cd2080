"""Who is there? The first frame of a stream each way, and the rules by which a node lets another one in (DESIGN 6).

    dialler -> Hello -> acceptor -> Welcome | Refusal -> dialler

Frames of the handshake are decoded by this module alone and hold at most 1 KiB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from ..core.quorum import Configuration
from ..errors import ProtocolError
from ..types import Address, LogIndex, NodeId
from .frames import frame

__all__ = [
    "VERSION_MAX",
    "VERSION_MIN",
    "Hello",
    "Local",
    "Refusal",
    "StreamRole",
    "Welcome",
    "decode_answer",
    "decode_hello",
    "encode_handshake",
    "hash_of_list",
    "judge",
    "judge_welcome",
]

VERSION_MIN: Final = 1
VERSION_MAX: Final = 1
"""The protocol versions that this code speaks."""

MAGIC: Final = "totora"

NAMES_CHARS_MAX: Final = 200
"""How much of a certificate's names a refusal quotes: it must itself fit into a frame of the handshake."""

_Name: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=64)]
"""Ids and hashes hold 16 bytes now. A refusal quotes them, so a stranger may not send what makes it too long."""

StreamRole: TypeAlias = Literal["control", "bulk", "client"]

RefusalCode: TypeAlias = Literal[
    "version",
    "cluster",
    "list",
    "address",
    "entry_type",
    "member",
    "store",
    "self",
    "certificate",
    "full",
    "transport",
]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=64):
    """The dialler says who it is, and whom it wants.

    list_hash: of the member ids that the node was first started with; counts until both know the cluster's id.
    store_id, incarnation: the data directory, and how often it was started.
    fingerprint: of the entry type's schema; a client that does not know it sends b"".
    to: the node that the dialler expects at this address; None: any.
    """

    magic: str
    version_min: int
    version_max: int
    role: StreamRole
    cluster_id: _Name | None
    list_hash: _Name
    node_id: NodeId
    store_id: _Name
    incarnation: int
    fingerprint: _Name
    host: str
    port: int
    to: NodeId | None


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=65):
    """The acceptor agrees, and says who it is. commit_index: where a client's knowledge begins."""

    version: int
    cluster_id: _Name | None
    node_id: NodeId
    store_id: _Name
    incarnation: int
    commit_index: LogIndex


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=66):
    """The acceptor does not agree; `text` tells a person why and what to do."""

    code: RefusalCode
    text: str


@dataclass(frozen=True, slots=True)
class Local:
    """What a node says of itself, and what it judges others by.

    cluster_id: known to be committed, for what a leader minted that was then deposed must shut nobody out.
    configuration: the one in force, committed or not: a member's data directory counts as soon as it is in the log.
    """

    node_id: NodeId
    store_id: bytes
    incarnation: int
    fingerprint: bytes
    list_hash: bytes
    address: Address
    cluster_id: bytes | None
    configuration: Configuration
    commit_index: LogIndex

    def hello(self, role: StreamRole, to: NodeId | None) -> Hello:
        return Hello(
            MAGIC,
            VERSION_MIN,
            VERSION_MAX,
            role,
            self.cluster_id,
            self.list_hash,
            self.node_id,
            self.store_id,
            self.incarnation,
            self.fingerprint,
            *self.address,
            to,
        )

    def welcome(self, version: int) -> Welcome:
        return Welcome(
            version,
            self.cluster_id,
            self.node_id,
            self.store_id,
            self.incarnation,
            self.commit_index,
        )


def hash_of_list(ids: Iterable[NodeId]) -> bytes:
    """Of the members' ids; addresses are hints and do not count."""
    return hashlib.sha256(",".join(map(str, sorted(ids))).encode()).digest()[:16]


def judge(hello: Hello, local: Local, certified: frozenset[str] | None) -> Welcome | Refusal:
    """Whether `local` lets the dialler in.

    certified: the DNS names of its certificate; None without TLS.
    """
    if hello.version_max < VERSION_MIN or hello.version_min > VERSION_MAX:
        return Refusal(
            "version",
            f"speaks protocol versions {hello.version_min} to {hello.version_max}, node {local.node_id} speaks "
            f"{VERSION_MIN} to {VERSION_MAX}: upgrade the older one",
        )
    refusal = _judge_cluster(hello, local)
    if refusal is None and hello.role != "client":
        refusal = _judge_peer(hello, local, certified)
    return refusal or local.welcome(min(VERSION_MAX, hello.version_max))


def _judge_cluster(hello: Hello, local: Local) -> Refusal | None:
    cluster_id = local.cluster_id
    if hello.to is not None and hello.to != local.node_id:
        return Refusal(
            "address", f"this is node {local.node_id}, not {hello.to}: correct the addresses in nodes"
        )
    if hello.cluster_id is not None and cluster_id is not None and hello.cluster_id != cluster_id:
        return Refusal(
            "cluster",
            f"belongs to cluster {hello.cluster_id.hex()}, node {local.node_id} to {cluster_id.hex()}: "
            "two clusters share an address",
        )
    if hello.role == "client":
        if hello.fingerprint and hello.fingerprint != local.fingerprint:
            return Refusal(
                "entry_type", f"has another entry type than node {local.node_id}: use the cluster's"
            )
        return None
    if (hello.cluster_id is None or cluster_id is None) and hello.list_hash != local.list_hash:
        return Refusal(
            "list", f"was started with other members than node {local.node_id}: give all the same nodes"
        )
    if hello.fingerprint != local.fingerprint:
        return Refusal("entry_type", f"has another entry type than node {local.node_id}: give all the same")
    return None


def _judge_peer(hello: Hello, local: Local, certified: frozenset[str] | None) -> Refusal | None:
    if hello.node_id == local.node_id:
        return Refusal(
            "self", f"uses the id {local.node_id}, which is this node's own: give every node its own id"
        )
    member = local.configuration.member(hello.node_id)
    if member is None:
        return Refusal(
            "member", f"node {hello.node_id} is not a member of the cluster of node {local.node_id}"
        )
    if member.store_id is not None and member.store_id != hello.store_id:
        return Refusal(
            "store",
            f"the cluster knows node {hello.node_id} by another data directory: it was lost, or a second node uses this "
            "id; restore the directory, or remove the member and add it anew",
        )
    return certificate_refusal(hello.node_id, certified)


def certificate_refusal(node_id: NodeId, certified: frozenset[str] | None) -> Refusal | None:
    """A certificate must name the node that shows it, as the DNS name `node-<id>`."""
    if certified is None or f"node-{node_id}" in certified:
        return None
    named = ", ".join(sorted(certified))[:NAMES_CHARS_MAX] or "nobody"
    return Refusal(
        "certificate", f"shows a certificate for {named}, not for node-{node_id}: give every node its own"
    )


def judge_welcome(
    welcome: Welcome, expected: NodeId, local: Local, certified: frozenset[str] | None
) -> Refusal | None:
    """Whether the dialler, `local`, accepts who answered."""
    cluster_id = local.cluster_id
    if welcome.node_id != expected:
        return Refusal("address", f"node {welcome.node_id} answers at the address of node {expected}")
    if not VERSION_MIN <= welcome.version <= VERSION_MAX:
        return Refusal(
            "version",
            f"node {expected} wants protocol version {welcome.version}, node {local.node_id} speaks {VERSION_MIN} "
            f"to {VERSION_MAX}: upgrade the older one",
        )
    if cluster_id is not None and welcome.cluster_id is not None and welcome.cluster_id != cluster_id:
        return Refusal("cluster", f"node {expected} belongs to another cluster, {welcome.cluster_id.hex()}")
    member = local.configuration.member(expected)
    if member is not None and member.store_id is not None and member.store_id != welcome.store_id:
        return Refusal("store", f"node {expected} has another data directory than the cluster knows")
    return certificate_refusal(expected, certified)


_ENCODER: Final = msgspec.msgpack.Encoder()
_HELLO: Final = msgspec.msgpack.Decoder(Hello)
_ANSWER: Final = msgspec.msgpack.Decoder(Welcome | Refusal)


def encode_handshake(message: Hello | Welcome | Refusal) -> list[bytes]:
    return frame(_ENCODER.encode(message))


def decode_hello(header: memoryview) -> Hello:
    """Raises ProtocolError for what is no Hello."""
    try:
        hello = _HELLO.decode(header)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError("handshake", str(error)) from error
    if hello.magic != MAGIC:
        raise ProtocolError("handshake", "not a totora node")
    return hello


def decode_answer(header: memoryview) -> Welcome | Refusal:
    """Raises ProtocolError for what is neither."""
    try:
        answer: Welcome | Refusal = _ANSWER.decode(header)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError("handshake", str(error)) from error
    return answer
