"""Section 5.4: safety. The restriction on elections (5.4.1), what may be committed (5.4.2), why it suffices (5.4.3)."""

from __future__ import annotations

import pytest

from totora.core import effects as fx
from totora.core.effects import HardState
from totora.core.messages import (
    AppendAccepted,
    AppendEntries,
    PreVoteRejected,
    RequestPreVote,
    RequestVote,
    VoteAccepted,
    VoteRejected,
)
from totora.core.progress import APPEND_BYTES_MAX

from .cluster import Cluster, Envelope, entry, sent, terms

# -- 5.4.1: the election restriction


@pytest.mark.parametrize(
    ("candidate_log", "granted"),
    [
        ((3, 4), True),  # the same last entry
        ((4, 4), True),  # of the same term, longer
        ((2, 4), False),  # of the same term, shorter
        ((1, 5), True),  # a later term beats any length
        ((9, 3), False),  # an earlier term loses with any length
        ((0, 0), False),  # an empty log
    ],
)
def test_5_4_1_a_vote_goes_only_to_a_log_at_least_as_up_to_date(
    candidate_log: tuple[int, int], granted: bool
) -> None:
    """The voter's last entry is (3, 4). Later term wins; of equal terms the longer log: RequestVote, receiver 2."""
    c = Cluster(logs={1: [1, 1, 4]})
    (answer,) = sent(c.receive(1, 2, RequestVote(6, 2, *candidate_log)))
    assert answer == (2, VoteAccepted(6, None) if granted else VoteRejected(6, None))
    assert c.nodes[1].hard_state == HardState(6, 2 if granted else None)
    c = Cluster(logs={1: [1, 1, 4]})
    ((_, pre_answer),) = sent(c.receive(1, 2, RequestPreVote(6, 2, *candidate_log)))
    assert isinstance(pre_answer, PreVoteRejected) is not granted


def test_5_4_1_entries_that_are_not_durable_count_for_the_comparison() -> None:
    """The voter holds an entry in memory only; a candidate without it is refused all the same: it errs to the safe side."""
    c = Cluster(logs={1: [1], 2: [1], 3: [1]})
    c.hold(1)
    c.receive(1, 2, AppendEntries(1, 2, 1, 1, 0, 1, (entry(2, 1),)))
    c.now += c.settings.election_max_ns
    assert sent(c.receive(1, 3, RequestVote(2, 3, 1, 1))) == [(3, VoteRejected(2, None))]


def test_5_4_1_only_a_server_that_holds_all_committed_entries_is_elected() -> None:
    """Of five, three hold what is committed. The leader dies; the two that lack it lose patience first, and never win."""
    for seed in range(10):
        c = Cluster(5, seed=seed, is_founded=True)
        c.elect(1)
        c.partition([1, 2, 3], [4, 5])
        c.propose(1, b"committed")
        c.deliver()
        c.advance(150)
        assert c.nodes[2].commit_index == 2
        c.crash(1)
        c.heal()
        for impatient in (4, 5):
            c.tick(impatient)
            c.deliver()
        leader = c.until_leader(within_ms=5_000)
        assert leader in (2, 3)
        c.advance(300)
        assert c.payloads(4) == c.payloads(5) == [b"committed"]


# -- 5.4.2: entries from previous terms


def figure_8_c() -> Cluster:
    """Figure 8 up to (c): S1 leads in term 4, its entry 2 of term 2 stands on S1, S2 and S3, a majority of five.

    The entry is as large as a message may be, so that it travels without the no-op of term 4.
    """
    large = entry(2, 2, b"x" * APPEND_BYTES_MAX)
    one = entry(1, 1)
    logs = {1: [one, large], 2: [one, large], 3: [one], 4: [one], 5: [one, entry(2, 3)]}
    c = Cluster(5, logs=logs, hard_states={id: HardState(3) for id in range(1, 6)})
    c.crash(5)
    c.elect(1, quietly=True)
    c.deliver(lambda e: {e.sender, e.to} == {1, 3} and not (carries_only(e, 4) and len(c.log(3)) == 2))
    assert c.nodes[1].current_term == 4
    assert terms(c.disks[3].batches) == [1, 2]
    assert c.leader(1).progress[3].match_index == 2
    return c


def carries_only(envelope: Envelope, term: int) -> bool:
    return isinstance(envelope.message, AppendEntries) and terms(envelope.message.batches) == [term]


