"""totora, measured: in the leader's process, as requests of many entries, and from a client process over TCP."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.checks import require_all
from bench.cluster import Cluster, Worker, running
from bench.loads import Figure, Load
from bench.processor import Spent

__all__ = ["Totora"]

WARM_S: Final = 0.7
BEFORE_KILL_S: Final = 0.3
"""How long the survivors are asked before the leader dies."""


class Totora:
    """Nodes with their data on disk, default settings but for the transport.

    loss: the share of datagrams between nodes that is dropped; then a load must lose nothing all the same.
    """

    why_not = ""

    def __init__(
        self, nodes: int = 3, transport: str = "tcp", *, channels: bool = False, loss: float = 0.0
    ) -> None:
        self.nodes = nodes
        self.transport = transport
        self.channels = channels
        self.loss = loss
        self.name = "totora" if transport == "tcp" else f"totora ({transport})"

    @contextmanager
    def start(self, folder: Path) -> Generator[_Session]:
        with running(
            self.nodes, folder, transport=self.transport, channels=self.channels, loss=self.loss
        ) as cluster:
            yield _Session(cluster)


class _Session:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._leader = cluster.leader()

    def measure(self, load: Load, seconds: float) -> Figure:
        if load.via not in ("client", "reads"):
            return self._measure(self._leader, load, seconds)
        client = self.cluster.client(self._leader.id)
        try:
            client.answer()
            return self._measure(client, load, seconds)
        finally:
            client.stop()

    def fail_over(self) -> float:
        term = self._leader.ask("status")["term"]
        survivors = [worker for worker in self.cluster.workers.values() if worker is not self._leader]
        for survivor in survivors:
            survivor.tell("first_of_term", term=term)
        time.sleep(BEFORE_KILL_S)
        killed_ns = time.monotonic_ns()
        self._leader.kill()
        first_ns = min(int(survivor.answer()["at_ns"]) for survivor in survivors)
        self._leader.stop()
        return (first_ns - killed_ns) / 1e6

    def restart(self) -> float:
        killed = self._leader
        survivor = next(worker for worker in self.cluster.workers.values() if worker is not killed)
        newest = survivor.ask("first_of_term", term=0)["index"]
        began_ns = time.monotonic_ns()
        restarted = self.cluster.start(killed.id)
        restarted.tell("first_read", index=newest)
        restarted.answer()
        read_ns = int(restarted.answer()["at_ns"])
        self._leader = self.cluster.leader()
        return (read_ns - began_ns) / 1e6

    def _measure(self, driver: Worker, load: Load, seconds: float) -> Figure:
        fields = {
            "via": load.via,
            "payload_bytes": load.payload_bytes,
            "in_flight": load.in_flight,
            "entries": load.entries,
        }
        driver.ask("load", seconds=WARM_S, **fields)
        before = self.cluster.leader().ask("status") if self.cluster.loss else None
        spent = Spent(worker.process.pid for worker in self.cluster.workers.values())
        answer = driver.ask("load", seconds=seconds, **fields)
        cpu_us, memory_mib = spent.cpu_us(answer["commits"]), spent.peak_mib
        if before:
            require_all(self.cluster, before, answer)
        return Figure(
            answer["commits_per_s"],
            answer["p50_ms"] or 0.0,
            answer["p99_ms"] or 0.0,
            cpu_us,
            answer["failures"],
            memory_mib,
        )
