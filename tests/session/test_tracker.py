"""From a proposal's place in the log to its answer."""

from __future__ import annotations

from totora.session.tracker import CommitTracker


def test_answers_come_in_the_order_of_the_log_once_committed() -> None:
    tracker: CommitTracker[str] = CommitTracker()
    tracker.appended("a", 2, 3, 1)
    tracker.appended("b", 4, 4, 1)
    tracker.appended("c", 5, 9, 2)
    assert tracker.committed(1) == []
    assert tracker.committed(3) == [("a", 2, 3, 1)]
    assert tracker.committed(8) == [("b", 4, 4, 1)], "a batch is committed with its last entry"
    assert tracker.committed(9) == [("c", 5, 9, 2)]
    assert tracker.committed(99) == []


def test_a_retry_of_what_was_appended_earlier_is_answered_in_its_place() -> None:
    """The place of a retry lies before the latest: it must not wait behind it, and both copies are answered."""
    tracker: CommitTracker[str] = CommitTracker()
    tracker.appended("late", 7, 9, 2)
    tracker.appended("retry of a", 2, 3, 1)
    tracker.appended("again", 2, 3, 1)
    tracker.appended("b", 4, 4, 1)
    assert tracker.committed(3) == [("retry of a", 2, 3, 1), ("again", 2, 3, 1)]
    assert tracker.committed(9) == [("b", 4, 4, 1), ("late", 7, 9, 2)]


def test_lost_leadership_takes_out_everything() -> None:
    tracker: CommitTracker[str] = CommitTracker()
    assert tracker.abandon() == []
    tracker.appended("a", 2, 2, 1)
    tracker.appended("b", 3, 3, 1)
    assert tracker.abandon() == ["a", "b"]
    assert tracker.committed(9) == []
