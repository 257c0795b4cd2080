"""Thesis 9.6: pre-vote. A server learns whether it could win before it disturbs anyone with a higher term."""

from __future__ import annotations

from totora.core import effects as fx
from totora.core.effects import HardState
from totora.core.messages import AppendEntries, PreVoteAccepted, PreVoteRejected, RequestPreVote

from .cluster import Cluster, chosen, sent


def test_9_6_standing_asks_about_the_next_term_and_enters_none() -> None:
    """The patience of a follower in term 3 ends: it asks about term 4, and nothing of it is written."""
    c = Cluster(logs={1: [1, 3], 2: [1, 3], 3: [1, 3]})
    effects = c.tick(1)
    assert sent(effects) == [(peer, RequestPreVote(4, 1, 2, 3)) for peer in (2, 3)]
    assert chosen(effects, fx.Persist) == []
    assert c.nodes[1].hard_state == HardState(3)


def test_9_6_a_majority_of_pre_votes_begins_the_election() -> None:
    """Its own and one of two peers'; the same peer's twice would not do in a cluster of five."""
    c = Cluster(5)
    c.tick(1)
    for _ in range(3):
        c.receive(1, 2, PreVoteAccepted(1, None))
    assert c.role(1) == "pre-candidate"
    c.receive(1, 3, PreVoteAccepted(1, None))
    assert (c.role(1), c.nodes[1].current_term) == ("candidate", 1)


def test_9_6_pre_votes_about_another_term_do_not_count() -> None:
    """They answer an earlier question."""
    c = Cluster(hard_states={1: HardState(3)})
    c.tick(1)
    for term in (2, 3, 5):
        c.receive(1, 2, PreVoteAccepted(term, None))
    assert c.role(1) == "pre-candidate"


def test_9_6_pre_votes_that_come_after_the_election_began_do_not_count() -> None:
    """A candidate needs votes."""
    c = Cluster(5)
    c.tick(1)
    for peer in (2, 3, 4, 5):
        c.receive(1, peer, PreVoteAccepted(1, None))
    assert c.role(1) == "candidate"


def test_9_6_a_pre_vote_is_given_to_any_number_and_changes_nothing() -> None:
    """Two ask about the same term, both get it: no term, no vote, no timer changes."""
    c = Cluster()
    deadline = c.nodes[1].deadline()
    for peer in (2, 3):
        effects = c.receive(1, peer, RequestPreVote(1, peer, 0, 0))
        assert effects == [fx.Send(peer, PreVoteAccepted(1, None), None)]
    assert (c.nodes[1].hard_state, c.nodes[1].deadline()) == (HardState(), deadline)


def test_9_6_a_pre_vote_is_refused_to_a_log_that_lacks_something() -> None:
    """As the vote would be (5.4.1)."""
    c = Cluster(logs={1: [1, 2]})
    assert sent(c.receive(1, 2, RequestPreVote(9, 2, 1, 1))) == [(2, PreVoteRejected(2, None, 9))]


def test_9_6_a_pre_vote_is_refused_about_a_term_that_is_over() -> None:
    """The answer names the term that the asker must know of."""
    c = Cluster(hard_states={1: HardState(7)})
    assert sent(c.receive(1, 2, RequestPreVote(7, 2, 0, 0))) == [(2, PreVoteRejected(7, None, 7))]


def test_9_6_a_pre_vote_is_refused_while_a_leader_is_heard() -> None:
    """By the leader and by its followers; once it was silent for the least election timeout it is given."""
    c = Cluster()
    c.elect(1)
    for id in (1, 2):
        assert sent(c.receive(id, 3, RequestPreVote(2, 3, 9, 9))) == [(3, PreVoteRejected(1, 1, 2))]
    c.now += c.settings.election_min_ns - 1
    assert sent(c.receive(2, 3, RequestPreVote(2, 3, 9, 9))) == [(3, PreVoteRejected(1, 1, 2))]
    c.now += 1
    assert sent(c.receive(2, 3, RequestPreVote(2, 3, 9, 9))) == [(3, PreVoteAccepted(2, 1))]


def test_9_6_being_asked_is_no_sign_of_a_leader() -> None:
    """A pre-candidate that asks and asks keeps nobody else from standing."""
    c = Cluster(absent=(1, 3))
    deadline = c.nodes[2].deadline()
    while c.now < deadline - 50_000_000:
        c.now += 50_000_000
        c.receive(2, 1, RequestPreVote(1, 1, 0, 0))
    assert c.nodes[2].deadline() == deadline
    c.tick(2)
    assert c.role(2) == "pre-candidate"


def test_9_6_a_server_that_was_cut_off_does_not_disturb_on_its_return() -> None:
    """A minute alone: its term is what it was, and after the return the leader is the same, in the same term."""
    c = Cluster()
    c.elect(1)
    c.partition([1, 2], [3])
    c.advance(60_000)
    assert c.nodes[3].current_term == 1
    c.heal()
    c.advance(3_000)
    assert (c.leaders(), {node.current_term for node in c.nodes.values()}) == ([1], {1})


def test_9_6_a_pre_candidate_that_hears_a_leader_follows_it() -> None:
    """The leader of its own term speaks again."""
    c = Cluster()
    c.elect(1)
    c.now += c.settings.election_max_ns // 2
    c.tick(2)
    assert (c.role(2), c.nodes[2].leader_id) == ("pre-candidate", None)
    c.receive(2, 1, AppendEntries(1, 1, 0, 0, 0, 9))
    assert (c.role(2), c.nodes[2].leader_id) == ("follower", 1)


def test_9_6_a_question_lost_with_its_link_is_asked_again() -> None:
    """A pre-candidate's new link carries the question at once."""
    c = Cluster()
    c.tick(1)
    c.disconnect(1, 2)
    c.connect(1, 2)
    assert [e.message for e in c.under_way(RequestPreVote, to=2)] == [RequestPreVote(1, 1, 0, 0)]


def test_prevote_deadlock() -> None:
    """Two of three are left: one with the longer log in the lower term, one with the shorter log in the higher term.

    The first is refused for its term, the second for its log. The first must enter the higher term by the refusal, and
    being asked must not count as hearing from a leader, or they refuse each other for ever (etcd#8501, openraft#1796).
    """
    for seed in range(20):
        c = Cluster(
            seed=seed,
            logs={1: [1, 1, 2], 2: [1], 3: []},
            hard_states={1: HardState(2), 2: HardState(8), 3: HardState(2)},
        )
        c.crash(3)
        assert c.until_leader(within_ms=6_000) == 1
        assert c.nodes[1].current_term >= 9
