"""What goes wrong in a run: each kind of fault, how it is done and how it is undone."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

from ..errors import StorageError
from ..types import NodeId
from .disk import Fate
from .injector import FAULTS, MS, Fault, Injector, S, Way, fault, schedule
from .worker import WORK_NS
from .world import Host

__all__ = ["FAULTS", "Fault", "Injector", "schedule"]


# -- machines


@fault("power", (10, 8_000))
def _power(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A machine loses power, now or soon, and what was not synced: all of it, some sectors of it, or nothing."""
    host = injector.any_up(chance)
    if host is None:
        return None
    if chance.random() < 0.3:
        host.lose_power(_fate(chance))
    else:
        host.lose_power_after(int(chance.random() ** 2 * 30), _fate(chance))

    def undo() -> None:
        host.spare_power()
        injector.start(host)

    return undo


def _fate(chance: random.Random) -> Fate:
    fates: tuple[Fate, ...] = ("lost", "torn", "torn", "kept")
    return fates[int(chance.random() * 4)]


@fault("kill", (10, 5_000))
def _kill(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """`kill -9` of a process; its kernel goes on."""
    host = injector.any_up(chance)
    if host is None:
        return None
    host.kill()
    return lambda: injector.start(host)


@fault("power-all", (10, 5_000))
def _power_all(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """All machines lose power at once."""
    hosts = [host for host in injector.hosts() if host.up]
    for host in hosts:
        host.lose_power("torn")

    def undo() -> None:
        for host in hosts:
            injector.start(host)

    return undo if hosts else None


@fault("succession", (100, 8_000))
def _succession(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """The leader dies, and another loses power at one of the first operations of its disk that follow."""
    up = [host for host in injector.hosts() if host.up]
    leader = next((host for host in up if host.role == "leader"), None)
    if leader is None or len(up) < 2:
        return None
    heirs = [host for host in up if host is not leader]
    heir = heirs[int(chance.random() * len(heirs))]
    heir.lose_power_after(int(chance.random() * 8), _fate(chance))
    leader.kill()

    def undo() -> None:
        heir.spare_power()
        injector.start(leader)
        injector.start(heir)

    return undo


@fault("interregnum", (2_000, 8_000))
def _interregnum(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """The leader is cut off until there is another; that one dies at once, and the old one is back with what it took."""
    old = next((host for host in injector.hosts() if host.role == "leader"), None)
    others = [host for host in injector.hosts() if host is not old]
    if old is None or len(others) < 2:
        return None
    heal = injector.cut([way for other in others for way in ((old.name, other.name), (other.name, old.name))])
    watches = True
    delay_ns = int(chance.random() ** 3 * 100 * MS)

    def over() -> None:
        nonlocal watches
        if watches:
            watches = False
            heal()

    def watch() -> None:
        if not watches:
            return
        new = next((host for host in others if host.role == "leader"), None)
        if new is not None:
            new.kill()
            over()
        else:
            injector.world.loop.call_at_ns(injector.world.loop.now_ns + MS + delay_ns, watch)

    watch()

    def undo() -> None:
        over()
        for host in others:
            injector.start(host)

    return undo


@fault("midway", (500, 5_000))
def _midway(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A crash between two effects of a node: after some more sends, writes or syncs."""
    host = injector.any_up(chance)
    if host is None:
        return None
    gate = host.gate
    gate.armed = int(chance.random() ** 2 * 60)

    def undo() -> None:
        gate.armed = None
        injector.start(host)

    return undo


@fault("transfer")
def _transfer(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A node is asked to have the leader hand over, to one of the nodes or to whoever holds most."""
    host = injector.any_up(chance)
    if host is None:
        return None
    hosts = injector.hosts()
    target = None if chance.random() < 0.3 else hosts[int(chance.random() * len(hosts))].id
    host.gate.enter(lambda: _ask_transfer(host, target))
    return lambda: None


def _ask_transfer(host: Host, target: NodeId | None) -> None:
    asked = host.running.transfer(target, timeout_s=2)
    asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())


@fault("stop", (10, 3_000))
def _stop(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A clean stop."""
    host = injector.any_up(chance)
    if host is None:
        return None
    stopping = injector.world.task(host.stop())

    async def restart() -> None:
        await stopping
        injector.start(host)

    return lambda: injector.world.task(restart())


@fault("pause", (10, 20_000))
def _pause(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A process gets no processor time; what was sent to it is delivered afterwards, however old."""
    host = injector.any_up(chance)
    if host is None or host.gate.paused:
        return None
    gate = host.gate
    gate.pause()
    return gate.resume


@fault("clock")
def _clock(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A wall clock jumps, up to a day."""
    host = injector.any_up(chance)
    if host is None:
        return None
    host.clock.wall_offset_ns += int((chance.random() - 0.5) * 172_800 * S)
    return lambda: None


@fault("drift", (1_000, 30_000))
def _drift(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A node's clock runs up to a tenth too fast or too slow from its next start on."""
    host = injector.any_host(chance)
    host.drift_ppm = int((chance.random() - 0.5) * 200_000)

    def undo() -> None:
        host.drift_ppm = 0

    return undo


# -- the network


@fault("partition", (50, 15_000))
def _partition(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """Two groups that cannot reach each other."""
    names = [host.name for host in injector.world.hosts.values()]
    side = {name: chance.random() < 0.5 for name in names}
    pairs = [(one, other) for one in names for other in names if side[one] != side[other]]
    return injector.cut(pairs) if pairs else None


@fault("isolate", (50, 15_000))
def _isolate(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """One node alone, in both directions or in one."""
    ways = _around(injector, chance)
    return injector.cut(ways) if ways else None


@fault("hold", (100, 60_000))
def _hold(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """What a node sends or is sent is held back, and delivered up to a minute later."""
    ways = _around(injector, chance)
    if len(ways) > 1 and chance.random() < 0.5:
        ways = [ways[int(chance.random() * len(ways))]]
    return injector.hold(ways) if ways else None


def _around(injector: Injector, chance: random.Random) -> list[Way]:
    """The ways to one node, from it, or both."""
    host = injector.any_up(chance)
    if host is None:
        return []
    others = [other.name for other in injector.world.hosts.values() if other is not host]
    kind = int(chance.random() * 3)
    ways = [(host.name, other) for other in others] if kind != 1 else []
    return ways + ([(other, host.name) for other in others] if kind != 2 else [])


@fault("cut", (20, 12_000))
def _cut(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A link between two nodes is cut, in both directions or in one: a partial partition."""
    pair = injector.any_pair(chance)
    if pair is None:
        return None
    one, other = pair[0].name, pair[1].name
    return injector.cut([(one, other)] if chance.random() < 0.5 else [(one, other), (other, one)])


@fault("reset")
def _reset(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """Every stream between two nodes is reset."""
    pair = injector.any_pair(chance)
    if pair is None:
        return None
    injector.world.ether.reset(pair[0].name, pair[1].name)
    return lambda: None


@fault("slow-link", (100, 15_000))
def _slow_link(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """Packets of a link take up to a second, or only so many bytes pass."""
    pair = injector.any_pair(chance)
    if pair is None:
        return None
    names = pair[0].name, pair[1].name
    link = injector.world.ether.link(*names)
    longest_ns = int(10 ** (1 + 2 * chance.random()) * MS)
    link.delay_ns = longest_ns // 4, longest_ns
    if chance.random() < 0.3:
        link.bytes_per_s = 2_000 + int(chance.random() * 50_000)
    return lambda: injector.world.ether.restore(*names)


@fault("loss", (100, 20_000))
def _loss(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A link loses and doubles packets; streams show it as delay."""
    pair = injector.any_pair(chance)
    if pair is None:
        return None
    names = pair[0].name, pair[1].name
    link = injector.world.ether.link(*names)
    link.loss, link.doubled = chance.random() * 0.4, chance.random() * 0.3
    return lambda: injector.world.ether.restore(*names)


# -- disks


@fault("slow-disk", (200, 10_000))
def _slow_disk(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """Writes and syncs take up to half a second."""
    host = injector.any_up(chance)
    if host is None:
        return None
    writer = host.writer
    longest_ns = int(10 ** (1 + 1.7 * chance.random()) * MS)
    writer.delay_ns = longest_ns // 10, longest_ns

    def undo() -> None:
        writer.delay_ns = WORK_NS

    return undo


@fault("stalled-disk", (100, 8_000))
def _stalled_disk(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """No write completes for a while."""
    host = injector.any_up(chance)
    if host is None:
        return None
    host.writer.stall()
    return host.writer.resume


@fault("io-error", (100, 4_000))
def _io_error(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """EIO of the next write or sync, once: the node must stop, and may be started again."""
    host = injector.any_up(chance)
    if host is None:
        return None
    host.fail_next("sync" if chance.random() < 0.5 else "pwrite")

    def undo() -> None:
        host.fail_next(None)
        injector.start(host)

    return undo


@fault("full-disk", (100, 8_000))
def _full_disk(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """No space is left: what grows fails."""
    host = injector.any_host(chance)
    host.fill_disk(int(chance.random() * 100_000))

    def undo() -> None:
        host.disk.capacity_bytes = None
        injector.start(host)

    return undo


@fault("flip", (0, 10_000))
def _flip(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A bit of the log turns over at rest: it must be noticed when it is read, and never served."""
    host = injector.any_host(chance)
    return (lambda: None) if host.damage(chance, 1) else None


@fault("stray-write", (0, 10_000))
def _stray_write(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A write lands a second time, somewhere in the log where it does not belong."""
    host = injector.any_host(chance)
    return (lambda: None) if host.damage(chance, 512) else None


@fault("wipe", (100, 8_000))
def _wipe(injector: Injector, chance: random.Random) -> Callable[[], object] | None:
    """A machine loses its disk: what comes back under its id is refused. Only a minority, and for good."""
    size = len(injector.world.hosts)
    host = injector.any_host(chance)
    if len(injector.lost) + 1 > (size - 1) // 2 or chance.random() < 0.7:
        return None
    if not (host.up or host.gate.fallen):
        return None  # It is about to stop.
    if host.up:
        host.lose_power("lost")
    host.wipe()
    injector.lost.add(host.id)

    async def back() -> None:
        if not host.up:
            with contextlib.suppress(StorageError):  # Another fault may have its disk.
                await host.start()

    return lambda: injector.world.task(back())
