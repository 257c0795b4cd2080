"""What many clients cost: processes that propose over TCP to the leader, each with some requests in flight.

    python -m bench.clients [--clients 1,2,4,8,16] [--in-flight 16] [--payload 256]

One JSON line a number of clients. All share the machine's cores with the nodes.
"""

from __future__ import annotations

import json

from bench.cluster import Worker, running
from bench.folders import scratch
from bench.options import numbers, options_of

__all__ = ["main"]

WARM_S = 0.5


def together(
    clients: list[Worker], seconds: float, in_flight: int, payload_bytes: int
) -> list[dict[str, float]]:
    for client in clients:
        client.tell("load", seconds=seconds, in_flight=in_flight, payload_bytes=payload_bytes)
    return [client.answer() for client in clients]


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, folder=True)
    parser.add_argument("--clients", type=numbers, default=[1, 2, 4, 8, 16])
    parser.add_argument("--in-flight", type=int, default=16, help="of each client")
    parser.add_argument("--payload", type=int, default=256, help="bytes of an entry")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args(arguments)
    with scratch(options.folder) as folder, running(3, folder) as cluster:
        leader = cluster.leader()
        for count in options.clients:
            clients = [cluster.client(leader.id) for _ in range(count)]
            try:
                for client in clients:
                    client.answer()
                together(clients, WARM_S, options.in_flight, options.payload)
                answers = together(clients, options.seconds, options.in_flight, options.payload)
            finally:
                for client in clients:
                    client.stop()
            print(
                json.dumps(
                    {
                        "bench": "clients",
                        "clients": count,
                        "in_flight": options.in_flight,
                        "payload_bytes": options.payload,
                        "commits_per_s": round(sum(answer["commits_per_s"] for answer in answers)),
                        "p50_ms": max(answer["p50_ms"] for answer in answers),
                        "p99_ms": max(answer["p99_ms"] for answer in answers),
                        "failures": sum(answer["failures"] for answer in answers),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
