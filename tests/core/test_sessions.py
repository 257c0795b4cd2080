"""Sessions (section 8, thesis 6.3): each entry once, in its sender's order, or a refusal that says why not."""

from __future__ import annotations

import pytest

from totora.core import effects as fx
from totora.core import events as ev
from totora.core import proposals, reads, summary
from totora.core.batch import join_payloads
from totora.core.effects import Refused
from totora.core.messages import AppendAccepted, AppendEntries
from totora.core.proposals import UNCOMMITTED_BYTES_MAX
from totora.core.summary import session_number

from .cluster import MS, Cluster, chosen


def led(size: int = 3) -> Cluster:
    c = Cluster(size, is_founded=True)
    c.elect(1)
    return c


def answers(effects: list[fx.Effect]) -> list[fx.Effect]:
    return [effect for effect in effects if isinstance(effect, fx.Append | Refused)]


def test_a_proposal_is_answered_by_its_place() -> None:
    """Two entries of one request: a batch, two indexes, one term; appended is not committed."""
    c = led()
    assert answers(c.propose(1, b"x", b"y", key=("k", 1))) == [fx.Append(("k", 1), 2, 3, 1)]
    assert c.nodes[1].commit_index == 1


def test_only_a_leader_takes_proposals() -> None:
    """A follower and a candidate refuse, without effect."""
    c = led()
    assert c.propose(2, b"x", key=("k", 1)) == [Refused(("k", 1), "not_leader")]
    c.now += c.settings.election_max_ns
    c.tick(2)
    assert c.propose(2, b"x", key=("k", 2)) == [Refused(("k", 2), "not_leader")]


def test_without_a_session_nothing_is_recognised() -> None:
    """Session 0 is nobody's: the same bytes twice are two entries."""
    c = led()
    c.propose(1, b"x")
    c.propose(1, b"x")
    assert c.payloads(1) == [b"x", b"x"]


def test_a_duplicate_is_answered_at_its_place_and_not_appended_again() -> None:
    """Uncommitted or committed: the retry learns where the entries stand, under the retry's own key."""
    c = led()
    c.propose(1, b"x", b"y", session=7, sequence=1)
    c.propose(1, b"z", session=7, sequence=3)
    for number in (1, 2):
        assert c.propose(1, b"x", b"y", session=7, sequence=1, key=("again", number)) == [
            fx.Append(("again", number), 2, 3, 1)
        ]
        c.deliver()
    assert c.payloads(1) == [b"x", b"y", b"z"]


def test_a_part_of_a_batch_is_answered_at_its_own_place() -> None:
    """The second entry of a batch alone."""
    c = led()
    c.propose(1, b"x", b"y", session=7, sequence=1)
    assert c.propose(1, b"y", session=7, sequence=2, key=("k", 1)) == [fx.Append(("k", 1), 3, 3, 1)]


def test_what_reaches_over_the_end_of_a_batch_is_nothing_that_was_sent() -> None:
    """Sequence numbers 2 and 3, which stand in two batches: no sender ever sent that as one."""
    c = led()
    c.propose(1, b"x", b"y", session=7, sequence=1)
    c.propose(1, b"z", session=7, sequence=3)
    assert c.propose(1, b"y", b"z", session=7, sequence=2, key=("k", 1)) == [Refused(("k", 1), "expired")]


def test_a_gap_is_refused_with_the_number_that_is_expected() -> None:
    """What was sent before has not arrived: appended now, it would stand in the wrong order."""
    c = led()
    assert c.propose(1, b"b", session=7, sequence=2, key=("k", 1)) == [Refused(("k", 1), "gap", 1)]
    c.propose(1, b"a", session=7, sequence=1)
    assert c.propose(1, b"c", session=7, sequence=3, key=("k", 2)) == [Refused(("k", 2), "gap", 2)]
    c.propose(1, b"b", session=7, sequence=2)
    assert c.payloads(1) == [b"a", b"b"]


def test_the_table_follows_the_log_to_the_next_leader() -> None:
    """The leader dies before it answers; the retry to its successor learns the place, whoever appended it there."""
    c = led()
    c.propose(1, b"x", session=7, sequence=1)
    c.deliver()
    c.crash(1)
    leader = c.until_leader(within_ms=1_000)
    c.deliver()
    assert c.propose(leader, b"x", session=7, sequence=1, key=("k", 1)) == [fx.Append(("k", 1), 2, 2, 1)]


def test_the_table_is_rolled_back_with_the_log() -> None:
    """The entry was truncated before it was committed: the retry is appended, once."""
    c = led()
    c.propose(1, b"x", session=7, sequence=1)
    c.deliver()
    c.partition([1], [2, 3])
    c.propose(1, b"y", session=7, sequence=2)
    c.elect(2)
    c.heal()
    c.advance(300)
    assert c.payloads(1) == [b"x"]
    c.elect(1)
    (appended,) = answers(c.propose(1, b"y", session=7, sequence=2))
    assert isinstance(appended, fx.Append)
    assert c.payloads(1) == [b"x", b"y"]


