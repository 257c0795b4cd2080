"""What the nodes of a cluster say of themselves, in sentences: what is amiss, and why nothing is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from ..aio.client import Client
from ..errors import NotLeader, OutcomeUnknown, RaftError, Unavailable
from ..session.explain import BEHIND
from ..types import Address, NodeId, NodeStatus
from .text import count

__all__ = ["ASK_S", "Found", "nodes_called", "reason", "remarks", "silence", "trouble"]

Found: TypeAlias = Mapping[NodeId, NodeStatus | RaftError]
"""By the id in --nodes: what the node at its address says, or why it says nothing."""

ASK_S: Final = 1.0
"""How long a node may take to say how it is."""


def nodes_called(ids: list[NodeId]) -> str:
    """`node 1`, `nodes 1, 2`."""
    return f"{'node' if len(ids) == 1 else 'nodes'} {', '.join(map(str, ids))}"


def silence(error: RaftError) -> str:
    """Why a node says nothing of itself."""
    return error.why if isinstance(error, Unavailable) else str(error)


def _silent(found: Found) -> list[str]:
    """Why nodes did not answer, those with the same reason together."""
    reasons: dict[str, list[NodeId]] = {}
    for id, status in found.items():
        if isinstance(status, RaftError):
            reasons.setdefault(silence(status), []).append(id)
    return [f"{nodes_called(ids)}: {words}" for words, ids in reasons.items()]


def _answered(found: Found) -> list[NodeStatus]:
    return [status for status in found.values() if isinstance(status, NodeStatus)]


def trouble(found: Found) -> str | None:
    """Why the cluster carries nothing out; None: it may well do so."""
    answered = _answered(found)
    if not answered:
        return f"no node answers ({'; '.join(_silent(found))})"
    leaders = [status for status in answered if status.role == "leader"]
    why = next((status.why for status in [*leaders, *answered] if status.why is not None), None)
    if not leaders:
        return f"there is no leader: {why}" if why and "no leader" not in why else why or "there is no leader"
    return why


def remarks(found: Found, nodes: Mapping[NodeId, Address]) -> list[str]:
    """Sentences about what is amiss, each once."""
    answered = _answered(found)
    lines = [] if not answered or any(s.role == "leader" for s in answered) else ["there is no leader"]
    lines += _silent(found)
    for id, status in found.items():
        if isinstance(status, NodeStatus) and status.id != id:
            host, port = nodes[id]
            lines.append(f"node {status.id}, not node {id}, answers at {host}:{port}: --nodes is wrong")
    for status in answered:
        if status.why is not None:
            lines.append(f"node {status.id}: {status.why}")
        lines += [
            f"node {status.id}, of node {peer.id}: {peer.refused}" for peer in status.peers if peer.refused
        ]
        lines += [
            f"node {peer.id} is {behind:,} entries behind"
            for peer in status.peers
            if peer.match_index is not None and (behind := status.last_index - peer.match_index) > BEHIND
        ]
        if status.volatile:
            lines.append(f"node {status.id} keeps its log in memory only")
    clusters = {status.cluster_id for status in answered if status.cluster_id is not None}
    if len(clusters) > 1:
        lines.append(f"these nodes belong to {count(len(clusters), 'cluster')}: --nodes is wrong")
    return list(dict.fromkeys(lines))


async def reason(open_client: Callable[[], Client[str]], error: RaftError) -> str:
    """Why a request failed, in one sentence: where it was not answered, by what the nodes say of themselves."""
    if "another entry type" in str(error):
        return f"the entries of this cluster are not text ({error})"
    if isinstance(error, Unavailable | NotLeader | OutcomeUnknown):
        async with open_client() as client:
            amiss = trouble(await client.statuses(timeout_s=ASK_S))
        if amiss is not None:
            return f"no answer in time: {amiss}"
    return str(error)
