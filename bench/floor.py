"""The floor under one durable commit on one machine: a loopback round trip plus a follower's fdatasync.

    python -m bench.floor [--seconds 1] [--nodes 3]

Three nodes share the disk, so the sync is measured with as many writers as there are nodes, into pre-written files.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.folders import scratch
from bench.options import options_of

__all__ = ["Floor", "measure", "percentile"]

_MESSAGE: Final = b"x" * 64
_BLOCK_BYTES: Final = 4096
_REGION_BYTES: Final = 16 << 20

_ECHO: Final = """
import socket, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := peer.recv(4096):
    peer.sendall(data)
"""


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """Medians, microseconds."""

    round_trip_us: float
    fdatasync_us: float
    floor_us: float


def percentile(ordered: list[float], fraction: float) -> float:
    """Of values in ascending order."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def round_trips_us(seconds: float) -> list[float]:
    """Ping-pong over TCP with another process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        echo = subprocess.Popen([sys.executable, "-S", "-c", _ECHO, str(listener.getsockname()[1])])
        connection, _ = listener.accept()
    samples: list[float] = []
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            connection.sendall(_MESSAGE)
            received = 0
            while received < len(_MESSAGE):
                received += len(connection.recv(len(_MESSAGE)))
            samples.append((time.perf_counter() - start) * 1e6)
    echo.wait()
    return samples


def syncs_us(seconds: float, writers: int, folder: Path) -> list[float]:
    """pwrite and fdatasync of one block each, in files that are filled with zeros; `writers` files at once."""
    samples: list[float] = []
    ready = threading.Barrier(writers)

    def write(path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            for offset in range(0, _REGION_BYTES, 1 << 20):
                os.pwrite(descriptor, bytes(1 << 20), offset)
            os.fsync(descriptor)
            block, offset = os.urandom(_BLOCK_BYTES), 0
            ready.wait()
            end = time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                os.pwrite(descriptor, block, offset)
                os.fdatasync(descriptor)
                samples.append((time.perf_counter() - start) * 1e6)
                offset = (offset + _BLOCK_BYTES) % _REGION_BYTES
        finally:
            os.close(descriptor)

    threads = [threading.Thread(target=write, args=(folder / f"floor{n}",)) for n in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return samples


def measure(seconds: float, nodes: int, folder: Path) -> Floor:
    """Both halves, `seconds` each; `folder` is on the disk to be measured."""
    trip = statistics.median(round_trips_us(seconds))
    sync = statistics.median(syncs_us(seconds, nodes, folder))
    return Floor(round_trip_us=round(trip, 1), fdatasync_us=round(sync, 1), floor_us=round(trip + sync, 1))


def main() -> None:
    parser = options_of(__doc__, folder=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--nodes", type=int, default=3)
    options = parser.parse_args()
    with scratch(options.folder) as folder:
        floor = measure(options.seconds, options.nodes, folder)
    print(json.dumps({"bench": "floor", "nodes": options.nodes, **msgspec.structs.asdict(floor)}), flush=True)


if __name__ == "__main__":
    main()
