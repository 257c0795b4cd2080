"""etcd on loopback with its defaults, which sync every write; driven by a Go client in a process of its own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.loads import Figure, Load
from bench.peers import figure_of
from bench.processor import Spent
from totora.cli.demo_cluster import free_addresses

__all__ = ["Etcd"]

SOURCE: Final = Path(__file__).parent / "etcd_load"
PACKAGES: Final = Path("/usr/share/gocode")
ANSWER_S: Final = 30.0
CONNECTIONS_MAX: Final = 16

KEY: Final = base64.b64encode(b"ready").decode()
"""Which the load generator reads, too."""

REQUEST_S: Final = 0.2
PAUSE_S: Final = 0.005
"""How long a request may take, and a pause before the next one."""

Found = TypeVar("Found")


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
        session = _Session(self._commands(folder))
        try:
            session.start()
            yield session
        finally:
            session.stop()

    def _commands(self, folder: Path) -> dict[str, list[str]]:
        """How each member is started, by the address that its clients use."""
        addresses = [f"http://{host}:{port}" for host, port in free_addresses(2 * self.nodes).values()]
        clients, peers = addresses[: self.nodes], addresses[self.nodes :]
        members = ",".join(f"m{n}={peer}" for n, peer in enumerate(peers))
        return {
            client: [
                "etcd",
                *("--name", f"m{n}", "--data-dir", str(folder / f"m{n}")),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", members, "--initial-cluster-token", folder.name),
            ]
            for n, (client, peer) in enumerate(zip(clients, peers, strict=True))
        }


class _Session:
    """Members by the address that their clients use."""

    def __init__(self, commands: dict[str, list[str]]) -> None:
        self._commands = commands
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._leader = ""

    def start(self) -> None:
        for member in self._commands:
            self._start(member)
        self._leader = _until(self._find_leader)
        time.sleep(1.0)  # its members still talk about their versions

    def _start(self, member: str) -> None:
        self._processes[member] = subprocess.Popen(
            self._commands[member], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _find_leader(self) -> str | None:
        """One that says it leads, and takes a write."""
        for member in self._commands:
            status = _post(member, "/v3/maintenance/status", {})
            if status.get("leader") == status["header"]["member_id"]:
                _put(member, "ready")
                return member
        return None

    def fail_over(self) -> float:
        survivors = [member for member in self._commands if member != self._leader]
        with ThreadPoolExecutor(len(survivors)) as pool:
            killed_ns = time.monotonic_ns()
            self._processes[self._leader].kill()
            first_ns = min(pool.map(lambda survivor: _until(lambda: _put(survivor, "after")), survivors))
        self._processes[self._leader].wait()
        return (first_ns - killed_ns) / 1e6

    def restart(self) -> float:
        killed = self._leader
        newest = str(time.monotonic_ns())
        survivor = next(member for member in self._commands if member != killed)
        _until(lambda: _put(survivor, newest))
        began_ns = time.monotonic_ns()
        self._start(killed)
        read_ns = _until(lambda: time.monotonic_ns() if _get(killed) == newest else None)
        self._leader = _until(self._find_leader)
        return (read_ns - began_ns) / 1e6

    def measure(self, load: Load, seconds: float) -> Figure:
        if load.via not in ("client", "reads") or load.entries != 1:
            raise ValueError(f"etcd is not driven by {load}")
        command = [str(_generator()), "-endpoint", self._leader.removeprefix("http://")]
        command += ["-op", "range" if load.via == "reads" else "put", "-clients", str(load.in_flight)]
        command += ["-connections", str(min(CONNECTIONS_MAX, max(1, load.in_flight // 8)))]
        command += ["-payload", str(load.payload_bytes), "-seconds", str(seconds)]
        spent = Spent(process.pid for process in self._processes.values())
        answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return figure_of(answer, spent)


def _until(find: Callable[[], Found | None]) -> Found:
    """What is found at last, asked again and again; RuntimeError after ANSWER_S."""
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        with suppress(OSError, KeyError):
            if (found := find()) is not None:
                return found
        time.sleep(PAUSE_S)
    raise RuntimeError(f"etcd did not answer within {ANSWER_S:.0f} s")


def _put(member: str, value: str) -> int:
    """When it was done (CLOCK_MONOTONIC)."""
    _post(member, "/v3/kv/put", {"key": KEY, "value": base64.b64encode(value.encode()).decode()})
    return time.monotonic_ns()


def _get(member: str) -> str:
    """Linearizable."""
    found: str = _post(member, "/v3/kv/range", {"key": KEY})["kvs"][0]["value"]
    return base64.b64decode(found).decode()


def _post(member: str, path: str, body: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(member + path, data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=REQUEST_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