def test_a_session_whose_every_append_was_truncated_is_new_again() -> None:
    """Its first request never took effect, so it may be sent again."""
    c = led()
    c.partition([1], [2, 3])
    c.propose(1, b"x", session=7, sequence=1)
    c.elect(2)
    c.heal()
    c.advance(300)
    c.elect(1)
    c.propose(1, b"x", session=7, sequence=1)
    assert c.payloads(1) == [b"x"]


def test_a_truncation_of_all_that_is_remembered_does_not_make_a_session_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five appends are remembered of a session; one older is committed, the latest five are truncated.

    The sixth is expected then, and the first, delivered late, is not appended again.
    """
    monkeypatch.setattr(summary, "RUNS_MAX", 5)
    c = led()
    c.propose(1, b"1", session=7, sequence=1)
    c.deliver()
    c.partition([1], [2, 3])
    for sequence in range(2, 7):
        c.propose(1, b"%d" % sequence, session=7, sequence=sequence)
    c.elect(2)
    c.heal()
    c.advance(300)
    c.elect(1)
    assert c.payloads(1) == [b"1"]
    assert c.propose(1, b"1", session=7, sequence=1, key=("late", 1)) == [fx.Append(("late", 1), 2, 2, 1)]
    c.propose(1, b"2", session=7, sequence=2)
    assert c.payloads(1) == [b"1", b"2"]


def test_what_is_remembered_no_longer_is_expired_not_appended() -> None:
    """64 appends are remembered of each session: an older one cannot be told from one that was lost."""
    c = led()
    for sequence in range(1, summary.RUNS_MAX + 2):
        c.propose(1, b"x", session=7, sequence=sequence)
    assert c.propose(1, b"x", session=7, sequence=1, key=("k", 1)) == [Refused(("k", 1), "expired")]
    (known,) = c.propose(1, b"x", session=7, sequence=2, key=("k", 2))
    assert isinstance(known, fx.Append)


def test_a_later_session_of_its_holder_ends_a_session() -> None:
    """What comes of it afterwards is refused, at a sequence number that is next too; another holder's goes on."""
    c = led()
    first, second = session_number(7, 0), session_number(7, 1)
    c.propose(1, b"x", session=first, sequence=1)
    c.propose(1, b"o", session=8, sequence=1)
    c.propose(1, b"y", session=second, sequence=1)
    for sequence in (1, 2):
        refused = c.propose(1, b"z", session=first, sequence=sequence, key=("k", sequence))
        assert refused == [Refused(("k", sequence), "expired")]
    c.propose(1, b"p", session=8, sequence=2)
    assert c.payloads(1)[-3:] == [b"o", b"y", b"p"]


def test_a_forgotten_session_cannot_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sessions are remembered; the fourth pushes out the one that appended least recently.

    Its first request comes again: it is refused, for it stands in the log. A new session, opened later, is taken.
    """
    monkeypatch.setattr(summary, "SESSIONS_MAX", 3)
    c = led()
    for session in (1, 2, 3):
        c.propose(1, b"%d" % session, session=session, sequence=1, opened_at=1)
    c.propose(1, b"1", session=1, sequence=2, opened_at=1)
    c.propose(1, b"4", session=4, sequence=1, opened_at=1)
    horizon = c.nodes[1].log.summary.sessions.horizon
    assert horizon == 3, "session 2's last entry"
    assert c.propose(1, b"2", session=2, sequence=1, opened_at=1, key=("k", 1)) == [
        Refused(("k", 1), "expired")
    ]
    assert c.propose(1, b"9", session=9, sequence=1, opened_at=2, key=("k", 2)) == [
        Refused(("k", 2), "expired")
    ]
    c.propose(1, b"5", session=5, sequence=1, opened_at=horizon)
    assert c.payloads(1)[-1] == b"5"


def test_overload_is_refused_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader takes no more than a bound beyond what is committed; what is committed makes room."""
    monkeypatch.setattr(proposals, "UNCOMMITTED_BYTES_MAX", 500)
    c = led()
    c.propose(1, b"x" * 300)
    assert c.propose(1, b"y" * 300, key=("k", 1)) == [Refused(("k", 1), "overloaded")]
    c.deliver()
    c.propose(1, b"y" * 300)
    assert c.payloads(1) == [b"x" * 300, b"y" * 300]
    assert UNCOMMITTED_BYTES_MAX == 64 << 20


# -- conditional appends


