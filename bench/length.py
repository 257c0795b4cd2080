"""What a long log costs: the rate of commits beyond it, and the time and memory that opening it takes.

    python -m bench.length [--entries 10000000]

The rate is that of a cluster of three over the channels, before and after the log has grown so long. Opening is that of one
node whose log has one entry in each batch. One JSON line a figure.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Final

from bench.cluster import Cluster, Worker, running
from bench.folders import scratch
from bench.options import options_of
from bench.processor import peak_memory_bytes
from totora import Settings
from totora.aio.opening import Opened, open_store
from totora.aio.real import real_ports
from totora.core.batch import Batch, Kind, join_payloads
from totora.core.effects import Persist
from totora.core.quorum import Configuration, Member
from totora.wire.entries import EntryCodec

__all__ = ["main"]

SHORT: Final = 10_000
ENTRY: Final = b"x" * 16
GROUP: Final = 1_000
"""Batches that are written and synced together."""


def rate(leader: Worker) -> float:
    """Entries a second, of requests of one entry: the median of five short runs."""
    load = {"payload_bytes": len(ENTRY), "entries": 1, "in_flight": 64}
    rates = [float(leader.ask("load", seconds=0.5, **load)["commits_per_s"]) for _ in range(5)]
    return statistics.median(rates)


def fill(leader: Worker, entries: int) -> None:
    while leader.ask("status")["last_index"] < entries:
        leader.ask("load", seconds=0.5, payload_bytes=len(ENTRY), entries=100, in_flight=256)


def rates(entries: int, folder: Path) -> None:
    with running(3, folder, channels=True) as cluster:
        leader = cluster.leader()
        before = rate(leader)
        entries_before = leader.ask("status")["last_index"]
        fill(leader, entries)
        after = rate(leader)
        memory = {id: peak_memory_bytes(worker.process.pid) for id, worker in cluster.workers.items()}
        tell(
            what="rate",
            entries_before=entries_before,
            entries=leader.ask("status")["last_index"],
            per_s_before=before,
            per_s=after,
            ratio=round(after / before, 3),
            peak_mib=[peak >> 20 for peak in memory.values()],
        )


def write(cluster: Cluster, entries: int, per_batch: int) -> None:
    """Put so many entries behind what the node has in its log."""
    members = (Member(id, host, port) for id, (host, port) in cluster.nodes.items())
    configuration = Configuration(tuple(members), frozenset(cluster.nodes))
    folder = cluster.folder
    assert folder is not None, "its log is on the disk"

    async def append() -> None:
        ports = real_ports(folder / "node1", None)
        opened: Opened = open_store(ports, 1, configuration, EntryCodec(bytes).fingerprint, Settings())
        index, term, sequence = opened.recovered.tail[-1].last_index, opened.recovered.tail[-1].term, 1
        body = join_payloads([ENTRY] * per_batch)
        for _ in range(entries // per_batch // GROUP):
            batches = []
            for _ in range(GROUP):
                batches.append(
                    Batch.build(
                        Kind.ENTRIES, term, index + 1, per_batch, body, session=1 << 40, sequence=sequence
                    )
                )
                index += per_batch
                sequence += per_batch
            opened.store.write([Persist(1, None, None, tuple(batches), index)])
        opened.close()
        ports.writer.close()
        ports.reader.close()

    asyncio.run(append())


def opening(entries: int, per_batch: int, folder: Path) -> None:
    cluster = Cluster(1, folder)
    try:
        cluster.start_all()
        cluster.leader()
        cluster.stop()
        write(cluster, entries, per_batch)
        began = time.perf_counter()
        cluster.start_all()
        elapsed_s = time.perf_counter() - began
        worker = cluster.workers[1]
        memory = peak_memory_bytes(worker.process.pid)
        last_index = cluster.leader().ask("status")["last_index"]
        tell(
            what="opening",
            entries=last_index,
            per_batch=per_batch,
            seconds=round(elapsed_s, 2),
            peak_mib=memory >> 20,
        )
    finally:
        cluster.stop()


def tell(**figures: object) -> None:
    print(json.dumps({"bench": "length", **figures}), flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, folder=True)
    parser.add_argument("--entries", type=int, default=10_000_000)
    options = parser.parse_args(arguments)
    if options.entries < SHORT:
        parser.error(f"--entries: at least {SHORT:,}, which it is compared with")
    for entries in (SHORT, options.entries):
        with scratch(options.folder) as folder:
            opening(entries, 1, folder)
    with scratch(options.folder) as folder:
        rates(options.entries, folder)


if __name__ == "__main__":
    main()
