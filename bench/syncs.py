"""What a sync costs behind groups of different sizes, in a file that was filled before and in one that only has its room.

    python -m bench.syncs [--writers 3]

As many writers at once as there are nodes on this disk. One JSON line a figure: the median of all writers.
"""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Final

from bench.folders import scratch
from bench.options import options_of
from totora.aio.disk import RealFile

__all__ = ["main"]

SIZES: Final = (512, 16 << 10, 64 << 10, 256 << 10)
FILE_BYTES: Final = 32 << 20
GROUPS_MAX: Final = 1_000


def write(path: Path, size_bytes: int, filled: bool, ready: threading.Barrier) -> list[float]:
    """Microseconds of each write with its sync."""
    file = RealFile(os.open(path, os.O_RDWR | os.O_CREAT))
    group, took_us = os.urandom(size_bytes), []
    if filled:
        file.pwrite([bytes(FILE_BYTES)], 0)
    else:
        file.allocate(FILE_BYTES)
    file.sync()
    ready.wait()
    for offset in range(0, min(FILE_BYTES, GROUPS_MAX * size_bytes), size_bytes):
        began = time.perf_counter()
        file.pwrite([group], offset)
        file.sync()
        took_us.append((time.perf_counter() - began) * 1e6)
    file.close()
    return took_us


def measure(folder: Path, writers: int, size_bytes: int, filled: bool) -> float:
    ready = threading.Barrier(writers)
    took_us: list[float] = []

    def run(number: int) -> None:
        took_us.extend(write(folder / f"{size_bytes}-{filled}-{number}", size_bytes, filled, ready))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.median(took_us)


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, folder=True)
    parser.add_argument("--writers", type=int, default=3)
    options = parser.parse_args(arguments)
    if not 1 <= options.writers <= 100:
        parser.error("--writers: 1 to 100")
    with scratch(options.folder) as folder:
        for size_bytes in SIZES:
            filled_us, room_us = (
                measure(folder, options.writers, size_bytes, filled) for filled in (True, False)
            )
            line = {"group_bytes": size_bytes, "filled_us": round(filled_us), "room_only_us": round(room_us)}
            print(json.dumps({"bench": "syncs", "writers": options.writers, **line}), flush=True)


if __name__ == "__main__":
    main()
