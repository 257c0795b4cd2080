"""From `kill -9` of the leader to the first entry committed at a survivor, default settings.

    python -m bench.failover [--trials 10]

Both survivors propose one entry after another, as clients would. The dead node is started again and catches up before the
next trial. One JSON line with all trials and their median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from bench.cluster import Cluster, running
from bench.folders import scratch

__all__ = ["main"]


def trial(cluster: Cluster) -> float:
    """Milliseconds."""
    leader = cluster.leader()
    term = leader.ask("status")["term"]
    survivors = [worker for worker in cluster.workers.values() if worker is not leader]
    for survivor in survivors:
        survivor.tell("first_of_term", term=term)
    time.sleep(0.3)  # the load is under way
    killed_ns = time.monotonic_ns()
    leader.kill()
    first_ns = min(int(survivor.answer()["at_ns"]) for survivor in survivors)
    leader.stop()
    cluster.start(leader.id).answer()
    return (first_ns - killed_ns) / 1e6


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the data (default: under build/)")
    options = parser.parse_args(arguments)
    with scratch(options.folder) as folder, running(options.nodes, folder) as cluster:
        trials = [round(trial(cluster), 1) for _ in range(options.trials)]
    print(
        json.dumps(
            {
                "bench": "failover",
                "nodes": options.nodes,
                "median_ms": round(statistics.median(trials), 1),
                "max_ms": max(trials),
                "trials_ms": trials,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
