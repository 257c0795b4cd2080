"""Log replication: section 5.3, the commit rule of 5.4.2, a new leader's no-op (section 8), pipelining (thesis 10.2).

Every function handles one thing that can happen, for the state of one server.
"""

from __future__ import annotations

import msgspec

from ..errors import ConfigurationError, ProtocolError
from ..types import LogIndex, NodeId
from .batch import Batch, Kind, join_payloads
from .effects import ReadEntries
from .events import EntriesRead
from .heartbeat import broadcast_heartbeat, send_probe
from .messages import AppendAccepted, AppendEntries, AppendRejected
from .progress import APPEND_BYTES_MAX, Progress
from .quorum import Configuration, committed_index, has_quorum
from .reads import advance_reads
from .roles import Candidate, Follower, Leader
from .state import State
from .transfer import advance_transfer, remind
from .transitions import follow

__all__ = [
    "advance_commit",
    "append",
    "check_quorum",
    "heartbeat",
    "lead",
    "link_up",
    "must_give_way",
    "on_append_accepted",
    "on_append_entries",
    "on_append_rejected",
    "on_entries_read",
    "record_stores",
]


_KINDS = frozenset(Kind)


# -- leading


def lead(state: State, role: Candidate) -> None:
    """An election is won: append the first entry of this term at once, for only it can commit what is before (5.4.2)."""
    settings = state.settings
    leader = role.lead(
        state.peers, state.log.last_index + 1, state.now, settings.heartbeat_ns, settings.election_min_ns
    )
    state.role = leader
    if state.configuration.cluster_id is None:
        # The first leader ever: its first entry founds the cluster.
        cluster_id = state.random.getrandbits(128).to_bytes(16, "big")
        founded = msgspec.structs.replace(_with_stores(state), cluster_id=cluster_id)
        _append_own(state, leader, Kind.CONFIGURATION, founded.encode())
    else:
        _append_own(state, leader, Kind.NOOP, b"")


def _append_own(state: State, leader: Leader, kind: Kind, payload: bytes) -> None:
    body = join_payloads([payload])
    append(state, leader, Batch.build(kind, state.current_term, state.log.last_index + 1, 1, body))


def append(state: State, leader: Leader, batch: Batch) -> None:
    """Append to the leader's log and send it on, at the same time as it is written (thesis 10.2.1)."""
    assert batch.first_index == state.log.last_index + 1, "a leader only appends (Leader Append-Only)"
    state.append(batch)
    size_bytes = len(batch.data)
    leader.uncommitted.append((batch.last_index, size_bytes))
    leader.uncommitted_bytes += size_bytes
    for peer, progress in leader.progress.items():
        _send_entries(state, leader, peer, progress)


def heartbeat(state: State, leader: Leader) -> None:
    """The heartbeat interval is over (section 5.2); ask again what was not answered, but never send entries again for it.

    Over a transport that loses, entries that were not answered for longer than that are sent again.
    """
    leader.heartbeat_ns = state.now + state.settings.heartbeat_ns
    broadcast_heartbeat(state, leader)
    remind(state, leader)
    patience_ns = state.settings.retransmit_ns
    for peer, progress in leader.progress.items():
        if progress.probing and progress.probe_sent:
            prev_log_index = progress.next_index - 1
            # Where the log begins the heartbeat itself has asked.
            if prev_log_index > max(progress.match_index, state.log.base_index) and peer in state.linked:
                send_probe(state, leader, peer, prev_log_index)
        elif patience_ns and progress.under_way and state.now - progress.progress_ns > patience_ns:
            progress.probe(progress.match_index + 1)
        _send_entries(state, leader, peer, progress)


def check_quorum(state: State, leader: Leader) -> None:
    """A leader that no majority answered within an election timeout gives way (thesis 6.2)."""
    leader.quorum_ns = state.now + state.settings.election_min_ns
    since = state.now - state.settings.election_min_ns

    def answered(voter: NodeId) -> bool:
        return voter == state.id or (voter in leader.progress and leader.progress[voter].contact_ns >= since)

    if not has_quorum(state.configuration, answered):
        follow(state, state.current_term, None)


def must_give_way(state: State) -> bool:
    """This leader's disk stands still, and the others are a majority without it: its heartbeats would keep them waiting."""
    stands_still = state.stalled_ns(state.now) > state.settings.election_min_ns
    return stands_still and has_quorum(state.configuration, state.linked.__contains__)