def test_5_4_2_replica_count_never_commits_an_older_term() -> None:
    """Figure 8. (c): an entry of term 2 is on a majority, and is not committed by that. (d): indeed S5 replaces it."""
    c = figure_8_c()
    c.receive(1, 2, AppendAccepted(4, 1, 2, 0))
    assert c.nodes[1].commit_index == 0
    c.crash(1)
    c.drop()
    c.restart(5)
    c.elect(5)
    c.advance(200)
    assert terms(c.log(5))[:2] == terms(c.log(3))[:2] == terms(c.log(2))[:2] == [1, 3]
    c.check_logs()


def test_5_4_2_an_entry_of_the_leaders_own_term_commits_what_is_before() -> None:
    """Figure 8 (e): the entry of term 4 reaches a majority; with it the one of term 2 is committed, S5 cannot win."""
    c = figure_8_c()
    c.deliver()
    assert c.nodes[1].commit_index == 3
    c.crash(1)
    c.restart(5)
    c.now += c.settings.election_max_ns
    c.tick(5)
    c.deliver()
    leader = c.until_leader(within_ms=5_000)
    assert leader != 5
    c.advance(200)
    assert terms(c.log(5))[:3] == [1, 2, 4]


def test_older_term_majority() -> None:
    """Every server holds an entry of term 2, no leader of a later term may count it: only its own no-op's majority."""
    c = Cluster(logs={id: [1, 2] for id in (1, 2, 3)})
    c.elect(1, quietly=True)
    term = c.nodes[1].current_term
    for peer in (2, 3):
        c.receive(1, peer, AppendAccepted(term, 1, 2, 0))
    assert c.found(1, fx.Apply) == []
    c.deliver()
    assert c.found(1, fx.Apply) == [fx.Apply(3)]


def test_5_4_2_a_leader_commits_once_its_term_is_on_a_majority() -> None:
    """Figure 2, leaders, fourth rule: N > commitIndex, a majority of matchIndex[i] >= N, log[N].term == currentTerm."""
    c = Cluster(5, is_founded=True)
    c.elect(1)
    c.propose(1, b"x")
    c.deliver(lambda e: e.to == 2)
    c.deliver(lambda e: e.sender == 2)
    assert c.nodes[1].commit_index == 1, "two of five"
    c.deliver(lambda e: e.to == 3)
    c.deliver(lambda e: e.sender == 3)
    assert c.nodes[1].commit_index == 2


def test_5_4_2_a_new_leader_appends_an_entry_of_its_term_at_once() -> None:
    """Section 8: a no-op, or nothing before it could be committed while no request comes."""
    c = Cluster(logs={id: [1, 2] for id in (1, 2, 3)})
    c.elect(1)
    assert [batch.kind for batch in c.log(1)[2:]] == [1]
    c.advance(200)
    assert {node.commit_index for node in c.nodes.values()} == {3}


# -- 5.4.3: the argument


def test_5_4_3_leader_completeness_over_many_terms() -> None:
    """Thirty leaders in turn, each dies after it committed; the harness compares each new leader with all that was."""
    c = Cluster(5)
    for n in range(30):
        id = 1 + n % 5
        c.elect(id)
        c.propose(id, b"%d" % n)
        c.deliver()
        c.crash(id)
        c.drop()
        c.restart(id)
    c.elect(1)
    assert c.payloads(1) == [b"%d" % n for n in range(30)]


def test_5_4_3_no_two_servers_apply_different_entries_at_an_index() -> None:
    """A leader cut off takes requests that never commit; the others go on; afterwards all have applied the same."""
    c = Cluster(5)
    c.elect(1)
    c.partition([1, 2], [3, 4, 5])
    for n in range(3):
        c.propose(1, b"lost%d" % n)
    c.deliver()
    assert c.nodes[1].commit_index == c.nodes[2].commit_index < c.nodes[1].log.last_index
    c.elect(3)
    for n in range(3):
        c.propose(3, b"kept%d" % n)
    c.deliver()
    c.heal()
    c.advance(3_000)
    assert {tuple(c.payloads(id)) for id in c.nodes} == {(b"kept0", b"kept1", b"kept2")}
    c.check_logs()


def test_5_5_followers_that_are_gone_are_asked_again_and_take_a_message_twice() -> None:
    """Section 5.5: the RPCs are idempotent and repeated for ever; a follower that died after it wrote answers again."""
    c = Cluster(is_founded=True)
    c.elect(1)
    c.crash(3)
    c.propose(1, b"x")
    c.advance(2_000)
    c.restart(3)
    c.messages.extend(c.under_way(AppendEntries, to=3))
    c.advance(200)
    assert terms(c.log(3)) == [1, 1]
    assert c.leader(1).progress[3].match_index == 2
