"""Configurations and what a majority of them is. Pure; knows nothing of roles or messages.

Every quorum is asked of two sets of voters, the new and (during a change of members) the old one: an agreement needs
a majority of each (joint consensus, section 6). Outside a change the old set is empty and asks for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from ..errors import ProtocolError
from ..types import Address, LogIndex, NodeId

__all__ = ["Configuration", "Member", "committed_index", "has_quorum"]


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A member as the log knows it. `store_id` is None until a leader has met the member's data directory."""

    id: NodeId
    host: str
    port: int
    store_id: bytes | None = None

    @property
    def address(self) -> Address:
        return self.host, self.port


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """The members of a cluster, agreed through the log (sections 4 and 6 of the thesis).

    cluster_id: minted by the first leader, valid once that is committed; None only in the list with which a
        cluster is first started.
    voters, voters_old: ids; `voters_old` is empty but during joint consensus.
    """

    members: tuple[Member, ...]
    voters: frozenset[NodeId]
    voters_old: frozenset[NodeId] = frozenset()
    cluster_id: bytes | None = None

    def __post_init__(self) -> None:
        ids = [member.id for member in self.members]
        if len(ids) != len(set(ids)) or not self.voters or not (self.voters | self.voters_old) <= set(ids):
            raise ValueError("members must be distinct and hold all voters, of which there must be one")

    def member(self, id: NodeId) -> Member | None:
        return next((member for member in self.members if member.id == id), None)

    def with_member(self, changed: Member) -> Configuration:
        """The same configuration, with what is known of one member replaced."""
        return msgspec.structs.replace(
            self, members=tuple(changed if member.id == changed.id else member for member in self.members)
        )

    def is_voter(self, id: NodeId) -> bool:
        return id in self.voters or id in self.voters_old

    def encode(self) -> bytes:
        # A frozenset has no order of its own; sorted, the same configuration is the same bytes on every node.
        return _ENCODER.encode(self)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Configuration:
        try:
            return _DECODER.decode(data)
        except msgspec.MsgspecError as error:
            raise ProtocolError("configuration", str(error)) from error


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(Configuration)


def _majority(voters: Collection[NodeId]) -> int:
    return len(voters) // 2 + 1


def has_quorum(configuration: Configuration, agreeing: Callable[[NodeId], bool]) -> bool:
    """True if a majority of each set of voters is `agreeing`."""
    return all(
        sum(map(agreeing, voters)) >= _majority(voters)
        for voters in (configuration.voters, configuration.voters_old)
        if voters
    )


def committed_index(configuration: Configuration, match_index: Mapping[NodeId, LogIndex]) -> LogIndex:
    """The highest index that a majority of each set of voters holds (section 5.3); absent voters hold nothing."""
    index = _majority_holds(configuration.voters, match_index)
    old = configuration.voters_old
    return min(index, _majority_holds(old, match_index)) if old else index


def _majority_holds(voters: Collection[NodeId], match_index: Mapping[NodeId, LogIndex]) -> LogIndex:
    held = sorted([match_index.get(voter, 0) for voter in voters])
    return held[(len(held) - 1) // 2]
