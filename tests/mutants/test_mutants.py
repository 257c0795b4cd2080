"""Random runs catch the planted bugs; the sound node plays the seeds that catch well."""

from __future__ import annotations

import statistics
from typing import Final

import pytest

from tests.levels import by_level
from tests.mutants.hunt import Catch, hunt, plan_of
from tests.mutants.page import PAGE_FILE, known, page
from tests.planted import LIKELY
from totora.sim.simulation import simulate

# A run that is ended in the middle leaves coroutines that nobody awaits any more.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KNOWN: Final = {catch.name: catch for catch in known()}
CAUGHT: Final = sorted((c for c in KNOWN.values() if c.seed is not None), key=lambda catch: catch.simulated_s)
SOON: Final = CAUGHT[:6]


@pytest.mark.parametrize(
    "catch", by_level(quick=SOON, ci=[c for c in CAUGHT if c.seeds <= 12]), ids=lambda catch: catch.name
)
def test_a_planted_bug_is_caught_by_random_runs(catch: Catch) -> None:
    """About as soon as ever: whatever changes in a node or in the simulator makes other runs of the same seeds."""
    assert hunt(catch.name, range(10 + 5 * catch.seeds)).seed is not None


def test_the_seeds_that_catch_show_nothing_without_a_bug() -> None:
    for seed in sorted({catch.seed for catch in CAUGHT if catch.seed is not None}):
        assert simulate(plan_of(seed)).violation is None


def test_all_bugs_are_known_to_be_caught() -> None:
    assert [catch.name for catch in known()] == list(LIKELY)
    assert len(CAUGHT) == len(LIKELY) >= 30
    counts = [catch.seeds for catch in CAUGHT]
    assert max(counts) <= 500
    assert statistics.median(counts) < 50


def test_the_page_tells_of_every_bug_what_came_of_it() -> None:
    assert PAGE_FILE.read_text() == page(known())
