"""Random runs: crashes, partitions, held disks, lost, doubled and reordered messages, retries, conditions, reads.

The harness checks the five properties of Figure 3, durability before speech and the floor of reads at every step; the run
checks each request's outcome and convergence at its end (tests/core/runs.py). A seed that fails replays to the byte.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.runs import Run, digest
from tests.levels import by_level
from totora.core import log, progress, replication, summary

STEPS = 300
BLOCK = 25
SEEDS = range(by_level(quick=200, ci=800))
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("first", SEEDS[::BLOCK])
def test_all_properties_hold_in_random_runs(first: int) -> None:
    """The named limits as they are."""
    for seed in range(first, first + BLOCK):
        Run(seed).go(STEPS)


@pytest.mark.parametrize("first", SEEDS[::BLOCK])
def test_all_properties_hold_in_random_runs_within_narrow_limits(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tails, messages and windows so small that storage is read and windows close; sessions are forgotten all the time."""
    monkeypatch.setattr(log, "TAIL_BYTES_MAX", 1_000)
    monkeypatch.setattr(replication, "APPEND_BYTES_MAX", 400)
    monkeypatch.setattr(progress, "IN_FLIGHT_MESSAGES_MAX", 3)
    monkeypatch.setattr(summary, "RUNS_MAX", 4)
    monkeypatch.setattr(summary, "SESSIONS_MAX", 3)
    for seed in range(first, first + BLOCK):
        Run(1_000_000 + seed).go(STEPS)


# -- determinism


def test_the_same_seed_gives_the_same_effects() -> None:
    """Twice in this process: every effect, and the bytes of every batch."""
    for seed in range(5):
        assert digest(seed) == digest(seed)
    assert digest(1) != digest(2)


def test_the_same_seed_gives_the_same_effects_under_another_hash_seed() -> None:
    """In other processes, where sets and dictionaries of strings have other orders."""
    for seed, hash_seed in ((3, "1"), (3, "4711"), (8, "0")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        ended = subprocess.run(
            [sys.executable, "-m", "tests.core.runs", str(seed)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout == digest(seed)
