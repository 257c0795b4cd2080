"""How much faster than real time does a simulated cluster run, under all faults and all checks?

    python -m bench.simulation [--seeds 0:8] [--seconds 300] [--size 3] [--rate 5]

One JSON line. `times_real`: simulated seconds a second of one core. `shares`: whose code that core runs, from a second, profiled
run of the first seed.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
import time
from collections import Counter
from pathlib import PurePath
from typing import Any, Final

from bench.options import options_of
from totora.sim.simulation import Plan, Simulation

__all__ = ["main"]

CHECKS: Final = {
    "specification",
    "recorder",
    "trace",
    "linearizability",
    "history",
    "log_workload",
    "kv_workload",
}
"""Modules of `totora.sim` that watch the nodes; the rest of it is their world."""


def main(arguments: list[str] | None = None) -> int:
    parser = options_of(__doc__)
    parser.add_argument("--seeds", default="0:8", help="from:to")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--size", type=int, default=3)
    parser.add_argument("--rate", type=float, default=5.0, help="operations a second")
    options = parser.parse_args(arguments)
    first, last = map(int, options.seeds.split(":"))
    plans = [
        Plan(seed=seed, seconds=options.seconds, size=options.size, rate_per_s=options.rate)
        for seed in range(first, last)
    ]
    simulated_s, processor_s, events, steps, violations = 0.0, 0.0, 0, 0, []
    for plan in plans:
        simulation = Simulation(plan)
        began = time.process_time()
        report = simulation.run()
        processor_s += time.process_time() - began
        simulated_s += report.simulated_s
        events += simulation.world.loop.events
        steps += report.steps
        if report.violation is not None:
            violations.append((plan.seed, report.violation))
    figure = {
        "bench": "simulation",
        "nodes": options.size,
        "rate_per_s": options.rate,
        "seeds": len(plans),
        "simulated_s": round(simulated_s),
        "times_real": round(simulated_s / processor_s, 1),
        "events_per_s": round(events / processor_s),
        "steps_per_s": round(steps / processor_s),
        "us_per_event": round(processor_s / events * 1e6, 1),
        "violations": violations,
        "shares": _shares(plans[0]),
    }
    print(json.dumps(figure), flush=True)
    return 1 if violations else 0


def _shares(plan: Plan) -> dict[str, float]:
    """The share of each layer of the package, largest first. What is built in counts for who calls it."""
    simulation = Simulation(plan)
    profile = cProfile.Profile()
    profile.runcall(simulation.run)
    stats: Any = pstats.Stats(profile)
    spent: Counter[str] = Counter()
    for (file, _, _), (_, _, own_s, _, callers) in stats.stats.items():
        if file.startswith("~"):
            for (caller, _, _), (_, _, part_s, _) in callers.items():
                spent[_layer(caller)] += part_s
        else:
            spent[_layer(file)] += own_s
    total = sum(spent.values())
    return {layer: round(part_s / total, 3) for layer, part_s in spent.most_common()}


def _layer(file: str) -> str:
    parts = PurePath(file).parts
    if "totora" not in parts:
        return "python"
    inside = parts[len(parts) - parts[::-1].index("totora") :]
    layer = inside[0].removesuffix(".py")
    if layer != "sim":
        return layer
    return "sim: checks" if inside[1].removesuffix(".py") in CHECKS else "sim: world"


if __name__ == "__main__":
    sys.exit(main())
