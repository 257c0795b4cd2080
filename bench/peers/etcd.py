"""etcd on loopback with its defaults, which sync every write; driven by a Go client in a process of its own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.loads import Figure, Load
from bench.processor import forget_peaks, peak_mib, processor_s
from totora.cli.demo_cluster import free_addresses

__all__ = ["Etcd"]

SOURCE: Final = Path(__file__).parent / "etcd_load"
PACKAGES: Final = Path("/usr/share/gocode")
START_S: Final = 30.0
CONNECTIONS_MAX: Final = 16


def _generator() -> Path:
    """The load generator, built if it is not there."""
    built = SOURCE.parent.parent.parent / "build" / "etcd_load"
    if not built.exists():
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(PACKAGES), "GOFLAGS": ""}
        subprocess.run(["go", "build", "-o", str(built), "main.go"], cwd=SOURCE, env=environment, check=True)
    return built


class Etcd:
    """Three members, data on disk."""

    name = "etcd"

    def __init__(self, nodes: int = 3) -> None:
        self.nodes = nodes
        here = shutil.which("etcd") and shutil.which("go") and (PACKAGES / "src/go.etcd.io/etcd").exists()
        self.why_not = "" if here else "apt-get install etcd-server golang-go golang-etcd-server-dev"

    @contextmanager
    def start(self, folder: Path) -> Generator[_Session]:
        addresses = [f"http://{host}:{port}" for host, port in free_addresses(2 * self.nodes).values()]
        clients, peers = addresses[: self.nodes], addresses[self.nodes :]
        members = ",".join(f"m{n}={peer}" for n, peer in enumerate(peers))
        processes = [
            subprocess.Popen(
                [
                    "etcd",
                    *("--name", f"m{n}", "--data-dir", str(folder / f"m{n}")),
                    *("--listen-client-urls", clients[n], "--advertise-client-urls", clients[n]),
                    *("--listen-peer-urls", peers[n], "--initial-advertise-peer-urls", peers[n]),
                    *("--initial-cluster", members, "--initial-cluster-token", folder.name),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for n in range(self.nodes)
        ]
        try:
            yield _Session(processes, clients)
        finally:
            for process in processes:
                process.kill()
                process.wait()


class _Session:
    def __init__(self, processes: list[subprocess.Popen[bytes]], clients: list[str]) -> None:
        self._ids = [process.pid for process in processes]
        self._leader = self._started(clients)

    def _started(self, clients: list[str]) -> str:
        """The leader's address, once it takes writes."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            for client in clients:
                try:
                    status = _post(client, "/v3/maintenance/status", {})
                    if status.get("leader") == status["header"]["member_id"]:
                        ready = base64.b64encode(b"ready").decode()
                        _post(client, "/v3/kv/put", {"key": ready, "value": ready})
                        time.sleep(1.0)  # its members still talk about their versions
                        return client
                except (urllib.error.URLError, OSError, KeyError):
                    continue
            time.sleep(0.1)
        raise RuntimeError(f"etcd did not start within {START_S:.0f} s")

    def measure(self, load: Load, seconds: float) -> Figure:
        if load.via not in ("client", "reads") or load.entries != 1:
            raise ValueError(f"etcd is not driven by {load}")
        command = [str(_generator()), "-endpoint", self._leader.removeprefix("http://")]
        command += ["-op", "range" if load.via == "reads" else "put", "-clients", str(load.in_flight)]
        command += ["-connections", str(min(CONNECTIONS_MAX, max(1, load.in_flight // 8)))]
        command += ["-payload", str(load.payload_bytes), "-seconds", str(seconds)]
        forget_peaks(self._ids)
        before_s = processor_s(self._ids)
        answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        cpu_us = (processor_s(self._ids) - before_s) * 1e6 / max(1, answer["all"])
        return Figure(
            answer["per_s"],
            answer["p50_ms"],
            answer["p99_ms"],
            round(cpu_us, 2),
            answer["failed"],
            peak_mib(self._ids),
        )


def _post(client: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(client + path, data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=2.0) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
