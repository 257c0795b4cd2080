"""What the death of a leader costs, of totora and its peers, in turn: until a survivor answers, and until the node is back.

    python -m bench.failover [--trials 10]

Failover: from `kill -9` of the leader to the first request that a survivor carries out. Restart: from the start of the
killed node's process until it has itself answered a linearizable read of what was written while it was away. Milliseconds.
Each trial is a cluster of its own, the only one that runs. One JSON line a system; `ratio` is the median of the trials'
ratios to totora. A peer that is not installed is left out, and why is said.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import msgspec

from bench.folders import scratch
from bench.loads import System, present
from bench.options import options_of
from bench.own import Totora
from bench.peers.etcd import Etcd
from bench.peers.pysyncobj import PySyncObj

__all__ = ["main"]


class Trial(msgspec.Struct, frozen=True):
    """Milliseconds."""

    failover: float
    restart: float


def trial(system: System, folder: Path) -> Trial:
    with system.start(folder) as session:
        return Trial(session.fail_over(), session.restart())


def measure(systems: dict[str, System], count: int, folder: Path) -> dict[str, list[Trial]]:
    """Each system once, then each again."""
    trials: dict[str, list[Trial]] = {name: [] for name in systems}
    for n in range(count):
        for name, system in systems.items():
            print(f"trial {n + 1} of {count}: {name}", file=sys.stderr)
            place = folder / f"{n}-{name.replace(' ', '-')}"
            place.mkdir()
            trials[name].append(trial(system, place))
    return trials


def summary(trials: list[Trial], own: list[Trial]) -> dict[str, dict[str, object]]:
    """Of failover and restart; own: totora's trials, which those of the same number are compared with."""
    found: dict[str, dict[str, object]] = {}
    for what in ("failover", "restart"):
        times_ms = [getattr(each, what) for each in trials]
        ratios = [theirs / getattr(mine, what) for theirs, mine in zip(times_ms, own, strict=True)]
        found[what] = {
            "median_ms": round(statistics.median(times_ms), 1),
            "max_ms": round(max(times_ms), 1),
            "ratio": None if trials is own else round(statistics.median(ratios), 2),
            "trials_ms": [round(time_ms, 1) for time_ms in times_ms],
        }
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, folder=True)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=3)
    options = parser.parse_args(arguments)
    if options.trials < 1 or options.nodes < 3:
        parser.error("at least one trial, and three nodes, of which one may die")
    own = Totora(options.nodes)
    systems: list[System] = [own, PySyncObj("tuned", options.nodes), Etcd(options.nodes)]
    with scratch(options.folder) as folder:
        trials = measure(present({system.name: system for system in systems}), options.trials, folder)
    for name, of_system in trials.items():
        line = {"bench": "failover", "system": name, "nodes": options.nodes}
        print(json.dumps(line | summary(of_system, trials[own.name])), flush=True)


if __name__ == "__main__":
    main()
