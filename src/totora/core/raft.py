"""The server: `step` is the only dispatcher, `deadline` names when it next wants a Tick.

    event, time -> step -> effects

Nothing else changes a server's state. Time is an argument, chance is injected, so the same events at the same times give the
same effects, always. The rules themselves stand in `election`, `replication`, `reads`, `proposals` and `transfer`.
"""

from __future__ import annotations

from typing import assert_never

from ..config import Settings
from ..types import LogIndex, NodeId, Random, RoleName, Term
from . import election, proposals, reads, replication, transfer
from .effects import Apply, Became, Effect, HardState, Reconfigured
from .events import (
    ConsensusMessage,
    EntriesRead,
    Event,
    LinkLost,
    LinkUp,
    Persisted,
    Proposed,
    ReadRequested,
    Received,
    Tick,
    TransferRequested,
)
from .log import RaftLog, Recovered
from .messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    PreVoteAccepted,
    PreVoteRejected,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteAccepted,
    VoteRejected,
)
from .quorum import Configuration
from .roles import Candidate, Follower, Leader, PreCandidate, Role
from .state import State
from .transitions import follow

__all__ = ["Raft"]


class Raft:
    """One server of a Raft cluster.

    recovered: what storage held; store_id: the data directory's identity, which a leader records in the log.
    """

    def __init__(
        self,
        id: NodeId,
        recovered: Recovered,
        *,
        settings: Settings,
        random: Random,
        store_id: bytes,
        now: int,
    ) -> None:
        log = RaftLog(recovered)
        self._state = State(
            id, settings, random, recovered.hard_state, log, recovered.commit_index, store_id, now
        )
        election.hasten_start(self._state)

    # -- to look at, not to change

    @property
    def id(self) -> NodeId:
        return self._state.id

    @property
    def role(self) -> Role:
        return self._state.role

    @property
    def role_name(self) -> RoleName:
        return self._state.role.name

    @property
    def hard_state(self) -> HardState:
        return self._state.hard_state

    @property
    def current_term(self) -> Term:
        return self._state.current_term

    @property
    def leader_id(self) -> NodeId | None:
        return self._state.leader_id

    @property
    def commit_index(self) -> LogIndex:
        return self._state.commit_index

    @property
    def log(self) -> RaftLog:
        return self._state.log

    @property
    def configuration(self) -> Configuration:
        return self._state.configuration

    @property
    def cluster_id(self) -> bytes | None:
        """Who may be judged by: None until the entry that founds the cluster is known to be committed."""
        return self._state.log.summary.cluster_id

    def stalled_ns(self, now: int) -> int:
        """For how long writes are under way and none has become durable; 0: none is under way."""
        return self._state.stalled_ns(now)

    def deadline(self) -> int:
        """When the next Tick is wanted, nanoseconds; never in the past for long: a Tick always moves it."""
        return self._state.role.deadline_ns

    # -- what happens

    def step(self, event: Event, now: int) -> list[Effect]:
        """Handle one event at time `now` (nanoseconds, never falling) and return what must be done, in order.

        Raises ProtocolError for a message that no correct peer sends, ConfigurationError for an entry that a newer version
        wrote; nothing has changed then.
        """
        state = self._state
        assert now >= state.now, "time never runs backwards"
        state.now = now
        role, term = state.role, state.current_term
        commit_index, configuration = state.commit_index, state.log.summary.configuration
        self._dispatch(event)
        effects, state.effects = state.effects, []
        if state.staged is not None:
            effects.insert(0, state.take_write())
        if state.commit_index != commit_index:
            effects.append(Apply(state.commit_index))
        if state.log.summary.configuration is not configuration:
            effects.append(Reconfigured(state.configuration))
        if state.role is not role or state.current_term != term:
            self._tell_role(effects, role, term)
        return effects

    def _dispatch(self, event: Event) -> None:
        state = self._state
        match event:
            case Received():
                self._received(event.sender, event.message)
            case Persisted():
                self._persisted(event)
            case Proposed():
                proposals.proposed(state, event)
            case Tick():
                self._tick()
            case ReadRequested():
                reads.read_requested(state, event.key)
            case TransferRequested():
                transfer.transfer_requested(state, event)
            case EntriesRead():
                replication.on_entries_read(state, event)
            case LinkUp():
                state.linked.add(event.peer)
                state.store_ids[event.peer] = event.store_id
                election.link_up(state, event.peer)
                replication.link_up(state, event.peer)
            case LinkLost():
                state.linked.discard(event.peer)
                election.link_lost(state, event.peer)
                transfer.link_lost(state, event.peer)
            case _:
                assert_never(event)

    def _received(self, sender: NodeId, message: ConsensusMessage) -> None:
        state = self._state
        match message:
            case AppendEntries():
                replication.on_append_entries(state, sender, message)
            case RequestVote():
                election.on_request_vote(state, sender, message)
            case RequestPreVote():
                election.on_request_pre_vote(state, sender, message)
            case PreVoteAccepted():
                election.on_pre_vote_accepted(state, sender, message)
            case PreVoteRejected():
                election.on_pre_vote_rejected(state, sender, message)
            case TimeoutNow():
                election.on_timeout_now(state, sender, message)
            case _ if message.term > state.current_term:
                follow(state, message.term, None)
            case AppendAccepted():
                replication.on_append_accepted(state, sender, message)
            case AppendRejected():
                replication.on_append_rejected(state, sender, message)
            case VoteAccepted():
                election.on_vote_accepted(state, sender, message)
            case VoteRejected():
                election.on_vote_rejected(state, sender, message)
            case _:
                assert_never(message)

    def _persisted(self, event: Persisted) -> None:
        state = self._state
        state.persisted(event.token)
        match state.role:
            case Leader() as leader:
                replication.advance_commit(state, leader)
            case Candidate():
                election.own_vote_persisted(state)
            case Follower() | PreCandidate():
                pass
            case _ as role:
                assert_never(role)

    def _tick(self) -> None:
        state = self._state
        late = state.now - self.deadline() > state.settings.election_min_ns // 2
        match state.role:
            case Leader() as leader:
                if late:
                    # This process was held up, and so was its hearing: ask again before believing that nobody is there.
                    leader.quorum_ns = state.now + state.settings.election_min_ns
                elif replication.must_give_way(state):
                    follow(state, state.current_term, None)
                    return
                transfer.expire_transfer(state, leader)
                if state.now >= leader.heartbeat_ns:
                    replication.heartbeat(state, leader)
                if state.now >= leader.quorum_ns:
                    replication.check_quorum(state, leader)
                leader.deadline_ns = leader.next_deadline_ns()
            case Follower() | PreCandidate() | Candidate() as role:
                if late:
                    role.deadline_ns = state.election_deadline()
                elif state.now >= role.deadline_ns:
                    election.election_timeout(state, role)
            case _ as role:
                assert_never(role)

    def _tell_role(self, effects: list[Effect], role: Role, term: Term) -> None:
        state = self._state
        before = role.name, term, state.led_by(role)
        after = state.role.name, state.current_term, state.leader_id
        if after != before:
            effects.append(Became(*after))