def _send_entries(state: State, leader: Leader, peer: NodeId, progress: Progress) -> None:
    """Send what the follower lacks, as far as its window allows (section 5.3)."""
    if progress.next_index > state.log.last_index or peer not in state.linked:
        return
    append_bytes_max = min(APPEND_BYTES_MAX, state.settings.batch_limit_bytes)
    window_bytes = state.settings.in_flight_limit_bytes
    while progress.next_index <= state.log.last_index and progress.may_send(window_bytes):
        batches = state.log.batches_from(progress.next_index, append_bytes_max)
        if batches is None:
            progress.reading = True
            state.emit(ReadEntries(peer, progress.next_index, state.log.durable_index, append_bytes_max))
            return
        _send_batches(state, leader, peer, progress, tuple(batches))


def _send_batches(
    state: State, leader: Leader, peer: NodeId, progress: Progress, batches: tuple[Batch, ...]
) -> None:
    prev_log_index = batches[0].first_index - 1
    prev_log_term = state.log.term_at(prev_log_index)
    assert prev_log_term is not None, "a leader holds what it sends, and the entry before it"
    # Batches are atomic, so a message may begin before next_index; the follower skips what it has.
    progress.next_index = batches[0].first_index
    progress.sent(batches[-1].last_index, sum([len(batch.data) for batch in batches]), state.now)
    state.send(
        peer,
        AppendEntries(
            state.current_term,
            state.id,
            prev_log_index,
            prev_log_term,
            state.commit_index,
            leader.round,
            batches,
        ),
    )


def on_entries_read(state: State, event: EntriesRead) -> None:
    """Storage returned older batches for a follower that is far behind."""
    leader = state.role
    progress = leader.progress.get(event.peer) if isinstance(leader, Leader) else None
    if not isinstance(leader, Leader) or progress is None or not progress.reading:
        return
    progress.reading = False
    batches = event.batches
    if (
        batches
        and progress.may_send(state.settings.in_flight_limit_bytes)
        and batches[0].first_index <= progress.next_index <= batches[-1].last_index
        and state.log.term_at(batches[-1].last_index) == batches[-1].term
    ):
        _send_batches(state, leader, event.peer, progress, batches)
    _send_entries(state, leader, event.peer, progress)


def link_up(state: State, peer: NodeId) -> None:
    """What was under way on the old link may be lost: find out what the follower has."""
    leader = state.role
    if isinstance(leader, Leader) and peer in leader.progress:
        progress = leader.progress[peer]
        progress.probe(progress.next_index if progress.probing else progress.match_index + 1)
        _send_entries(state, leader, peer, progress)
        record_stores(state, leader)


def on_append_accepted(state: State, sender: NodeId, response: AppendAccepted) -> None:
    """A follower holds everything up to match_index (Figure 2, leaders)."""
    leader = state.role
    if not isinstance(leader, Leader) or response.term != state.current_term or sender not in leader.progress:
        return  # Of an earlier term or leadership: proves nothing about this one.
    if response.match_index > state.log.last_index:
        raise ProtocolError(
            sender, f"acknowledges {response.match_index}, the log ends at {state.log.last_index}"
        )
    progress = leader.progress[sender]
    progress.contact_ns = state.now
    confirmed = response.round > progress.acked_round
    progress.acked_round = max(progress.acked_round, response.round)
    rose = response.match_index > progress.match_index
    progress.matched(response.match_index, state.now)
    if progress.probing and response.match_index >= progress.next_index - 1:
        progress.confirmed()
    if rose and progress.match_index > state.commit_index:
        advance_commit(state, leader)
    if confirmed:
        advance_reads(state, leader)
    _send_entries(state, leader, sender, progress)
    if leader.transfer is not None:
        advance_transfer(state, leader, sender)


def on_append_rejected(state: State, sender: NodeId, response: AppendRejected) -> None:
    """The follower's log does not match: step back, a whole term at a time (section 5.3)."""
    leader = state.role
    if not isinstance(leader, Leader) or response.term != state.current_term or sender not in leader.progress:
        return
    progress = leader.progress[sender]
    progress.contact_ns = state.now
    if response.prev_log_index <= progress.match_index:
        return  # It matched there since: this answer was overtaken.
    if progress.probing and response.prev_log_index != progress.next_index - 1:
        return  # An answer to an earlier question.
    index, _ = state.log.last_at_or_before(response.hint_index, response.hint_term)
    progress.probe(min(index + 1, response.prev_log_index))
    _send_entries(state, leader, sender, progress)


def advance_commit(state: State, leader: Leader) -> None:
    """Commit what a majority holds, if it is of this leader's own term (section 5.4.2, Figure 8).

    The leader counts itself up to what is durable here, like everyone else.
    """
    if state.log.last_index == state.commit_index:
        return
    match_index = {peer: progress.match_index for peer, progress in leader.progress.items()}
    match_index[state.id] = state.log.durable_index
    index = committed_index(state.configuration, match_index)
    if index > state.commit_index and state.log.term_at(index) == state.current_term:
        set_commit_index(state, index)
        uncommitted = leader.uncommitted
        while uncommitted and uncommitted[0][0] <= index:
            leader.uncommitted_bytes -= uncommitted.popleft()[1]
        advance_reads(state, leader)
        record_stores(state, leader)


