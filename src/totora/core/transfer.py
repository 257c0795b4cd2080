"""Leadership transfer (thesis 3.10): the leader brings one voter up to date and asks it to stand for election at once.

    TransferRequested -> all that the target lacks is sent -> no more proposals are taken -> the target holds it all -> TimeoutNow

It ends when another server leads, or is given up after an election timeout: then this server goes on leading. Safety does not
rest on it: the target wins an election like any other, or does not.
"""

from __future__ import annotations

from ..types import NodeId
from .effects import TransferRefused
from .events import TransferRequested
from .messages import TimeoutNow
from .roles import Leader, Transfer
from .state import State

__all__ = ["advance_transfer", "expire_transfer", "link_lost", "remind", "transfer_requested"]


def transfer_requested(state: State, event: TransferRequested) -> None:
    """Begin, or say with `TransferRefused` why not."""
    leader = state.role
    if not isinstance(leader, Leader):
        state.emit(TransferRefused(event.key, f"node {state.id} does not lead"))
        return
    target = _best(state, leader) if event.target is None else event.target
    under_way = leader.transfer
    if target is None:
        state.emit(TransferRefused(event.key, "no other voter can be reached"))
    elif target == state.id:
        state.emit(TransferRefused(event.key, f"node {target} leads already"))
    elif target not in leader.progress or not state.configuration.is_voter(target):
        state.emit(TransferRefused(event.key, f"node {target} is no voter"))
    elif target not in state.linked:
        state.emit(TransferRefused(event.key, f"node {target} cannot be reached"))
    elif under_way is not None and under_way.target != target:
        state.emit(TransferRefused(event.key, f"node {under_way.target} is taking over"))
    elif under_way is not None:
        under_way.keys.append(event.key)
    else:
        deadline_ns = state.now + state.settings.election_min_ns
        leader.transfer = Transfer(target, deadline_ns, [event.key])
        leader.deadline_ns = min(leader.deadline_ns, deadline_ns)
        advance_transfer(state, leader, target)


def _best(state: State, leader: Leader) -> NodeId | None:
    """The voter that holds most, of those that can be reached."""
    voters = [peer for peer in leader.progress if peer in state.linked and state.configuration.is_voter(peer)]
    return max(voters, key=lambda peer: leader.progress[peer].match_index, default=None)


def advance_transfer(state: State, leader: Leader, peer: NodeId) -> None:
    """The log grew, or `peer` holds more of it."""
    transfer = leader.transfer
    if transfer is None or transfer.target != peer or transfer.asked:
        return
    progress = leader.progress[peer]
    if not progress.probing and progress.next_index > state.log.last_index:
        transfer.closed = True
        if progress.match_index == state.log.last_index:
            transfer.asked = True
            state.send(peer, TimeoutNow(state.current_term, state.id))


def remind(state: State, leader: Leader) -> None:
    """With each heartbeat, for the message may be lost."""
    transfer = leader.transfer
    if transfer is not None and transfer.asked:
        state.send(transfer.target, TimeoutNow(state.current_term, state.id))


def expire_transfer(state: State, leader: Leader) -> None:
    transfer = leader.transfer
    if transfer is not None and state.now >= transfer.deadline_ns:
        what = "did not stand for election" if transfer.asked else "did not catch up"
        _give_up(state, leader, transfer, f"node {transfer.target} {what} within an election timeout")


def link_lost(state: State, peer: NodeId) -> None:
    leader = state.role
    transfer = leader.transfer if isinstance(leader, Leader) else None
    if isinstance(leader, Leader) and transfer is not None and transfer.target == peer:
        _give_up(state, leader, transfer, f"node {peer} cannot be reached any more")


def _give_up(state: State, leader: Leader, transfer: Transfer, why: str) -> None:
    """Go on leading. The target may still stand, if it was asked to."""
    leader.transfer = None
    for key in transfer.keys:
        state.emit(TransferRefused(key, why))
