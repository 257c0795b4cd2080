"""PySyncObj on loopback: one process a node, driven from the leader's own process, which never syncs anything to its disk.

python -m bench.peers.pysyncobj SETUP    a node; `PySyncObj` starts these and tells them over stdin what to do
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from bench.floor import percentile
from bench.loads import Figure, Load
from bench.processor import forget_peaks, peak_mib, processor_s
from totora.cli.demo_cluster import free_addresses

__all__ = ["PySyncObj"]

Profile: TypeAlias = Literal["nobatch", "tuned"]

PROFILES: Final[dict[str, dict[str, object]]] = {
    "nobatch": {"appendEntriesUseBatch": False},
    "tuned": {"appendEntriesPeriod": 0.001, "autoTickPeriod": 0.001},
}
"""nobatch: its best with one request in flight. tuned: its best with many."""

ROOT: Final = Path(__file__).resolve().parent.parent.parent
START_S: Final = 20.0
SETTLE_S: Final = 0.7


class PySyncObj:
    """Three nodes in memory."""

    def __init__(self, profile: Profile, nodes: int = 3) -> None:
        self.profile = profile
        self.nodes = nodes
        self.name = f"PySyncObj ({profile})"
        missing = importlib.util.find_spec("pysyncobj") is None
        self.why_not = "pip install pysyncobj (`make bench` does)" if missing else ""

    @contextmanager
    def start(self, folder: Path) -> Generator[_Session]:
        addresses = [f"{host}:{port}" for host, port in free_addresses(self.nodes).values()]
        setups = [
            {"own": own, "others": [other for other in addresses if other != own], "profile": self.profile}
            for own in addresses
        ]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.peers.pysyncobj", json.dumps(setup)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for setup in setups
        ]
        try:
            yield _Session(processes)
        finally:
            for process in processes:
                process.kill()
                process.communicate()


class _Session:
    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes
        answers = [self._answer(process) for process in processes]
        self._leader = next(p for p, answer in zip(processes, answers, strict=True) if answer["leads"])

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None, "stdout is a pipe"
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"a node of PySyncObj ended with code {process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def measure(self, load: Load, seconds: float) -> Figure:
        if load.via != "node" or load.entries != 1:
            raise ValueError(f"PySyncObj is not driven by {load}")
        assert self._leader.stdin is not None, "stdin is a pipe"
        command = {
            "in_flight": load.in_flight,
            "payload_bytes": load.payload_bytes,
            "seconds": seconds,
        }
        ids = [process.pid for process in self._processes]
        forget_peaks(ids)
        before_s = processor_s(ids)
        self._leader.stdin.write(json.dumps(command) + "\n")
        self._leader.stdin.flush()
        answer = self._answer(self._leader)
        cpu_us = (processor_s(ids) - before_s) * 1e6 / max(1, answer["all"])
        return Figure(
            answer["per_s"],
            answer["p50_ms"],
            answer["p99_ms"],
            round(cpu_us, 2),
            answer["failed"],
            peak_mib(ids),
        )


# -- in a node's process


def _load(register: Any, success: object, command: dict[str, Any]) -> dict[str, float]:
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


def _main() -> None:
    setup = json.loads(sys.argv[1])
    library: Any = importlib.import_module("pysyncobj")

    class Register(library.SyncObj):  # type: ignore[misc]
        @library.replicated  # type: ignore[untyped-decorator]
        def put(self, value: str) -> None:
            self.value = value

    register: Any = Register(setup["own"], setup["others"], library.SyncObjConf(**PROFILES[setup["profile"]]))
    deadline = time.monotonic() + START_S
    while register._getLeader() is None or not register.isReady():
        if time.monotonic() > deadline:
            sys.exit("PySyncObj found no leader")
        time.sleep(0.01)
    time.sleep(SETTLE_S)
    print(json.dumps({"leads": bool(register._isLeader())}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_load(register, library.FAIL_REASON.SUCCESS, json.loads(line))), flush=True)


if __name__ == "__main__":
    _main()
