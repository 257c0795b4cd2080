"""Section 5.1: terms. Figure 2, rules for all servers; persistent and volatile state."""

from __future__ import annotations

import pytest

from totora.core import effects as fx
from totora.core.effects import HardState
from totora.core.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    PreVoteAccepted,
    PreVoteRejected,
    RequestVote,
    VoteAccepted,
    VoteRejected,
)
from totora.errors import ProtocolError
from totora.types import RoleName

from .cluster import Cluster, chosen, entries, sent

ROLES: list[RoleName] = ["follower", "pre-candidate", "candidate", "leader"]


def in_role(role: RoleName) -> Cluster:
    """Server 1 of three in a role; its term is 3, or 4 where the role is one of a new term."""
    c = Cluster(logs={1: [1, 3], 2: [1, 3], 3: [1, 3]})
    if role != "follower":
        c.tick(1)
    if role in ("candidate", "leader"):
        c.receive(1, 2, PreVoteAccepted(4, None))
    if role == "leader":
        c.receive(1, 2, VoteAccepted(4, None))
    c.drop()
    assert c.role(1) == role
    return c


@pytest.mark.parametrize("role", ROLES)
def test_5_1_a_server_that_hears_of_a_higher_term_in_a_call_follows(role: RoleName) -> None:
    """A leader of term 9 calls; whatever the server was, it enters term 9 and follows (all servers, second rule)."""
    c = in_role(role)
    effects = c.receive(1, 2, AppendEntries(9, 2, 2, 3, 0, 1))
    node = c.nodes[1]
    assert (node.role_name, node.current_term, node.leader_id) == ("follower", 9, 2)
    assert chosen(effects, fx.Persist)[0].hard_state == HardState(9, None)
    assert chosen(effects, fx.Became) == [fx.Became("follower", 9, 2)]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "response",
    [
        VoteAccepted(9, None),
        VoteRejected(9, None),
        AppendAccepted(9, None, 1, 0),
        AppendRejected(9, None, 1, 0, 0, 0),
        PreVoteRejected(9, None, 4),
    ],
    ids=lambda response: type(response).__name__,
)
def test_5_1_a_server_that_hears_of_a_higher_term_in_a_response_follows(
    role: RoleName, response: VoteAccepted | VoteRejected | AppendAccepted | AppendRejected | PreVoteRejected
) -> None:
    """An answer names term 9; the server enters it, has no vote given in it and knows no leader (all servers)."""
    c = in_role(role)
    c.receive(1, 2, response)
    node = c.nodes[1]
    assert (node.role_name, node.hard_state, node.leader_id) == ("follower", HardState(9, None), None)
    assert c.disks[1].hard_state == HardState(9, None)


def test_5_1_a_higher_term_alone_does_not_restart_the_election_timer() -> None:
    """A candidate whose log is too old asks: its term is taken over, its vote refused, and patience is not renewed."""
    c = Cluster(logs={1: [1, 3], 2: [1, 3], 3: [1]})
    c.now = c.nodes[1].deadline() - 1
    c.receive(1, 3, RequestVote(9, 3, 1, 1))
    assert c.nodes[1].current_term == 9
    assert c.nodes[1].deadline() == c.now + 1


@pytest.mark.parametrize("role", ROLES)
def test_5_1_a_call_of_a_stale_term_is_rejected_with_the_current_one(role: RoleName) -> None:
    """The leader and a candidate of term 2 call; they learn the current term, and nothing changes here."""
    c = in_role(role)
    term, deadline = c.nodes[1].current_term, c.nodes[1].deadline()
    log = list(c.log(1))
    append = AppendEntries(2, 2, 1, 1, 0, 7, tuple(entries(1, 2)[1:]))
    leader_id = 1 if role == "leader" else None
    assert sent(c.receive(1, 2, append)) == [(2, AppendRejected(term, leader_id, 1, 0, 0, 7))]
    assert sent(c.receive(1, 2, RequestVote(2, 2, 9, 2))) == [(2, VoteRejected(term, leader_id))]
    assert (c.role(1), c.nodes[1].current_term, c.log(1)) == (role, term, log)
    assert c.nodes[1].deadline() == deadline


