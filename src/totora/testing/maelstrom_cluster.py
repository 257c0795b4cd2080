"""Processes that speak Maelstrom's node contract, and the bad network between them.

Between nodes a message is delayed, lost, doubled, or dropped where it would arrive across a cut; between a client and its node
it is none of these, as if they were one machine (delay there would hide faults). What happens to whom is drawn from a seed; in
when exactly it happens, the system's scheduler has a say too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from .maelstrom_messages import Ending, Lines, Packet, encode_packet

__all__ = ["Broken", "Cluster", "Distribution", "Weather", "halves", "isolated", "ring"]

INIT_S: Final = 10.0
"""The contract's time for an answer to `init`."""

UNREAD_BYTES_MAX: Final = 16 << 20
"""While a node leaves more unread, what is sent to it is dropped."""

Distribution: TypeAlias = Literal["constant", "uniform", "exponential"]

_PACKET: Final = msgspec.json.Decoder(Packet)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


class Broken(Exception):
    """The program does not keep the contract; `str()` says how."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network between nodes does. latency_s: the mean. loss, duplication: shares of all messages."""

    latency_s: float = 0.0
    distribution: Distribution = "uniform"
    loss: float = 0.0
    duplication: float = 0.0

    def delay_s(self, chance: random.Random) -> float:
        match self.distribution:
            case "constant":
                return self.latency_s
            case "uniform":
                return 2 * self.latency_s * chance.random()
            case "exponential":
                return chance.expovariate(1 / self.latency_s) if self.latency_s else 0.0


# -- cuts: pairs of nodes that do not reach each other


def halves(names: Sequence[str], size: int, chance: random.Random) -> set[frozenset[str]]:
    """Some `size` nodes on one side, the others on the other."""
    shuffled = chance.sample(names, len(names))
    return {frozenset(pair) for pair in itertools.product(shuffled[:size], shuffled[size:])}


def isolated(names: Sequence[str], chance: random.Random) -> set[frozenset[str]]:
    """One node alone."""
    return halves(names, 1, chance)


def ring(names: Sequence[str], chance: random.Random) -> set[frozenset[str]]:
    """Each node sees a majority, and no two the same: only neighbours on a ring reach each other. Of four or more."""
    circle = chance.sample(names, len(names))
    reach = (len(names) // 2 + 1) // 2  # so many on either side make a majority, itself included
    near = {
        frozenset((name, circle[(place + step) % len(circle)]))
        for place, name in enumerate(circle)
        for step in range(1, reach + 1)
    }
    return {frozenset(pair) for pair in itertools.combinations(names, 2)} - near


@dataclass(slots=True, eq=False)
class _Process:
    """One incarnation of a node."""

    popen: subprocess.Popen[bytes]
    initialized: asyncio.Future[None]
    source: asyncio.ReadTransport | None = None
    sink: asyncio.WriteTransport | None = None
    killed: bool = False

    def write(self, line: bytes) -> None:
        if self.sink is not None and self.sink.get_write_buffer_size() <= UNREAD_BYTES_MAX:
            self.sink.write(line)


class Cluster:
    """Nodes n1, n2 ... and the network.

    command: runs one node. folder: for what each tells on stderr. replied: gets what a node sends to a client, with the time.
    broken: has an exception once a node broke the contract.
    """

    def __init__(
        self,
        size: int,
        command: Sequence[str],
        folder: Path,
        weather: Weather,
        chance: random.Random,
        replied: Callable[[str, dict[str, Any], int], None],
    ) -> None:
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.cuts: set[frozenset[str]] = set()
        self.counts: Counter[str] = Counter()
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._command = command
        self._folder = folder
        self._weather = weather
        self._chance = chance
        self._replied = replied
        self._processes: dict[str, _Process] = {}

    @property
    def down(self) -> list[str]:
        return [name for name in self.names if name not in self._processes]

    # -- processes

    async def start(self, names: Iterable[str]) -> None:
        """Start these and wait until they are initialized. Raises Broken."""
        await asyncio.gather(*map(self._start, names))

    async def _start(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        popen = self._spawn(name)
        process = self._processes[name] = _Process(popen, loop.create_future())
        lines = Lines(
            lambda line: self._line(name, process, line),
            lambda: self._ended(name, process),
            lambda: self._fail(f"{name} sent a line that is too long"),
        )
        process.source, _ = await loop.connect_read_pipe(lambda: lines, popen.stdout)
        process.sink, _ = await loop.connect_write_pipe(lambda: Ending(lambda: None), popen.stdin)
        init = {"type": "init", "msg_id": 1, "node_id": name, "node_ids": self.names}
        process.write(encode_packet("c0", name, init))
        try:
            await asyncio.wait_for(process.initialized, INIT_S)
        except TimeoutError:
            self._fail(f"{name} did not answer init within {INIT_S:.0f} s")
            raise Broken(f"{name} did not answer init within {INIT_S:.0f} s") from None

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("ab") as log:
            try:
                return subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
                )
            except OSError as error:
                raise Broken(f"cannot run {self._command[0]}: {error.strerror or error}") from error

    def kill(self, names: Iterable[str]) -> None:
        """kill -9."""
        for name in names:
            process = self._processes.pop(name, None)
            if process is not None:
                process.killed = True
                process.popen.kill()
                process.popen.wait()
                if process.source is not None:
                    process.source.close()
                if process.sink is not None and not process.sink.is_closing():
                    process.sink.abort()
                if not process.initialized.done():
                    process.initialized.cancel()

    def _ended(self, name: str, process: _Process) -> None:
        if not process.killed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(1)
            self._fail(f"{name} ended by itself, with exit code {process.popen.returncode}")

    def _fail(self, why: str) -> None:
        if not self.broken.done():
            self.broken.set_exception(Broken(why))
        for process in self._processes.values():
            if not process.initialized.done():
                process.initialized.set_exception(Broken(why))

    # -- messages

    def send(self, client: str, name: str, body: dict[str, Any]) -> None:
        """From a client to a node, at once."""
        process = self._processes.get(name)
        if process is not None:
            process.write(encode_packet(client, name, body))

    def _line(self, name: str, process: _Process, line: bytes) -> None:
        if process.killed:
            return
        try:
            packet = _PACKET.decode(line)
            if packet.src != name:
                raise ValueError(f"its src is {packet.src!r}")
            if packet.dest in self.names:
                self._transmit(packet, line)
                return
            body = _OBJECT.decode(packet.body)
            if not isinstance(body.get("type"), str):
                raise ValueError("its body has no type")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._fail(f"{name} sent what is no message: {error}: {line[:100]!r}")
            return
        if packet.dest != "c0":
            self._replied(packet.dest, body, time.monotonic_ns())
        elif body["type"] == "init_ok" and not process.initialized.done():
            process.initialized.set_result(None)
        elif body["type"] != "init_ok":
            self._fail(f"{name} refused init: {body}")

    def _transmit(self, packet: Packet, line: bytes) -> None:
        chance, weather = self._chance, self._weather
        self.counts["sent"] += 1
        if chance.random() < weather.loss:
            self.counts["lost"] += 1
            return
        copies = 1
        if chance.random() < weather.duplication:
            self.counts["doubled"] += 1
            copies = 2
        loop = asyncio.get_running_loop()
        for _ in range(copies):
            loop.call_later(weather.delay_s(chance), self._arrive, packet.src, packet.dest, line)

    def _arrive(self, source: str, name: str, line: bytes) -> None:
        process = self._processes.get(name)
        if frozenset((source, name)) in self.cuts:
            self.counts["cut"] += 1
        elif process is not None:
            process.write(line + b"\n")
