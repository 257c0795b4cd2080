"""Section 5.2: leader election. Figure 2, RequestVote RPC, followers, candidates, a new leader's first words."""

from __future__ import annotations

import pytest

from totora.config import Settings
from totora.core import effects as fx
from totora.core import events as ev
from totora.core.effects import HardState
from totora.core.messages import (
    AppendEntries,
    PreVoteAccepted,
    PreVoteRejected,
    RequestPreVote,
    RequestVote,
    VoteAccepted,
    VoteRejected,
)
from totora.core.quorum import Configuration, Member
from totora.errors import ProtocolError

from .cluster import MS, Cluster, chosen, sent, terms

SETTINGS = Settings()


def candidate(size: int = 3) -> Cluster:
    """Server 1 stands in term 1, its vote for itself is durable; what it sent waits in `messages`."""
    c = Cluster(size)
    c.tick(1)
    c.drop()
    for peer in range(2, size // 2 + 2):
        c.receive(1, peer, PreVoteAccepted(1, None))
    assert c.role(1) == "candidate"
    return c


# -- followers


def test_5_2_a_follower_does_nothing_before_its_patience_ends() -> None:
    """Followers are passive: a Tick that comes early asks for nothing and leaves the deadline as it is."""
    c = Cluster()
    deadline = c.nodes[1].deadline()
    c.now = deadline - 1
    assert c.step(1, ev.Tick()) == []
    assert c.nodes[1].deadline() == deadline


def test_5_2_a_follower_stands_when_it_hears_no_leader_for_an_election_timeout() -> None:
    """Figure 2, followers, second rule; standing begins with the pre-vote."""
    c = Cluster()
    assert {to for to, _ in sent(c.tick(1))} == {2, 3}
    assert c.role(1) == "pre-candidate"


def test_5_2_hearing_the_leader_restarts_the_election_timer() -> None:
    """Heartbeats every 100 ms for ten seconds: nobody's term rises; the timer counts from the last one."""
    c = Cluster()
    c.elect(1)
    c.advance(10_000)
    assert {node.current_term for node in c.nodes.values()} == {1}
    c.receive(2, 1, AppendEntries(1, 1, 0, 0, 0, 500))
    assert c.nodes[2].deadline() >= c.now + SETTINGS.election_min_ns


def test_5_2_giving_a_vote_restarts_the_election_timer() -> None:
    """Figure 2, followers: 'or granting vote to candidate'."""
    c = Cluster()
    c.now = c.nodes[1].deadline() - 1
    c.receive(1, 2, RequestVote(1, 2, 0, 0))
    assert c.nodes[1].deadline() >= c.now + SETTINGS.election_min_ns


def test_5_2_refusing_a_vote_does_not_restart_the_election_timer() -> None:
    """The vote is given already; another candidate's call leaves the patience as it is."""
    c = Cluster()
    c.receive(1, 2, RequestVote(1, 2, 0, 0))
    deadline = c.nodes[1].deadline()
    c.now = deadline - 1
    assert sent(c.receive(1, 3, RequestVote(1, 3, 0, 0))) == [(3, VoteRejected(1, None))]
    assert c.nodes[1].deadline() == deadline


def test_5_2_election_timeouts_are_random_within_their_bounds() -> None:
    """A thousand servers' first deadlines lie between both settings, spread over the whole of it."""
    deadlines = sorted(Cluster(seed=seed, absent=(2, 3)).nodes[1].deadline() for seed in range(1_000))
    low, high = SETTINGS.election_min_ns, SETTINGS.election_max_ns
    assert low <= deadlines[0] < low + 20 * MS
    assert high - 20 * MS < deadlines[-1] < high


def test_5_2_a_server_that_does_not_vote_never_stands() -> None:
    """A learner's patience ends: it waits on, and a lost link does not hurry it either."""
    c = Cluster(3)
    members = tuple(Member(id, "host", id) for id in (1, 2, 3))
    for disk in c.disks.values():
        disk.configuration = Configuration(members, frozenset({1, 2}))
    for id in (1, 2, 3):
        c.crash(id)
        c.restart(id)
    c.drop()
    assert c.tick(3) == []
    assert c.nodes[3].deadline() > c.now
    c.elect(1)
    deadline = c.nodes[3].deadline()
    assert c.step(3, ev.LinkLost(1)) == []
    assert (c.role(3), c.nodes[3].deadline()) == ("follower", deadline)


# -- candidates


def test_5_2_a_candidate_enters_the_next_term_votes_for_itself_and_asks_everyone() -> None:
    """Figure 2, candidates, first rule, all four parts: term, own vote, election timer, RequestVote to all others."""
    c = Cluster(5, logs={id: [1, 1, 2] for id in range(1, 6)})
    c.tick(1)
    c.drop()
    assert c.receive(1, 2, PreVoteAccepted(3, None)) == []
    effects = c.receive(1, 3, PreVoteAccepted(3, None))
    assert chosen(effects, fx.Persist)[0].hard_state == HardState(3, 1)
    assert sent(effects) == [(peer, RequestVote(3, 1, 3, 2)) for peer in (2, 3, 4, 5)]
    assert SETTINGS.election_min_ns <= c.nodes[1].deadline() - c.now <= SETTINGS.election_max_ns


def test_5_2_a_candidate_with_votes_of_a_majority_leads() -> None:
    """Figure 2, candidates, second rule: in a cluster of five the third vote decides, not the second."""
    c = candidate(5)
    c.receive(1, 2, VoteAccepted(1, None))
    assert c.role(1) == "candidate"
    effects = c.receive(1, 3, VoteAccepted(1, None))
    assert chosen(effects, fx.Became) == [fx.Became("leader", 1, 1)]


def test_5_2_an_even_cluster_needs_more_than_half() -> None:
    """Of four, two votes are no majority: else both halves could elect."""
    c = Cluster(4)
    c.tick(1)
    c.drop()
    c.receive(1, 2, PreVoteAccepted(1, None))
    assert c.role(1) == "pre-candidate"
    c.receive(1, 3, PreVoteAccepted(1, None))
    c.receive(1, 2, VoteAccepted(1, None))
    assert c.role(1) == "candidate"
    c.receive(1, 3, VoteAccepted(1, None))
    assert c.role(1) == "leader"


def test_5_2_a_candidate_that_hears_the_new_leader_follows_it() -> None:
    """Figure 2, candidates, third rule: an AppendEntries of the same term, from who won."""
    c = candidate()
    c.receive(1, 2, AppendEntries(1, 2, 0, 0, 0, 1))
    assert (c.role(1), c.nodes[1].leader_id, c.nodes[1].hard_state) == (
        "follower",
        2,
        HardState(1, 1),
    )


def test_5_2_a_candidate_whose_election_ends_without_a_leader_stands_again() -> None:
    """Figure 2, candidates, fourth rule: nobody answers; after an election timeout it asks for the next term."""
    c = candidate()
    c.drop()
    assert sent(c.tick(1)) == [(peer, RequestPreVote(2, 1, 0, 0)) for peer in (2, 3)]
    assert (c.role(1), c.nodes[1].current_term) == ("pre-candidate", 1)
    c.receive(1, 3, PreVoteAccepted(2, None))
    assert (c.role(1), c.nodes[1].hard_state) == ("candidate", HardState(2, 1))


def test_5_2_a_split_vote_is_asked_again_soon() -> None:
    """Both peers voted for another: an answer cannot come any more, so it asks again after tens of milliseconds."""
    c = candidate()
    patience = c.nodes[1].deadline()
    c.receive(1, 2, VoteRejected(1, None))
    assert c.nodes[1].deadline() == patience
    c.receive(1, 3, VoteRejected(1, None))
    assert SETTINGS.failover_delay_ns <= c.nodes[1].deadline() - c.now <= 2 * SETTINGS.failover_delay_ns


def test_5_2_a_refusal_by_all_that_can_be_reached_is_a_split_vote_too() -> None:
    """The link to 3 is down, 2 refuses: nobody is left to wait for."""
    c = candidate()
    c.step(1, ev.LinkLost(3))
    c.receive(1, 2, VoteRejected(1, None))
    assert c.nodes[1].deadline() - c.now <= 2 * SETTINGS.failover_delay_ns


def all_standing(size: int, seed: int) -> Cluster:
    """A cluster whose servers lose patience at the same moment: each asks before it is asked."""
    c = Cluster(size, seed=seed, settings=Settings(election_max_s=1.001))
    c.advance(1_001, deliver=False)
    assert {node.role_name for node in c.nodes.values()} == {"pre-candidate"}
    return c


def test_5_2_split_votes_are_resolved() -> None:
    """All stand at the same moment, each votes for itself: one leader all the same, before a timeout is over."""
    for seed in range(20):
        c = all_standing(5, seed)
        c.deliver(lambda e: isinstance(e.message, RequestPreVote | PreVoteAccepted | PreVoteRejected))
        assert [node.hard_state for node in c.nodes.values()] == [HardState(1, id) for id in c.nodes]
        c.deliver()
        c.until_leader(within_ms=900)


def test_5_2_a_vote_lost_with_its_link_is_asked_for_again() -> None:
    """The call went to a dead connection; as soon as there is a new one it goes again."""
    c = candidate()
    c.disconnect(1, 2)
    c.step(1, ev.LinkUp(2, b"2" * 16))
    assert [e.message for e in c.under_way(RequestVote, to=2)] == [RequestVote(1, 1, 0, 0)]


def test_5_2_a_cluster_of_one_elects_itself() -> None:
    """Its own vote is a majority, once it is on disk."""
    c = Cluster(1)
    c.hold(1)
    c.tick(1)
    assert c.role(1) == "candidate"
    c.release(1)
    assert c.role(1) == "leader"


def test_5_2_a_candidate_asks_only_once_its_own_vote_is_durable() -> None:
    """Its disk is slow: no RequestVote leaves, so no vote can be counted that a crash would let it ask for again."""
    c = Cluster()
    c.hold(1)
    c.tick(1)
    c.drop()
    c.receive(1, 2, PreVoteAccepted(1, None))
    assert c.under_way(RequestVote) == []
    c.release(1)
    assert len(c.under_way(RequestVote)) == 2


def test_5_2_a_candidates_own_vote_counts_once_durable() -> None:
    """One peer's vote and its own make a majority of three, but not while its own is only in memory."""
    c = Cluster()
    c.hold(1)
    c.tick(1)
    c.receive(1, 2, PreVoteAccepted(1, None))
    c.receive(1, 2, VoteAccepted(1, None))
    assert c.role(1) == "candidate"
    c.release(1)
    assert c.role(1) == "leader"


# -- RequestVote RPC, receiver implementation


def test_5_2_receiver_1_a_stale_term_gets_no_vote() -> None:
    """Reply false if term < currentTerm."""
    c = Cluster(hard_states={1: HardState(5)})
    assert sent(c.receive(1, 2, RequestVote(4, 2, 9, 4))) == [(2, VoteRejected(5, None))]
    assert c.nodes[1].hard_state == HardState(5, None)


def test_5_2_receiver_2_a_vote_is_given_and_is_durable_before_it_leaves() -> None:
    """If votedFor is null and the log is up to date, grant; the answer waits for the very write of the vote."""
    c = Cluster()
    effects = c.receive(1, 2, RequestVote(1, 2, 0, 0))
    (write,) = chosen(effects, fx.Persist)
    assert write.hard_state == HardState(1, 2)
    assert chosen(effects, fx.Send) == [fx.Send(2, VoteAccepted(1, None), write.token)]


def test_5_2_receiver_2_one_vote_per_term() -> None:
    """First come, first served: 2 gets it, 3 does not, and in the next term 3 may."""
    c = Cluster()
    c.receive(1, 2, RequestVote(1, 2, 0, 0))
    assert sent(c.receive(1, 3, RequestVote(1, 3, 0, 0))) == [(3, VoteRejected(1, None))]
    assert sent(c.receive(1, 3, RequestVote(2, 3, 0, 0))) == [(3, VoteAccepted(2, None))]


def test_5_2_receiver_2_the_same_candidate_gets_the_same_vote_again() -> None:
    """If votedFor is candidateId: a lost answer is given again, without another write."""
    c = Cluster()
    c.receive(1, 2, RequestVote(1, 2, 0, 0))
    assert c.receive(1, 2, RequestVote(1, 2, 0, 0)) == [fx.Send(2, VoteAccepted(1, None), None)]


def test_5_2_receiver_2_a_candidate_votes_for_nobody_else_in_its_term() -> None:
    """It voted for itself."""
    c = candidate()
    assert sent(c.receive(1, 3, RequestVote(1, 3, 9, 1))) == [(3, VoteRejected(1, None))]


def test_5_2_a_server_that_asks_and_gives_its_vote_stops_asking() -> None:
    """A pre-candidate of term 1 that has no vote given in it gives it to 2: it waits for 2 as any voter does."""
    c = Cluster(hard_states={1: HardState(1), 2: HardState(1), 3: HardState(1)})
    c.tick(1)
    c.receive(1, 2, RequestVote(1, 2, 0, 0))
    assert c.role(1) == "follower"
    assert c.nodes[1].deadline() >= c.now + SETTINGS.election_min_ns


def test_5_2_a_vote_asked_for_in_another_servers_name_is_an_error() -> None:
    """Server 2 asks for server 3: a vote would be counted by one and given to the other."""
    c = Cluster()
    with pytest.raises(ProtocolError, match="node 3"):
        c.receive(1, 2, RequestVote(1, 3, 0, 0))
    with pytest.raises(ProtocolError, match="node 3"):
        c.receive(1, 2, RequestPreVote(1, 3, 0, 0))
    assert c.nodes[1].hard_state == HardState()


def test_crash_before_vote_persisted() -> None:
    """A crash between giving a vote and persisting it: the vote never left, so after the restart another may have it.

    And once it left, it was on disk: after the restart the second candidate of the term is refused.
    """
    c = Cluster()
    c.hold(1)
    c.receive(1, 2, RequestVote(1, 2, 0, 0))
    assert c.under_way(VoteAccepted) == []
    c.crash(1)
    c.restart(1)
    c.drop()
    c.receive(1, 3, RequestVote(1, 3, 0, 0))
    assert [e.to for e in c.under_way(VoteAccepted)] == [3]
    c.crash(1)
    c.restart(1)
    c.drop()
    c.receive(1, 2, RequestVote(1, 2, 0, 0))
    assert c.under_way(VoteAccepted) == []
    assert [e.message for e in c.under_way(VoteRejected)] == [VoteRejected(1, None)]


def test_duplicate_vote_response() -> None:
    """One voter's answer arrives three times: it is one vote, of five."""
    c = candidate(5)
    for _ in range(3):
        c.receive(1, 2, VoteAccepted(1, None))
    assert c.role(1) == "candidate"
    c.receive(1, 3, VoteAccepted(1, None))
    assert c.role(1) == "leader"


def test_5_2_votes_of_servers_that_are_no_voters_do_not_count() -> None:
    """Answers come from numbers that the configuration does not know."""
    c = candidate(5)
    for stranger in (7, 8, 9):
        c.receive(1, stranger, VoteAccepted(1, None))
    assert c.role(1) == "candidate"


def test_5_2_at_most_one_leader_per_term() -> None:
    """Election Safety: four candidates of one term, calls and answers in any order; the harness watches every step."""
    for seed in range(50):
        c = all_standing(4, seed)
        c.deliver(lambda e: isinstance(e.message, RequestPreVote | PreVoteAccepted | PreVoteRejected))
        while c.messages:
            c.random.shuffle(c.messages)
            c.hand_over(c.messages.pop())
        assert len(c.leaders()) <= 1


# -- a new leader


def test_5_2_a_new_leader_speaks_to_everyone_at_once() -> None:
    """Figure 2, leaders, first rule: upon election, AppendEntries to each server; here they carry the first entry."""
    c = candidate()
    effects = c.receive(1, 2, VoteAccepted(1, None))
    calls = [(to, m) for to, m in sent(effects) if isinstance(m, AppendEntries)]
    assert [to for to, _ in calls] == [2, 3]
    assert all((m.term, m.leader_id, m.prev_log_index) == (1, 1, 0) for _, m in calls)
    assert all(send.after is None for send in chosen(effects, fx.Send)), (
        "it need not wait for the leader's disk"
    )


def test_5_2_a_leader_repeats_heartbeats_during_idle_periods() -> None:
    """Figure 2, leaders, first rule: every interval one to each follower, so that no election timer runs out."""
    c = Cluster()
    c.elect(1)
    c.drop()
    for _ in range(5):
        start = c.now
        effects = c.tick(1)
        assert c.now - start <= SETTINGS.heartbeat_ns
        beats = [(to, m) for to, m in sent(effects) if isinstance(m, AppendEntries) and not m.batches]
        assert [to for to, _ in beats] == [2, 3]
        c.deliver()


def test_5_2_a_new_leaders_index_of_what_to_send_starts_after_its_own_last_entry() -> None:
    """Figure 2, volatile state on leaders: next_index is last log index + 1, match_index is 0, at every election."""
    c = Cluster(logs={1: [1, 1, 2], 2: [1, 1, 2], 3: [1]})
    c.partition([1, 2], [3])
    for wait_ns in (0, SETTINGS.election_min_ns):
        last_index = c.nodes[1].log.last_index
        c.now = max(c.now + wait_ns, c.nodes[1].deadline())
        c.step(1, ev.Tick())
        c.deliver(lambda e: not isinstance(e.message, AppendEntries))
        progress = c.leader(1).progress
        assert {peer: (p.next_index, p.match_index) for peer, p in progress.items()} == {
            2: (last_index + 1, 0),
            3: (last_index + 1, 0),
        }
        c.deliver()
        assert c.leader(1).progress[2].match_index == last_index + 1
        c.receive(1, 2, VoteRejected(c.nodes[1].current_term + 5, None))
    assert terms(c.log(1)) == [1, 1, 2, 3, 9]


def test_partial_partition() -> None:
    """1 and 2 cannot reach each other, both reach 3: one stable leader emerges and the terms stop rising.

    Cloudflare, 2020: without pre-vote and without refusing while a leader is heard, 1 and 2 depose each other for ever.
    """
    for seed in range(10):
        c = Cluster(seed=seed)
        c.elect(1)
        c.cut = {(1, 2), (2, 1)}
        c.advance(5_000)
        settled = {id: node.current_term for id, node in c.nodes.items()}
        (leader,) = c.leaders()
        c.advance(60_000)
        assert c.leaders() == [leader]
        assert {id: node.current_term for id, node in c.nodes.items()} == settled


def test_5_2_no_vote_is_given_while_a_leader_is_heard() -> None:
    """Thesis 4.2.3: a server that was away asks for a vote in a much higher term; neither leader nor follower notices."""
    c = Cluster()
    c.elect(1)
    for id in (1, 2):
        effects = c.receive(id, 3, RequestVote(9, 3, 99, 8))
        assert sent(effects) == [(3, VoteRejected(1, 1))]
        assert c.nodes[id].hard_state == HardState(1, 1)
    c.now += SETTINGS.election_min_ns
    assert sent(c.receive(2, 3, RequestVote(9, 3, 99, 8))) == [(3, VoteAccepted(9, None))]
