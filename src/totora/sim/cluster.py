"""A cluster to play with: real nodes in virtual time, one plain call after the other.

    with Cluster(3, seed=7) as cluster:
        leader = cluster.start().leader()
        cluster.propose("kept", at=leader)
        cluster.partition({leader}, cluster.others(leader)).advance(5)
        cluster.expect(lambda: cluster.role(leader) != "leader", "a leader that is cut off gives way")
        cluster.heal().settle()

Time passes only inside calls. The same script with the same seed is the same run, to the byte of its trace; looking changes
nothing. Everything is checked while it runs: each step of each node against the specification (`Violation`), the replicas of a
state machine against each other (`Divergence`), both for clocks and random numbers (`NondeterminismError`). These end the run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Generic, Self, TypeVar

from ..aio.node import Node
from ..config import Settings
from ..errors import OutcomeUnknown, RaftError, Unavailable
from ..types import Entry, NodeId, NodeStatus
from .disk import Fate
from .faults import FAULTS, Injector, schedule
from .stage import ScriptError
from .trace import Record
from .wires import Wires
from .world import Host, Machine

__all__ = ["CHAOS", "Cluster", "Pending", "ScriptError"]

R = TypeVar("R")

PATIENCE_S: Final = 60.0
"""So long a call waits for its outcome; a node that runs gives one much earlier."""

CHAOS: Final = tuple(kind for kind in FAULTS if kind != "wipe")
"""All faults that a node comes back from."""


async def _outcome_of(what: Callable[[Node[Any]], Awaitable[R]], node: Node[Any]) -> R:
    """In a task, which goes down with the node."""
    asked = what(node)
    if not isinstance(asked, Awaitable):
        raise ScriptError(
            f"a node is asked with what can be awaited, such as node.propose(...), not with {asked!r}"
        )
    return await asked


class Pending(Generic[R]):
    """What was begun with `Cluster.spawn` and goes on while time passes."""

    def __init__(self, cluster: Cluster, host: Host, what: Callable[[Node[Any]], Awaitable[R]]) -> None:
        self._cluster = cluster
        self._id = host.id
        self._gate = host.gate
        self._begun = False
        self._outcome: tuple[R] | RaftError | None = None
        self._ended: asyncio.Future[None] = cluster.world.loop.create_future()
        host.gate.enter(lambda: self._begin(what, host.running))

    @property
    def done(self) -> bool:
        return self._now() is not None

    @property
    def error(self) -> RaftError | None:
        """What it ended with; None: it has not ended, or well."""
        outcome = self._now()
        return outcome if isinstance(outcome, RaftError) else None

    def result(self, within: float = PATIENCE_S) -> R:
        """Let time pass until it is there. Raises the RaftError that it ended with."""
        if not self.done:
            self._cluster._play(self._wait(within))
        outcome = self._now()
        if outcome is None:
            self._cluster._fail(f"node {self._id} answers: not within {within} s")
        if isinstance(outcome, RaftError):
            raise outcome
        return outcome[0]

    def _now(self) -> tuple[R] | RaftError | None:
        if self._gate.fallen and not self._begun:
            return Unavailable(f"node {self._id} went down before it took it up")
        return self._outcome

    def _begin(self, what: Callable[[Node[Any]], Awaitable[R]], node: Node[Any]) -> None:
        self._begun = True
        self._cluster.world.loop.create_task(_outcome_of(what, node)).add_done_callback(self._end)

    def _end(self, task: asyncio.Task[R]) -> None:
        if task.cancelled():
            self._outcome = OutcomeUnknown(f"node {self._id} went down before it answered")
        elif (error := task.exception()) is None:
            self._outcome = (task.result(),)
        elif isinstance(error, RaftError):
            self._outcome = error
        else:
            self._cluster.world.loop.abort(error)
        self._ended.set_result(None)

    async def _wait(self, within: float) -> None:
        await asyncio.wait((self._ended,), timeout=within)


class Cluster(Wires):
    """Nodes 1 to `size`, none of which runs yet. A context manager; `close` does the same by hand.

    seed: of everything that is left to chance. entry_type, settings: as of `Node`.
    machine: a class, or a function, that makes a new state machine; its commands are the entries.
    record: gets every record of the trace, for a file or a checker.

    Where a node is asked for its id is given; calls that take several take them one by one: `kill(1, 2)`.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 0,
        entry_type: Any = str,
        machine: Callable[[], Machine] | None = None,
        settings: Settings | None = None,
        record: Callable[[Record], None] | None = None,
    ) -> None:
        super().__init__(
            size, seed=seed, entry_type=entry_type, machine=machine, settings=settings, record=record
        )
        self.chance = self.world.fork()
        """A `random.Random` for the script itself: use it and no other, and the seed tells all."""
        self._injector = Injector(self.world)

    # -- who is what

    @property
    def running(self) -> set[NodeId]:
        """Nodes that are up and not paused."""
        return {id for id, host in self.world.hosts.items() if host.up and not host.gate.paused}

    def others(self, *ids: NodeId) -> set[NodeId]:
        """All nodes but these."""
        return set(self.ids) - {self.host(id).id for id in ids}

    def status(self, id: NodeId) -> NodeStatus:
        """What this node knows; it must run."""
        return self._up(id).running.status()

    def role(self, id: NodeId) -> str:
        """Follower, pre-candidate, candidate or leader, as in its status; or "down"."""
        return self.host(id).role or "down"

    def leader(self, within: float = PATIENCE_S) -> NodeId:
        """Let time pass until a majority has a leader, and all that run and are not cut off from it follow it."""
        return self.expect(self._leader, "a leader is elected", within=within)

    def _leader(self) -> NodeId | None:
        for id in sorted(self.running):
            known = self.running - self._injector.lost
            group = {other for other in known if other == id or self._linked(id, other)}
            following = {other for other in group if self.status(other).leader == id}
            if self.role(id) == "leader" and following == group and 2 * len(group) > len(self.ids):
                return id
        return None

    def log(self, id: NodeId) -> list[Entry[Any]]:
        """The users' entries that this node knows to be committed; it must run. Nobody is asked, no time passes."""
        return self._log(self._up(id))

    def values(self, id: NodeId) -> list[Any]:
        """The values of `log`."""
        return [entry.value for entry in self.log(id)]

    def machine(self, id: NodeId) -> Any:
        """The state machine of this node's newest life, to look at; what is changed there is found out."""
        if self._replicas is None:
            raise ScriptError("this cluster has no state machine: pass machine=")
        self._up(id)
        return self._replicas.machine(id)

    # -- requests

    def propose(self, entry: Any, *, at: NodeId | None = None, within: float | None = None) -> Entry[Any]:
        """Append one entry through a node (None: the leader, else any that runs) and wait for its outcome.

        within: how long the node may try. Raises as `Node.propose` does.
        """
        return self.call(lambda node: node.propose(entry, timeout_s=within), at=at)

    def apply(self, command: Any, *, at: NodeId | None = None, within: float | None = None) -> Any:
        """Append a command and wait for what the state machine returns for it. Raises as `Node.apply` does."""
        return self.call(lambda node: node.apply(command, timeout_s=within), at=at)

    def query(self, query: Any, *, at: NodeId | None = None, within: float | None = None) -> Any:
        """Ask the state machine of a node, linearizably. Raises as `Node.query` does."""
        return self.call(lambda node: node.query(query, timeout_s=within), at=at)

    def transfer(
        self, target: NodeId | None = None, *, at: NodeId | None = None, within: float | None = None
    ) -> NodeId:
        """Have the leader hand over, and wait for who leads then. Raises as `Node.transfer` does."""
        return self.call(lambda node: node.transfer(target, timeout_s=within), at=at)

    def call(self, what: Callable[[Node[Any]], Awaitable[R]], *, at: NodeId | None = None) -> R:
        """Whatever a node can be asked: `call(lambda node: node.append(["a", "b"]), at=1)`."""
        return self.spawn(what, at=at).result()

    def spawn(self, what: Callable[[Node[Any]], Awaitable[R]], *, at: NodeId | None = None) -> Pending[R]:
        """The same without waiting: it goes on while time passes. A paused node takes it up when it is resumed.

        An error of `what` that is no RaftError ends the run.
        """
        self._require_open()
        return Pending(self, self._up(self._any() if at is None else at), what)

    def _any(self) -> NodeId:
        leaders = [id for id in self.running if self.role(id) == "leader"]
        ids = leaders or sorted(self.running)
        if not ids:
            raise Unavailable("no node runs")
        return max(ids, key=lambda id: (self.status(id).term, -id))

    # -- machines

    def start(self, *ids: NodeId) -> Self:
        """Start these nodes, one after the other; none given: all that are down. Raises what `Node.start` raises."""
        for host in [self._is_down(id) for id in ids] or [h for h in self.world.hosts.values() if not h.up]:
            self._play(host.start())
        return self

    def restart(self, *ids: NodeId) -> Self:
        """Start these nodes again; those that run are stopped first; none given: all."""
        for host in self._each(ids or self.ids):
            host.resume()
            host.spare()
            self._play(host.stop())
            self._play(host.start())
        return self

    def stop(self, *ids: NodeId) -> Self:
        """A clean stop."""
        for host in self._each(ids, up=True):
            host.resume()
            host.spare()
            self._play(host.stop())
        return self

    def kill(self, *ids: NodeId) -> Self:
        """`kill -9`: what the process wrote stays with the kernel, its connections are closed."""
        for host in self._each(ids, up=True):
            host.kill()
        return self

    def lose_power(self, *ids: NodeId, fate: Fate = "torn", after: int | None = None) -> Self:
        """The machines are gone at once. fate: of what was not synced: "lost", "torn" or "kept".

        after: not now, but once so many more operations of the disk are done (writes, syncs, renames and the like); unless the
        node ends before, or `settle` comes.
        """
        for host in self._each(ids, up=True):
            if after is None:
                host.lose_power(fate)
            else:
                host.lose_power_after(after, fate)
        return self

    def wipe(self, *ids: NodeId) -> Self:
        """The disks of these machines are gone, and with them whatever ran; empty ones are in their place.

        A node that starts on an empty disk is a stranger under an old id: nobody waits for it, `settle` included.
        """
        for host in self._each(ids):
            if host.up:
                host.lose_power("lost")
            host.wipe()
            self._injector.lost.add(host.id)
        return self

    def pause(self, *ids: NodeId) -> Self:
        """These processes get no time until `resume`; what is sent to them waits."""
        for host in self._each(ids, up=True):
            host.pause()
        return self

    def resume(self, *ids: NodeId) -> Self:
        """None given: all that are paused."""
        for host in self._each(ids or self.ids):
            host.resume()
        return self

    def _each(self, ids: Iterable[NodeId], *, up: bool = False) -> list[Host]:
        self._require_open()
        hosts = [self._up(id) if up else self.host(id) for id in ids]
        if not hosts:
            raise ScriptError("which node? None was given")
        return hosts

    def _up(self, id: NodeId) -> Host:
        host = self.host(id)
        if not host.up:
            raise ScriptError(f"node {id} does not run: start it first")
        return host

    def _is_down(self, id: NodeId) -> Host:
        host = self.host(id)
        if host.up:
            raise ScriptError(f"node {id} runs already")
        return host

    # -- chance

    def storm(self, seconds: float = 60.0, faults: Iterable[str] = CHAOS) -> Self:
        """Random faults from now on for so many seconds, while the script goes on; `settle` ends it.

        faults: kinds of `totora.sim.FAULTS`.
        """
        self._require_open()
        kinds = set(faults)
        if unknown := kinds - set(FAULTS):
            raise ScriptError(f"there are no faults {sorted(unknown)}: choose from {sorted(FAULTS)}")
        self._injector.quiet = False
        self._injector.begin(schedule(self.world.fork(), kinds, seconds))
        return self

    def chaos(
        self,
        seconds: float = 60.0,
        faults: Iterable[str] = CHAOS,
        *,
        work: Callable[[], object] | None = None,
        every: float = 0.2,
    ) -> dict[str, int]:
        """A `storm` from its beginning to its end, then `settle`. Returns how many faults took place, by kind.

        work: is called about so `every` seconds, to make requests; the RaftErrors that it raises are what clients see under
        faults, and are counted under their names.
        """
        counts = Counter[str]()
        before = Counter(self._injector.injected)
        self.storm(seconds, faults)
        end_ns = self.world.loop.now_ns + round(seconds * 1e9)
        while (left_s := (end_ns - self.world.loop.now_ns) / 1e9) > 0:
            if work is not None:
                try:
                    work()
                except RaftError as error:
                    counts[type(error).__name__] += 1
            self.advance(min(left_s, every * 2 * self.chance.random()))
        self.settle()
        return dict(sorted((self._injector.injected - before + counts).items()))

    def settle(self, within: float = PATIENCE_S) -> Self:
        """Peace: everything is healed, everyone with its disk runs, and soon all have the same log; else AssertionError."""
        self.heal().resume()
        self._play(self._injector.peace())
        hosts = self._injector.hosts()

        def converged() -> bool:
            status = [host.running.status() for host in hosts]
            return status[0].leader is not None and (
                len({(s.leader, s.last_index) for s in status}) == 1
                and all(s.applied_index == s.commit_index == s.last_index for s in status)
            )

        self.expect(
            converged, "in peace there is a leader, and all nodes have all that it has", within=within
        )
        logs = [self.log(host.id) for host in hosts]
        if any(log != logs[0] for log in logs):
            self._fail("all nodes hold the same log")
        return self.check()