def set_commit_index(state: State, index: LogIndex) -> None:
    assert state.commit_index < index <= state.log.last_index, "commit_index never moves back (Figure 2)"
    state.commit_index = index
    state.log.summary.settle(index)


# -- members' data directories


def _with_stores(state: State) -> Configuration:
    configuration = state.configuration
    for member in configuration.members:
        store_id = state.store_ids.get(member.id)
        if member.store_id is None and store_id is not None:
            configuration = configuration.with_member(msgspec.structs.replace(member, store_id=store_id))
    return configuration


def record_stores(state: State, leader: Leader) -> None:
    """Write into the log which data directory each member has, once it is known: another one will be refused.

    Like any configuration, only after an entry of this term is committed, one at a time (raft-dev, 2015).
    """
    latest_index = state.log.summary.configurations[-1][0]
    if state.commit_index < leader.first_index or state.commit_index < latest_index:
        return
    configuration = _with_stores(state)
    if configuration is not state.configuration:
        _append_own(state, leader, Kind.CONFIGURATION, configuration.encode())


# -- following


def on_append_entries(state: State, sender: NodeId, call: AppendEntries) -> None:
    """AppendEntries RPC, receiver implementation (Figure 2)."""
    if call.term < state.current_term:
        state.answer(
            sender, AppendRejected(state.current_term, state.leader_id, call.prev_log_index, 0, 0, call.round)
        )
        return
    if call.leader_id != sender:
        raise ProtocolError(sender, f"claims that node {call.leader_id} leads")
    role = state.role
    if isinstance(role, Leader) and call.term == state.current_term:
        raise ProtocolError(sender, f"leads in term {call.term}, which this node leads (Election Safety)")
    _check_shape(sender, call)
    _check_committed(state, sender, call)
    if isinstance(role, Follower) and call.term == state.current_term and role.leader_id == sender:
        role.heard_ns, role.leader_lost = state.now, False
        role.deadline_ns = state.election_deadline()
    else:
        follow(state, call.term, sender)
    if not _matches(state, call):
        hint_index, hint_term = state.log.last_at_or_before(call.prev_log_index, call.prev_log_term)
        state.answer(
            sender,
            AppendRejected(
                state.current_term, sender, call.prev_log_index, hint_index, hint_term, call.round
            ),
        )
        return
    for batch in call.batches:
        _take(state, batch)
    verified = call.batches[-1].last_index if call.batches else call.prev_log_index
    commit_index = min(call.leader_commit, verified)
    if commit_index > state.commit_index:
        set_commit_index(state, commit_index)
    accepted = AppendAccepted(state.current_term, sender, verified, call.round)
    if verified <= state.log.durable_index and state.hard_state_durable:
        state.send(sender, accepted)
    else:
        state.answer(sender, accepted)


def _check_shape(sender: NodeId, call: AppendEntries) -> None:
    """What no leader sends. A batch of an unknown kind is from a newer version: this one must not go on."""
    next_index, term = call.prev_log_index + 1, call.prev_log_term
    for batch in call.batches:
        if batch.first_index != next_index or not term <= batch.term <= call.term:
            raise ProtocolError(sender, f"{batch!r} cannot follow entry {next_index - 1} of term {term}")
        if batch.kind not in _KINDS:
            raise ConfigurationError(
                f"{batch!r} is of a kind that this version does not know: upgrade this node"
            )
        if batch.kind == Kind.CONFIGURATION:
            Configuration.decode(batch.payloads()[0])
        next_index, term = batch.last_index + 1, batch.term


def _check_committed(state: State, sender: NodeId, call: AppendEntries) -> None:
    """No leader lacks or replaces what is committed (Leader Completeness)."""
    log = state.log
    for batch in call.batches:
        if batch.first_index > state.commit_index:
            return
        if batch.last_index > log.base_index and log.term_at(batch.last_index) != batch.term:
            raise ProtocolError(sender, f"{batch!r} conflicts with what is committed (State Machine Safety)")


def _matches(state: State, call: AppendEntries) -> bool:
    """The log holds (prev_log_index, prev_log_term); what is before a snapshot's end is committed, so it does."""
    return (
        call.prev_log_index <= state.log.base_index
        or state.log.term_at(call.prev_log_index) == call.prev_log_term
    )


def _take(state: State, batch: Batch) -> None:
    """Append what is missing; remove only what conflicts, so that an old message removes nothing (section 5.3)."""
    log = state.log
    if batch.last_index <= log.base_index or log.term_at(batch.last_index) == batch.term:
        return
    if batch.first_index <= log.last_index:
        state.truncate_after(batch.first_index - 1)
    state.append(batch)
