"""PySyncObj on loopback: one process a node, driven from the leader's own process, which never syncs anything to its disk.

python -m bench.peers.pysyncobj SETUP    a node; `PySyncObj` starts these and tells them over stdin what to do
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from bench.cluster import Answer, Worker
from bench.floor import percentile
from bench.loads import Figure, Load
from bench.peers import figure_of
from bench.processor import Spent
from totora.cli.demo_cluster import free_addresses

__all__ = ["PySyncObj"]

Profile: TypeAlias = Literal["nobatch", "tuned"]

PROFILES: Final[dict[str, dict[str, object]]] = {
    "nobatch": {"appendEntriesUseBatch": False},
    "tuned": {"appendEntriesPeriod": 0.001, "autoTickPeriod": 0.001},
}
"""nobatch: its best with one request in flight. tuned: its best with many."""

START_S: Final = 20.0
SETTLE_S: Final = 0.7

PUT_S: Final = 0.005
POLL_S: Final = 0.001
"""How often a client asks whose leader died, and how often a node that was started again looks at its own state."""

Command: TypeAlias = dict[str, Any]


class PySyncObj:
    """Three nodes in memory."""

    def __init__(self, profile: Profile, nodes: int = 3) -> None:
        self.profile: Profile = profile
        self.nodes = nodes
        self.name = f"PySyncObj ({profile})"
        missing = importlib.util.find_spec("pysyncobj") is None
        self.why_not = "pip install pysyncobj (`make bench` does)" if missing else ""

    @contextmanager
    def start(self, folder: Path) -> Generator[_Session]:
        addresses = [f"{host}:{port}" for host, port in free_addresses(self.nodes).values()]
        session = _Session(addresses, self.profile)
        try:
            session.start()
            yield session
        finally:
            session.stop()


class _Session:
    """Nodes by their address."""

    def __init__(self, addresses: list[str], profile: Profile) -> None:
        self._addresses = addresses
        self._profile = profile
        self._nodes: dict[str, Worker] = {}
        self._leader = ""

    def start(self) -> None:
        for address in self._addresses:
            self._start(address)
        for node in self._nodes.values():
            node.answer()
        self._leader = self._find_leader()
        time.sleep(SETTLE_S)

    def _start(self, own: str) -> Worker:
        others = [address for address in self._addresses if address != own]
        setup: dict[str, object] = {"own": own, "others": others, "profile": self._profile}
        self._nodes[own] = node = Worker(self._addresses.index(own) + 1, setup, __name__)
        return node

    def stop(self) -> None:
        for node in self._nodes.values():
            node.kill()
            node.stop()

    def _find_leader(self) -> str:
        """The leader's address, once all are ready and know it."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            statuses = [node.ask("status") for node in self._nodes.values()]
            leaders = {status["leader"] for status in statuses}
            if all(status["ready"] for status in statuses) and len(leaders) == 1:
                leader = str(leaders.pop())
                if leader in self._nodes:
                    return leader
            time.sleep(0.02)
        raise TimeoutError(f"PySyncObj found no leader within {START_S:.0f} s")

    def measure(self, load: Load, seconds: float) -> Figure:
        if load.via != "node" or load.entries != 1:
            raise ValueError(f"PySyncObj is not driven by {load}")
        fields = {"in_flight": load.in_flight, "payload_bytes": load.payload_bytes}
        spent = Spent(node.process.pid for node in self._nodes.values())
        answer = self._nodes[self._leader].ask("load", seconds=seconds, **fields)
        return figure_of(answer, spent)

    def fail_over(self) -> float:
        survivors = [node for address, node in self._nodes.items() if address != self._leader]
        killed = self._nodes[self._leader]
        killed_ns = time.monotonic_ns()
        killed.kill()
        for survivor in survivors:
            survivor.tell("first_put")
        first_ns = min(int(survivor.answer()["at_ns"]) for survivor in survivors)
        killed.stop()
        return (first_ns - killed_ns) / 1e6

    def restart(self) -> float:
        newest = str(time.monotonic_ns())
        survivor = next(node for address, node in self._nodes.items() if address != self._leader)
        survivor.ask("keep", value=newest)
        began_ns = time.monotonic_ns()
        restarted = self._start(self._leader)
        restarted.tell("first_shown", value=newest)
        restarted.answer()
        shown_ns = int(restarted.answer()["at_ns"])
        self._leader = self._find_leader()
        return (shown_ns - began_ns) / 1e6


# -- in a node's process


def _load(register: Any, success: object, command: Command) -> Answer:
    payload = "x" * command["payload_bytes"]
    latencies: list[float] = []
    clock = time.perf_counter
    begin = clock() + SETTLE_S
    end = begin + command["seconds"]
    counts = {"open": 0, "all": 0, "failed": 0}
    over = threading.Event()

    def submit() -> None:
        started = clock()
        counts["open"] += 1
        register.put(payload, callback=lambda _, error: finished(started, error))

    def finished(started: float, error: object) -> None:
        now = clock()
        counts["open"] -= 1
        if error != success:
            counts["failed"] += 1
        else:
            counts["all"] += 1
            if begin <= now <= end:
                latencies.append(now - started)
        if now < end:
            submit()
        elif not counts["open"]:
            over.set()

    for _ in range(command["in_flight"]):
        submit()
    over.wait(SETTLE_S + command["seconds"] + START_S)
    latencies.sort()
    return {
        "per_s": round(len(latencies) / command["seconds"]),
        "p50_ms": round(percentile(latencies, 0.5) * 1e3, 3),
        "p99_ms": round(percentile(latencies, 0.99) * 1e3, 3),
        "all": counts["all"],
        "failed": counts["failed"],
    }


def _first_put(register: Any, success: object, _: Command) -> Answer:
    """Put every PUT_S until one is done; when that was (CLOCK_MONOTONIC)."""
    done_ns: queue.SimpleQueue[int] = queue.SimpleQueue()

    def finished(_: object, error: object) -> None:
        if error == success:
            done_ns.put(time.monotonic_ns())

    while True:
        register.put("x", callback=finished)
        with suppress(queue.Empty):
            return {"at_ns": done_ns.get(timeout=PUT_S)}


def _keep(register: Any, _: object, command: Command) -> Answer:
    register.keep(command["value"], sync=True, timeout=START_S)
    return {}


def _first_shown(register: Any, _: object, command: Command) -> Answer:
    """When this node's own state machine has the value that was kept last (CLOCK_MONOTONIC)."""
    while register.kept != command["value"]:
        time.sleep(POLL_S)
    return {"at_ns": time.monotonic_ns()}


def _status(register: Any, _: object, __: Command) -> Answer:
    return {"leader": str(register._getLeader()), "ready": bool(register.isReady())}


DEEDS: Final = {
    "load": _load,
    "first_put": _first_put,
    "keep": _keep,
    "first_shown": _first_shown,
    "status": _status,
}


def _main() -> None:
    logging.disable()  # it warns of its own log all the time
    setup = json.loads(sys.argv[1])
    library: Any = importlib.import_module("pysyncobj")

    class Register(library.SyncObj):  # type: ignore[misc]
        kept = ""

        @library.replicated  # type: ignore[untyped-decorator]
        def put(self, value: str) -> None:
            self.value = value

        @library.replicated  # type: ignore[untyped-decorator]
        def keep(self, value: str) -> None:
            self.kept = value

    register: Any = Register(setup["own"], setup["others"], library.SyncObjConf(**PROFILES[setup["profile"]]))
    print(json.dumps({"started": setup["own"]}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer = DEEDS[command["do"]](register, library.FAIL_REASON.SUCCESS, command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
