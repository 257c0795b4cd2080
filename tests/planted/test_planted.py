"""The catalogue: each bug can be planted, is named once, and is gone afterwards."""

from __future__ import annotations

import pytest

from tests.planted import BUGS, planted
from tests.planted.bug import broken
from totora.core import election
from totora.sim.simulation import Plan, simulate


def the_code(name: str) -> list[object]:
    return [getattr(function, "__func__", function).__code__ for function, _, _ in BUGS[name].mistakes]


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_planted_and_taken_back(name: str) -> None:
    before = the_code(name)
    with planted(name):
        assert all(code is not right for code, right in zip(the_code(name), before, strict=True))
    assert the_code(name) == before


def test_a_planted_bug_shows() -> None:
    """Some steps into the run, and no longer once it is taken back."""
    plan = Plan(seed=0, seconds=5)
    with planted("acknowledged_before_the_sync"):
        assert simulate(plan).broken == "Durability"
    assert simulate(plan).violation is None


def test_a_text_that_is_not_there_is_no_bug() -> None:
    """Whoever changes a function sees which bugs have lost their place in it."""
    with pytest.raises(AssertionError, match=r"says 'goto' 0 times"):
        broken(election.on_request_vote, "goto", "", "none")
