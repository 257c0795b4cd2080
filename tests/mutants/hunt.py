"""The hunt: random runs with a bug planted, seed after seed, until one does not end well.

Whatever ends a run otherwise than well is a catch: a step that the specification does not allow, an answer that the log refutes,
machines that differ, a node that stops by itself or does not start again, a cluster that does not come right in its time.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from typing import Final

import msgspec

from tests.planted import planted
from totora.sim.simulation import Plan, simulate

__all__ = ["SEEDS_MAX", "Catch", "hunt", "plan_of"]

SEEDS_MAX: Final = 500


class Catch(msgspec.Struct, frozen=True, kw_only=True):
    """What a hunt came to.

    seed: the first that catches the bug; None: none does. seeds: how many were played, the catch included.
    broken: the property that broke.
    """

    name: str
    seed: int | None
    seeds: int
    simulated_s: float
    real_s: float = 0.0
    broken: str | None


def plan_of(seed: int) -> Plan:
    """Even seeds append to the log, odd ones use the machine of keys and values."""
    return Plan(seed=seed, workload="kv" if seed % 2 else "log")


def hunt(name: str, seeds: Iterable[int] = range(SEEDS_MAX)) -> Catch:
    """Play until the first catch, a run that ends well without the bug; fit for any `concurrent.futures.Executor`."""
    began_s = time.perf_counter()
    simulated_s, count = 0.0, 0
    caught: int | None = None
    broken: str | None = None
    # A run that is ended in the middle leaves coroutines that nobody awaits any more.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    for seed in seeds:
        with planted(name):
            report = simulate(plan_of(seed))
        simulated_s += report.simulated_s
        count += 1
        # A run that does not end well without the bug either says nothing about it.
        if report.broken is not None and simulate(plan_of(seed)).broken is None:
            caught, broken = seed, report.broken
            break
    return Catch(
        name=name,
        seed=caught,
        seeds=count,
        simulated_s=round(simulated_s, 1),
        real_s=round(time.perf_counter() - began_s, 1),
        broken=broken,
    )
