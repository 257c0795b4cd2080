"""A node's state, as it tells people and monitors of it."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.roles import Leader
from ..session.engine import Engine
from ..session.explain import explain
from ..types import LogIndex, NodeId, NodeStatus, PeerStatus
from .opening import Opened

__all__ = ["describe"]


def describe(
    engine: Engine, opened: Opened, refusals: Mapping[NodeId, str], now: int, applied_index: LogIndex
) -> NodeStatus:
    """A report of a node's state."""
    raft = engine.raft
    role = raft.role
    peers = []
    for member in raft.configuration.members:
        if member.id == raft.id:
            continue
        progress = role.progress.get(member.id) if isinstance(role, Leader) else None
        peers.append(
            PeerStatus(
                id=member.id,
                address=f"{member.host}:{member.port}",
                linked=member.id in engine.linked,
                match_index=None if progress is None else progress.match_index,
                silent_s=None if progress is None else (now - progress.contact_ns) / 1e9,
                refused=refusals.get(member.id),
            )
        )
    cluster_id = raft.cluster_id
    return NodeStatus(
        id=raft.id,
        role=raft.role_name,
        term=raft.current_term,
        leader=raft.leader_id,
        last_index=raft.log.last_index,
        commit_index=raft.commit_index,
        applied_index=applied_index,
        durable_index=raft.log.durable_index,
        cluster_id=None if cluster_id is None else cluster_id.hex(),
        store_id=opened.store_id.hex(),
        incarnation=opened.incarnation,
        volatile=opened.volatile,
        peers=tuple(peers),
        why=explain(raft, engine.linked, now),
    )
