"""Transfers of leadership that were asked for at this node: each ends with another leader, or with why there is none.

ask -> the leader is told -> another leader is heard of, or a refusal, or its time is over -> resolved
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..errors import NodeStopped, Overloaded, RaftError, TransferFailed
from ..types import FAR_NS, NodeId, Term

__all__ = ["PENDING_TRANSFERS_MAX", "Transfers"]

PENDING_TRANSFERS_MAX: Final = 64

Resolve: TypeAlias = Callable[[NodeId | RaftError], None]


@dataclass(slots=True)
class _Asked:
    target: NodeId | None
    leader_id: NodeId
    term: Term
    deadline_ns: int
    resolve: Resolve


class Transfers:
    """What one node asked its leaders for, by the number of the question."""

    def __init__(self) -> None:
        self.under_way: dict[int, _Asked] = {}

    def ask(
        self,
        request_id: int,
        target: NodeId | None,
        leader_id: NodeId,
        term: Term,
        deadline_ns: int,
        resolve: Resolve,
    ) -> bool:
        """`leader_id`, who leads in `term`, is to hand over; `resolve` is called once, with who leads then.

        False: too many were asked for already, and this one has its outcome.
        """
        if len(self.under_way) >= PENDING_TRANSFERS_MAX:
            resolve(Overloaded(PENDING_TRANSFERS_MAX, "transfers"))
            return False
        self.under_way[request_id] = _Asked(target, leader_id, term, deadline_ns, resolve)
        return True

    def led(self, leader_id: NodeId, term: Term) -> None:
        """`leader_id` leads in `term`."""
        for request_id, asked in list(self.under_way.items()):
            if term > asked.term:
                del self.under_way[request_id]
                if leader_id == asked.leader_id or asked.target not in (None, leader_id):
                    again = "again" if leader_id == asked.leader_id else "instead"
                    asked.resolve(TransferFailed(f"node {leader_id} leads {again}, in term {term}"))
                else:
                    asked.resolve(leader_id)

    def refused(self, request_id: int, why: str) -> None:
        asked = self.under_way.pop(request_id, None)
        if asked is not None:
            asked.resolve(TransferFailed(why))

    def deadline(self) -> int:
        """When `expire` is wanted next; FAR_NS: nothing is under way."""
        return min((asked.deadline_ns for asked in self.under_way.values()), default=FAR_NS)

    def expire(self, now: int) -> None:
        for request_id, asked in list(self.under_way.items()):
            if now >= asked.deadline_ns:
                self.refused(request_id, f"node {asked.leader_id} still leads, as far as this node knows")

    def stop(self, cause: BaseException | None) -> None:
        """The node stops: whether another one takes over is not known here."""
        asked, self.under_way = self.under_way, {}
        for each in asked.values():
            each.resolve(NodeStopped(cause))
