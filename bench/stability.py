"""Does a leader stay under full load? Elections after the first one must be 0.

    python -m bench.stability [--minutes 10] [--in-flight 1024] [--payload 16]

A progress line every ten seconds on stderr, one JSON line at the end; exit code 1 if anyone else was elected.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Final

from bench.cluster import running
from bench.folders import scratch
from bench.options import options_of

__all__ = ["main"]

SLICE_S: Final = 10.0


def main(arguments: list[str] | None = None) -> int:
    parser = options_of(__doc__, folder=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--in-flight", type=int, default=1024)
    parser.add_argument("--payload", type=int, default=16)
    parser.add_argument("--nodes", type=int, default=3)
    options = parser.parse_args(arguments)
    rates: list[int] = []
    failures, slowest_ms = 0, 0.0
    with scratch(options.folder) as folder, running(options.nodes, folder) as cluster:
        leader = cluster.leader()
        first_term = leader.ask("status")["term"]
        end = time.monotonic() + options.minutes * 60
        while (left := end - time.monotonic()) > 0:
            answer = leader.ask(
                "load",
                seconds=min(SLICE_S, left),
                in_flight=options.in_flight,
                payload_bytes=options.payload,
            )
            rates.append(answer["commits_per_s"])
            failures += answer["failures"]
            slowest_ms = max(slowest_ms, answer["p99_ms"] or 0.0)
            term = leader.ask("status")["term"]
            print(
                f"{left:5.0f} s left, {rates[-1]:,}/s, term {term}, {failures} failed",
                file=sys.stderr,
                flush=True,
            )
        statuses = {id: worker.ask("status") for id, worker in cluster.workers.items()}
    elections = max(status["term"] for status in statuses.values()) - first_term
    figure = {
        "bench": "stability",
        "minutes": options.minutes,
        "nodes": options.nodes,
        "in_flight": options.in_flight,
        "payload_bytes": options.payload,
        "elections": elections,
        "failures": failures,
        "commits_per_s": round(statistics.mean(rates)),
        "commits_per_s_min": min(rates),
        "worst_p99_ms": slowest_ms,
    }
    print(json.dumps(figure), flush=True)
    return 1 if elections or failures else 0


if __name__ == "__main__":
    sys.exit(main())
