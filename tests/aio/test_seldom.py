"""What happens often is let pass seldom, and remembering it is bounded."""

from __future__ import annotations

from totora.aio.seldom import CAUSES_MAX, Seldom


def test_each_cause_passes_once_per_interval() -> None:
    seldom = Seldom(every_ns=10)
    assert seldom.passes("a", 0)
    assert seldom.passes("b", 5)
    assert not seldom.passes("a", 9)
    assert seldom.passes("a", 10)
    assert not seldom.passes("b", 14)


def test_a_flood_of_causes_is_bounded_and_passes_again_when_it_is_old() -> None:
    """While the table is full of fresh causes a new one does not pass; a known one keeps its turn."""
    seldom = Seldom(every_ns=10)
    assert all(seldom.passes(cause, 0) for cause in range(CAUSES_MAX))
    assert not seldom.passes("one more", 9)
    assert len(seldom) == CAUSES_MAX
    assert seldom.passes("one more", 10)
    assert len(seldom) == 1