@pytest.mark.parametrize("role", ROLES)
def test_5_1_an_answer_of_a_stale_term_changes_nothing(role: RoleName) -> None:
    """Answers to what was asked in term 2 arrive in term 3 or 4: nobody's role, log or commitment moves."""
    c = in_role(role)
    before = c.role(1), c.nodes[1].current_term, c.nodes[1].commit_index
    for response in (
        VoteAccepted(2, None),
        VoteRejected(2, None),
        AppendAccepted(2, None, 2, 99),
        AppendRejected(2, None, 2, 0, 0, 99),
        PreVoteAccepted(2, None),
        PreVoteRejected(2, None, 2),
    ):
        for peer in (2, 3):
            assert c.receive(1, peer, response) == []
    assert (c.role(1), c.nodes[1].current_term, c.nodes[1].commit_index) == before


def test_5_1_the_term_rises_by_one_at_an_election_and_never_falls() -> None:
    """Ten elections in a row, by turns: each leader's term is the former one's and one."""
    c = Cluster()
    for term in range(1, 11):
        c.elect(1 + term % 3)
        assert {node.current_term for node in c.nodes.values()} == {term}


def test_5_1_a_server_starts_as_a_follower_with_what_was_persisted() -> None:
    """Figure 2, persistent state: `current_term`, `voted_for` and `log[]` come from disk; the leader is unknown."""
    c = Cluster(logs={1: [1, 1, 4]}, hard_states={1: HardState(6, 2)})
    node = c.nodes[1]
    assert (node.id, node.role_name, node.hard_state, node.leader_id) == (
        1,
        "follower",
        HardState(6, 2),
        None,
    )
    assert (node.log.last_index, node.log.last_term) == (3, 4)


def test_5_1_volatile_state_starts_at_zero() -> None:
    """Figure 2, volatile state: `commit_index` is 0 at the first start, and nothing is applied."""
    c = Cluster()
    assert c.nodes[1].commit_index == 0
    assert c.found(1, fx.Apply) == []


def test_5_1_a_term_that_grew_is_on_disk_before_it_is_answered() -> None:
    """Figure 2: 'updated on stable storage before responding to RPCs', for a term alone, without a vote."""
    c = Cluster(logs={1: [1, 3], 2: [1, 3], 3: [1]})
    c.hold(1)
    c.receive(1, 3, RequestVote(9, 3, 1, 1))
    assert c.under_way(VoteRejected) == []
    c.release(1)
    assert [e.message for e in c.under_way(VoteRejected)] == [VoteRejected(9, None)]
    assert c.disks[1].hard_state == HardState(9, None)


def test_5_1_a_leader_that_another_claims_in_its_own_term_is_an_error() -> None:
    """Election Safety is broken somewhere: the message is refused as one that no correct peer sends."""
    c = in_role("leader")
    with pytest.raises(ProtocolError, match="Election Safety"):
        c.receive(1, 2, AppendEntries(4, 2, 2, 3, 0, 1))
    assert c.role(1) == "leader"


def test_5_1_a_call_in_another_servers_name_is_an_error() -> None:
    """Server 2 sends what server 3 would send as a leader or as a candidate."""
    c = in_role("follower")
    with pytest.raises(ProtocolError, match="node 3 leads"):
        c.receive(1, 2, AppendEntries(4, 3, 2, 3, 0, 1))
    assert c.nodes[1].current_term == 3


def test_restart_all() -> None:
    """Every server restarts at once, some in the middle of a write: terms, votes and committed entries survive."""
    c = Cluster(5)
    c.elect(2)
    c.propose(2, b"a")
    c.propose(2, b"b")
    c.deliver()
    c.hold(2)
    c.propose(2, b"lost")
    before = {id: c.disks[id].hard_state for id in c.nodes}
    for id in c.nodes:
        c.crash(id)
    c.drop()
    for id in c.nodes:
        c.restart(id)
    assert {id: node.hard_state for id, node in c.nodes.items()} == before
    assert [node.role_name for node in c.nodes.values()] == ["follower"] * 5
    leader = c.until_leader(within_ms=4_000)
    c.advance(300)
    assert c.nodes[leader].current_term > before[2].current_term
    assert c.payloads(leader)[:2] == [b"a", b"b"]
    assert {node.commit_index for node in c.nodes.values()} == {c.nodes[leader].log.last_index}
