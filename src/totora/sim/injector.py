"""When something goes wrong in a run: a schedule of faults, drawn from a seed before the run begins, and who does them.

A schedule depends on the seed, the length of the run and the kinds that are allowed, and on nothing that happens in it. Each
fault carries a number of its own from which its details are drawn, so leaving one out changes no other: a shrinker can cut a
schedule to what is needed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from ..errors import RaftError
from ..types import NodeId
from .world import Host, World

__all__ = ["FAULTS", "MS", "Fault", "Injector", "S", "Way", "fault", "schedule"]

S: Final = 1_000_000_000
MS: Final = 1_000_000

Way: TypeAlias = tuple[str, str]
"""From one host to another."""


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """One fault: when it begins, how long it lasts, and the number from which its details are drawn."""

    kind: str
    at_ns: int
    for_ns: int
    number: int


def schedule(
    chance: random.Random, kinds: Iterable[str], seconds: float, *, rate_per_s: float = 0.5
) -> list[Fault]:
    """A schedule over the first `seconds` of a run, in the order of time."""
    allowed = sorted(kinds)
    faults: list[Fault] = []
    at_ns, end_ns = 0, round(seconds * S)
    while allowed:
        # Calm and stormy times take turns.
        at_ns += int(chance.random() ** 2 * 3 * S / rate_per_s) + 1
        if at_ns >= end_ns:
            break
        kind = allowed[int(chance.random() * len(allowed))]
        shortest, longest = FAULTS[kind].lasts_ms
        for_ns = int((shortest + chance.random() ** 2 * (longest - shortest)) * MS)
        faults.append(Fault(kind, at_ns, for_ns, chance.getrandbits(48)))
    return faults


class Injector:
    """Does the faults of one run to one world.

    injected: how many faults took place, by kind. lost: nodes that can never come back, at most a minority.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.injected: Counter[str] = Counter()
        self.lost: set[NodeId] = set()
        self.quiet = False
        self._cuts: Counter[Way] = Counter()
        self._holds: Counter[Way] = Counter()
        self._undo: dict[int, Callable[[], object]] = {}
        self._number = 0
        self._starting: set[NodeId] = set()

    def begin(self, faults: Iterable[Fault]) -> None:
        """Let all of them happen when their time comes."""
        now = self.world.loop.now_ns
        for fault in faults:
            self.world.loop.call_at_ns(now + fault.at_ns, lambda fault=fault: self._strike(fault))  # type: ignore[misc]

    def _strike(self, fault: Fault) -> None:
        if self.quiet:
            return
        undo = FAULTS[fault.kind].strike(self, random.Random(fault.number))
        if undo is None:
            return
        self.injected[fault.kind] += 1
        self._number += 1
        number = self._number
        self._undo[number] = undo
        self.world.loop.call_at_ns(self.world.loop.now_ns + fault.for_ns, lambda: self._end(number))

    def _end(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    async def peace(self) -> None:
        """Nothing goes wrong any more: undo everything, start every node that can be started."""
        self.quiet = True
        for number in sorted(self._undo):
            self._end(number)
        self.world.ether.heal_all()
        for host in self.hosts():
            host.spare()
            host.disk.capacity_bytes = None
            host.repair()
            if host.up:
                # What failed before is told now, and may be its end.
                await self.world.until(lambda host=host: host.writer.is_idle)  # type: ignore[misc]
            self.start(host)
        await self.world.until(lambda: all(host.up for host in self.hosts()), within_s=60)

    # -- for the faults

    def hosts(self) -> list[Host]:
        """Those that are not lost for good."""
        return [host for id, host in self.world.hosts.items() if id not in self.lost]

    def any_host(self, chance: random.Random) -> Host:
        hosts = self.hosts()
        return hosts[int(chance.random() * len(hosts))]

    def any_up(self, chance: random.Random) -> Host | None:
        up = [host for host in self.hosts() if host.up]
        # Leaders are where it hurts.
        leaders = [host for host in up if host.role == "leader"]
        if leaders and chance.random() < 0.4:
            return leaders[0]
        return up[int(chance.random() * len(up))] if up else None

    def any_pair(self, chance: random.Random) -> tuple[Host, Host] | None:
        hosts = self.hosts()
        if len(hosts) < 2:
            return None
        one = int(chance.random() * len(hosts))
        other = (one + 1 + int(chance.random() * (len(hosts) - 1))) % len(hosts)
        return hosts[one], hosts[other]

    def start(self, host: Host) -> None:
        """Start a node again, if it is down; one that refuses its damaged disk gets it back from a copy."""
        if host.up or host.id in self.lost or host.id in self._starting:
            return
        self._starting.add(host.id)
        _ = self.world.task(self._start(host))

    async def _start(self, host: Host) -> None:
        try:
            await host.start()
        except RaftError as error:
            if not host.may_fail:
                raise AssertionError(
                    f"node {host.id} does not start, and its disk is sound: {error}"
                ) from error
            host.repair()
            self.world.loop.call_at_ns(self.world.loop.now_ns + S, lambda: self.start(host))
        finally:
            self._starting.discard(host.id)

    def cut(self, ways: Iterable[Way]) -> Callable[[], object]:
        """Cut these ways; each is open again once every fault that cut it is over."""
        return _shut(list(ways), self._cuts, self.world.ether.cut, self.world.ether.heal)

    def hold(self, ways: Iterable[Way]) -> Callable[[], object]:
        """Hold what passes by these ways; it arrives once every fault that held it is over."""
        return _shut(list(ways), self._holds, self.world.ether.hold, self.world.ether.release)


def _shut(
    ways: Sequence[Way],
    count: Counter[Way],
    shut: Callable[[str, str], None],
    open_again: Callable[[str, str], None],
) -> Callable[[], object]:
    for way in ways:
        count[way] += 1
        shut(*way)

    def undo() -> None:
        for way in ways:
            count[way] -= 1
            if not count[way]:
                open_again(*way)

    return undo


Strike: TypeAlias = Callable[[Injector, random.Random], Callable[[], object] | None]
"""Does it, and returns how it is undone; None: there was nothing to do it to."""


@dataclass(slots=True, frozen=True)
class Kind:
    """A kind of fault. lasts_ms: shortest and longest."""

    strike: Strike
    lasts_ms: tuple[int, int]
    about: str


FAULTS: Final[dict[str, Kind]] = {}
"""All kinds, by name; `faults` fills it."""


def fault(name: str, lasts_ms: tuple[int, int] = (0, 0)) -> Callable[[Strike], Strike]:
    def register(strike: Strike) -> Strike:
        FAULTS[name] = Kind(strike, lasts_ms, (strike.__doc__ or "").strip())
        return strike

    return register
