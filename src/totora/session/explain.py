"""One sentence for a person: why there is no leader, or why commit does not advance. Pure; looks, changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

from ..core.quorum import has_quorum
from ..core.raft import Raft
from ..core.roles import Candidate, Leader, PreCandidate
from ..types import NodeId

__all__ = ["BEHIND", "explain"]


LATE_S: Final = 1.0
"""Longer than this nothing takes that is well."""

BEHIND: Final = 10_000
"""Entries that a follower may lack without a word."""


def explain(raft: Raft, linked: AbstractSet[NodeId], now: int) -> str | None:
    """What keeps requests from being carried out, as far as this node can tell; None if nothing does."""
    configuration = raft.configuration
    voters = configuration.voters | configuration.voters_old
    reachable = {voter for voter in voters if voter == raft.id or voter in linked}
    missing = ", ".join(str(voter) for voter in sorted(voters - reachable))
    if not has_quorum(configuration, reachable.__contains__):
        verb = "node {} is" if len(voters - reachable) == 1 else "nodes {} are"
        return (
            f"no quorum: {len(reachable)} of {len(voters)} voters reachable from node {raft.id}, "
            f"{verb.format(missing)} not"
        )
    match raft.role:
        case Leader() as leader if raft.commit_index < leader.first_index:
            return f"node {raft.id} was just elected and has not committed an entry of term {raft.current_term} yet"
        case Leader(transfer=transfer) if transfer is not None:
            return f"node {raft.id} is handing over to node {transfer.target}"
        case Leader() as leader:
            held_up = list(_held_up(raft, leader, now)) if raft.commit_index < raft.log.last_index else []
            return f"commit waits at {raft.commit_index}: {', '.join(held_up)}" if held_up else None
        case PreCandidate() | Candidate():
            return f"no leader: node {raft.id} is asking for votes in term {raft.current_term}"
        case _ if raft.leader_id is None:
            return f"no leader is known in term {raft.current_term}: an election is due"
        case _ if raft.leader_id not in linked:
            return f"node {raft.leader_id} leads but cannot be reached from node {raft.id}"
        case _:
            return None


def _held_up(raft: Raft, leader: Leader, now: int) -> Iterator[str]:
    """What keeps a majority from holding what the leader has."""
    stalled_s = raft.stalled_ns(now) / 1e9
    if stalled_s > LATE_S:
        yield f"the disk of node {raft.id} has completed no write for {stalled_s:.1f} s"
    for peer, progress in sorted(leader.progress.items()):
        silent_s = (now - progress.contact_ns) / 1e9
        behind = raft.log.last_index - progress.match_index
        if silent_s > LATE_S:
            yield f"node {peer} has not answered for {silent_s:.1f} s"
        elif behind > BEHIND:
            yield f"node {peer} is {behind:,} entries behind"