def test_a_condition_names_the_last_users_entry() -> None:
    """Not the no-op or a configuration behind it; (0, 0) while there is none."""
    c = led()
    assert len(chosen(c.propose(1, b"x", condition=(0, 0)), fx.Append)) == 1
    c.deliver()
    c.elect(2)
    c.elect(1)
    assert c.log(1)[-1].kind == 1
    (appended,) = chosen(c.propose(1, b"y", condition=(2, 1)), fx.Append)
    assert appended.first_index == 5
    assert len(chosen(c.propose(1, b"z", condition=(5, 3)), fx.Append)) == 1


def test_a_mismatch_is_told_only_once_it_is_certain() -> None:
    """The entry that the condition missed is uncommitted: the answer waits until that is committed and leadership confirmed."""
    c = led()
    c.propose(1, b"x")
    assert answers(c.propose(1, b"y", condition=(0, 0), key=("k", 1))) == []
    c.deliver(lambda e: isinstance(e.message, AppendEntries) and not e.message.batches)
    c.deliver(lambda e: isinstance(e.message, AppendAccepted) and e.message.match_index == 1)
    assert c.found(1, Refused) == [], "leadership is confirmed, the entry is not committed"
    c.deliver()
    assert c.found(1, Refused) == [Refused(("k", 1), "mismatch", 2, 1)]
    assert c.payloads(1) == [b"x"]


def test_a_mismatch_with_a_committed_entry_still_waits_for_leadership() -> None:
    """Another leader may have appended since: a leader that was cut off must not say what the last entry is."""
    c = led()
    c.propose(1, b"x")
    c.deliver()
    c.partition([1], [2, 3])
    c.propose(1, b"y", condition=(0, 0), key=("k", 1))
    c.deliver()
    assert c.found(1, Refused) == []
    c.elect(2)
    c.heal()
    c.advance(300)
    assert c.found(1, Refused) == [Refused(("k", 1), "not_leader")]


def test_a_mismatch_that_cannot_be_confirmed_is_no_mismatch() -> None:
    """The entry in the way was never committed, the leader lost its office: what is told is that alone."""
    c = led()
    c.partition([1], [2, 3])
    c.propose(1, b"x")
    c.propose(1, b"y", condition=(0, 0), key=("k", 1))
    c.advance(3_000)
    assert c.found(1, Refused) == [Refused(("k", 1), "not_leader")]


def test_a_mismatch_whose_leadership_is_confirmed_first_is_abandoned_with_it() -> None:
    """Confirmed, but not committed when the office is lost: not_leader, once."""
    c = led()
    c.propose(1, b"x")
    c.drop()
    c.propose(1, b"y", condition=(0, 0), key=("k", 1))
    c.deliver()
    assert len(c.leader(1).conditions) == 1
    c.partition([1], [2, 3])
    c.advance(3_000)
    assert c.found(1, Refused) == [Refused(("k", 1), "not_leader")]


def test_a_failed_condition_leaves_the_sequence_number_free() -> None:
    """Nothing was appended, so the next request has its number."""
    c = led()
    c.propose(1, b"x", session=7, sequence=1)
    c.propose(1, b"y", session=7, sequence=2, condition=(0, 0), key=("k", 1))
    c.deliver()
    assert c.found(1, Refused) == [Refused(("k", 1), "mismatch", 2, 1)]
    c.propose(1, b"z", session=7, sequence=2)
    assert c.payloads(1) == [b"x", b"z"]


def test_a_conditional_append_that_was_carried_out_is_recognised() -> None:
    """Its retry would fail its own condition: it is answered at its place instead."""
    c = led()
    c.propose(1, b"x", session=7, sequence=1, condition=(0, 0))
    effects = c.propose(1, b"x", session=7, sequence=1, condition=(0, 0), key=("k", 1))
    assert effects == [fx.Append(("k", 1), 2, 2, 1)]


def test_conditions_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commitment stalls while heartbeats are answered: failed conditions pile up no higher than the bound for reads."""
    monkeypatch.setattr(reads, "READS_WAITING_MAX", 3)
    c = led()
    c.propose(1, b"x")
    c.drop()
    for number in range(1, 6):
        c.propose(1, b"y", condition=(0, 0), key=("k", number))
        c.deliver(lambda e: not (isinstance(e.message, AppendEntries) and e.message.batches))
    leader = c.leader(1)
    assert len(leader.conditions) + len(leader.reads_waiting) == 3
    assert c.found(1, Refused) == [Refused(("k", 4), "overloaded"), Refused(("k", 5), "overloaded")]


def test_the_leaders_time_is_in_the_batch() -> None:
    """As it was given; the core has no clock of its own."""
    c = led()
    assert c.log(1)[0].leader_time_ns == 0
    c.step(1, ev.Proposed(("k", 1), 0, 0, 1, 0, join_payloads([b"x"]), leader_time_ns=5 * MS))
    assert c.log(1)[-1].leader_time_ns == 5 * MS
