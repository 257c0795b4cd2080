"""A world in memory on which the very same node runs: a clock that jumps, a network that delays, a disk that forgets.

Everything is deterministic: chance comes from one seed, time moves only when nothing is ready.

    from totora.sim import Cluster                     # script a scenario, call by call
    from totora.sim import Plan, simulate              # play one at random, with everything checked
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cluster import Cluster, Pending, ScriptError
    from .faults import FAULTS
    from .guard import NondeterminismError
    from .replicas import Divergence
    from .simulation import Plan, Report, Simulation, simulate
    from .specification import Violation
    from .world import Host, World

__all__ = [
    "FAULTS",
    "Cluster",
    "Divergence",
    "Host",
    "NondeterminismError",
    "Pending",
    "Plan",
    "Report",
    "ScriptError",
    "Simulation",
    "Violation",
    "World",
    "simulate",
]

_HOMES = {
    "FAULTS": "faults",
    "Cluster": "cluster",
    "Divergence": "replicas",
    "Host": "world",
    "NondeterminismError": "guard",
    "Pending": "cluster",
    "Plan": "simulation",
    "Report": "simulation",
    "ScriptError": "cluster",
    "Simulation": "simulation",
    "Violation": "specification",
    "World": "world",
    "simulate": "simulation",
}


def __getattr__(name: str) -> object:
    # The pytest plugin is imported by every run of pytest: what it needs is loaded by the tests that use it.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
