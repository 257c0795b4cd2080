"""A plan says all of a run: the same trace to the byte, in whatever process, under whatever PYTHONHASHSEED."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.levels import by_level
from totora.sim.simulation import WORKLOADS, Plan, Simulation, scheduled
from totora.sim.trace import Record, dump_record

ROOT = Path(__file__).parents[2]
SCRIPT = "import sys; from tests.sim.test_determinism import digest; print(digest(*sys.argv[1:]))"


def digest(transport: str, workload: str, seed: str) -> str:
    """The sha256 of the trace and of the report of one run, with faults of all kinds."""
    seen = hashlib.sha256()

    def record(what: Record) -> None:
        seen.update(dump_record(what) + b"\n")

    chosen: dict[str, Any] = {"transport": transport, "workload": workload}
    plan = Plan(seed=int(seed), seconds=by_level(quick=8, ci=30), size=3, **chosen)
    report = Simulation(plan, record=record).run()
    assert report.violation is None
    seen.update(repr(report).encode())
    return seen.hexdigest()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_trace_is_the_same_in_any_process(transport: str, workload: str) -> None:
    """Sets and dictionaries of strings have other orders there."""
    expected = digest(transport, workload, "7")
    assert digest(transport, workload, "8") != expected
    for hash_seed in by_level(quick=("4711",), ci=("0", "4711")):
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, transport, workload, "7"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout.strip() == expected


def test_a_schedule_depends_on_seed_length_and_kinds_alone() -> None:
    """Size, transport and rate change the run, not what goes wrong in it."""
    usual = scheduled(Plan(seed=7))
    assert scheduled(Plan(seed=7, size=5, transport="udp", rate_per_s=1)) == usual
    assert scheduled(Plan(seed=7, faults=tuple(reversed(Plan(seed=7).faults)))) == usual
    assert Simulation(Plan(seed=7, seconds=1), faults=()).run().injected == {}
    others = (Plan(seed=8), Plan(seed=7, seconds=70), Plan(seed=7, faults=("kill",)))
    assert all(scheduled(other) != usual for other in others)
