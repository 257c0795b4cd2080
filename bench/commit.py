"""Durable commits per second: node processes on loopback, a closed loop in the leader's process.

    python -m bench.commit --in-flight 1,64,1024 --payload 16,256 --seconds 2.5 [--nodes 1,3,5]

One JSON line a figure. `floor_us` is a loopback round trip plus an fdatasync with as many writers as nodes, of the same
run, before and after it; `p50_to_floor` is the ratio that travels from machine to machine. `cpu_us` is processor time of
all nodes for each commit, `cpu_us_a_node` its share of one node; `peak_mib` the most that any node had in memory.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from bench import floor
from bench.cluster import running
from bench.folders import scratch
from bench.options import numbers, options_of
from bench.processor import Spent

__all__ = ["main", "measure"]


def measure(
    in_flights: list[int],
    payloads: list[int],
    seconds: float,
    nodes: int,
    folder: Path,
    *,
    volatile: bool = False,
    profile: Path | None = None,
) -> list[dict[str, object]]:
    """The figures, one dict each."""
    floor_s = min(1.0, seconds / 2)
    floors = [floor.measure(floor_s, nodes, folder)]
    figures: list[dict[str, object]] = []
    with running(nodes, None if volatile else folder) as cluster:
        leader = cluster.leader()
        for payload_bytes in payloads:
            for in_flight in in_flights:
                fields = {"payload_bytes": payload_bytes, "in_flight": in_flight}
                leader.ask("load", seconds=min(0.5, seconds / 4), **fields)  # warm
                target = str(profile / f"{nodes}-{payload_bytes}B-{in_flight}.prof") if profile else None
                spent = Spent(worker.process.pid for worker in cluster.workers.values())
                answer = leader.ask("load", seconds=seconds, profile=target, **fields)
                cpu_us = spent.cpu_us(answer["commits"])
                figures.append(
                    {
                        "bench": "commit",
                        "nodes": nodes,
                        "durable": not volatile,
                        **fields,
                        **answer,
                        "cpu_us": cpu_us,
                        "cpu_us_a_node": round(cpu_us / nodes, 2),
                        "peak_mib": spent.peak_mib,
                    }
                )
    floors.append(floor.measure(floor_s, nodes, folder))
    floor_us = round(statistics.mean(each.floor_us for each in floors), 1)
    for figure in figures:
        p50_ms = figure["p50_ms"]
        ratio = round(p50_ms * 1e3 / floor_us, 2) if isinstance(p50_ms, float) else None
        figure |= {"floor_us": floor_us, "p50_to_floor": ratio}
    return figures


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, folder=True)
    parser.add_argument("--in-flight", type=numbers, default=[1, 64, 1024])
    parser.add_argument("--payload", type=numbers, default=[16, 256], help="bytes of an entry")
    parser.add_argument("--seconds", type=float, default=2.5, help="of each figure")
    parser.add_argument("--nodes", type=numbers, default=[3], help="of each cluster")
    parser.add_argument("--volatile", action="store_true", help="without disks: what the rest costs")
    parser.add_argument(
        "--profile", type=Path, help="a folder for cProfile's files, one a figure (slows the run)"
    )
    options = parser.parse_args(arguments)
    if options.profile:
        options.profile = options.profile.resolve()
        options.profile.mkdir(parents=True, exist_ok=True)
    for nodes in options.nodes:
        with scratch(options.folder) as folder:
            figures = measure(
                options.in_flight,
                options.payload,
                options.seconds,
                nodes,
                folder,
                volatile=options.volatile,
                profile=options.profile,
            )
        for figure in figures:
            print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
