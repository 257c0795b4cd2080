"""Small commits while batches of 8 MiB are on the same way, all the time: how long they wait, and whether anybody is voted out.

    python -m bench.large [--seconds 5] [--mib 8]

Default settings. One JSON line.
"""

from __future__ import annotations

import json

from bench.cluster import running
from bench.folders import scratch
from bench.options import options_of

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, folder=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--mib", type=int, default=8, help="of a batch")
    options = parser.parse_args(arguments)
    if not 1 <= options.mib <= 8 or options.seconds <= 0:
        parser.error("--mib: 1 to 8, the largest batch; --seconds: more than none")
    with scratch(options.folder) as folder, running(3, folder) as cluster:
        answer = cluster.leader().ask("beside_large", seconds=options.seconds, large_bytes=options.mib << 20)
    print(json.dumps({"bench": "large", "mib": options.mib, **answer}), flush=True)


if __name__ == "__main__":
    main()
