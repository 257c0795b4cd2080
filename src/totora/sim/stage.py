"""A world that is played in parts, and watched: the part of `Cluster` that lets time pass and notices what goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

from ..aio.ranges import entries_of
from ..config import Settings
from ..errors import RaftError
from ..types import Entry, NodeId
from .guard import guarded
from .picture import picture
from .replicas import Replicas
from .specification import Specification
from .trace import Crashed, Header, Record, Step, dump_record
from .world import SEGMENT_BYTES, Host, Machine, World, read_all

__all__ = ["ScriptError", "Stage"]

R = TypeVar("R")

STEP_S: Final = 0.01
"""How often a condition is looked at."""

FOREVER_S: Final = 1e9

LAST_EVENTS: Final = 12


class ScriptError(ValueError):
    """The script asks for what cannot be: an unknown node, a partition that overlaps, a node that runs already."""


class Stage:
    """One run, a part at a time. A context manager; `close` does the same by hand."""

    def __init__(
        self,
        size: int,
        *,
        seed: int,
        entry_type: Any,
        machine: Callable[[], Machine] | None,
        settings: Settings | None,
        record: Callable[[Record], None] | None,
    ) -> None:
        if size < 1:
            raise ScriptError(f"a cluster has at least one node, not {size}")
        self.seed = seed
        self._digest = hashlib.sha256()
        self._replicas = (
            None if machine is None else Replicas(machine, self._machines, self._digest.update, self._abort)
        )
        self.world = World(
            seed,
            size=size,
            entry_type=entry_type,
            machine=self._new_machine,
            settings=settings or Settings(segment_bytes=SEGMENT_BYTES),
            limit_s=FOREVER_S,
        )
        self._specification = Specification(self.world.nodes)
        self._also = record
        self._last: deque[Record] = deque(maxlen=LAST_EVENTS)
        self._before: dict[NodeId, tuple[object, ...]] = {}
        self._down: dict[NodeId, str] = {}
        self._playing = False
        self._over: str | None = None
        self.world.record = self._record
        self._record(Header(sorted(self.world.nodes), run={"seed": seed}))
        self._guard = contextlib.ExitStack()
        self._guard.enter_context(guarded())

    # -- who there is

    @property
    def ids(self) -> list[NodeId]:
        """Of all nodes, in order."""
        return sorted(self.world.nodes)

    def host(self, id: NodeId) -> Host:
        """The machine of a node: its disk, its clock, its node, for whatever has no word of its own here."""
        host = self.world.hosts.get(id)
        if host is None:
            raise ScriptError(f"there is no node {id!r}: this cluster has {self.ids}")
        return host

    # -- life

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None and self._over is None:
                self.check()
        finally:
            self.close()

    def close(self) -> None:
        """All nodes are gone at once, and nothing is left pending. Safe to call twice."""
        if self.world.loop.is_closed():
            return
        self._over = self._over or "it was closed"
        with self._guard:
            for host in self.world.hosts.values():
                host.gate.fall()
            self.world.loop.wind_up()

    # -- time

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.world.loop.now_ns / 1e9

    def advance(self, seconds: float) -> Self:
        """Let so much time pass."""
        if not 0 <= seconds < FOREVER_S:
            raise ScriptError(f"time goes forward, and not for ever: {seconds} seconds")
        self._play(self.world.sleep(seconds))
        return self

    def expect(self, condition: Callable[[], R | None], why: str = "", *, within: float = 5.0) -> R:
        """The first true result of `condition`, within so many seconds from now; 0: it is true now.

        why: the property, as a sentence. Raises AssertionError, which shows the cluster.
        """
        end_ns = self._ends(within)
        while not (result := condition()):
            if not self._step(end_ns):
                self._fail(f"{why or 'what is expected'}: not within {within} s")
        return result

    def always(self, condition: Callable[[], object], why: str = "", *, during: float) -> Self:
        """`condition` is true now, and all the time for so many seconds. Raises AssertionError, which shows the cluster."""
        began, end_ns = self.now, self._ends(during)
        while condition():
            if not self._step(end_ns):
                return self
        return self._fail(f"{why or 'what always holds'}: not any more after {self.now - began:.3f} s")

    def _ends(self, seconds: float) -> int:
        self._require_open()
        return self.world.loop.now_ns + round(seconds * 1e9)

    def _step(self, end_ns: int) -> bool:
        """Let a little time pass; False if it is over."""
        left_s = (end_ns - self.world.loop.now_ns) / 1e9
        if left_s <= 0:
            return False
        self.advance(min(STEP_S, left_s))
        return True

    def _play(self, part: Coroutine[Any, Any, R]) -> R:
        """Run one part of the script. A request may fail; what a node must never do ends the run."""
        try:
            self._require_open()
            if self._playing:
                raise ScriptError("time passes already: what the cluster calls back cannot let it pass again")
        except ScriptError:
            part.close()
            raise
        self._playing = True
        try:
            outcome = self.world.loop.play(_caught(part))
        except BaseException as error:
            self._over = f"it ended with {type(error).__name__}: {error}"
            error.add_note(str(self))
            raise
        finally:
            self._playing = False
        if isinstance(outcome, RaftError):
            raise outcome
        return outcome[0]

    def _require_open(self) -> None:
        if self._over is not None:
            raise ScriptError(f"this cluster is over: {self._over}")

    # -- what is watched

    def _record(self, record: Record) -> None:
        self._digest.update(dump_record(record))
        if self._tells(record):
            self._last.append(record)
        if isinstance(record, Crashed):
            self._down[record.node] = record.how
        if self._also is not None:
            self._also(record)
        self._specification.check(record)

    def _tells(self, record: Record) -> bool:
        """Heartbeats that change nothing are not worth a line."""
        if not isinstance(record, Step):
            return True
        after = record.role, record.term, record.voted_for, record.commit_index, record.last_index
        before, self._before[record.node] = self._before.get(record.node), after
        return after != before

    def _abort(self, error: BaseException) -> None:
        self.world.loop.abort(error)

    def _new_machine(self) -> Machine | None:
        return None if self._replicas is None else self._replicas.new()

    def _machines(self) -> dict[NodeId, Machine | None]:
        return {id: host.machine for id, host in self.world.hosts.items()}

    def _fail(self, why: str) -> NoReturn:
        raise AssertionError(f"{why}\n{self}")

    def check(self) -> Self:
        """Compare the state machines of all nodes that have applied equally much. Raises Divergence."""
        if self._replicas is not None:
            try:
                self._replicas.compare()
            except AssertionError as error:
                error.add_note(str(self))
                raise
        return self

    # -- what there is to see

    @property
    def trace_sha256(self) -> str:
        """Of all that happened: the same for the same script and seed, on any machine."""
        return self._digest.hexdigest()

    def __repr__(self) -> str:
        roles = ", ".join(f"{id} {host.role or 'down'}" for id, host in self.world.hosts.items())
        return f"<{type(self).__name__} of seed {self.seed} at {self.now:.3f} s: {roles}>"

    def __str__(self) -> str:
        logs = {id: self._log(host) for id, host in self.world.hosts.items() if host.up}
        seen = picture(self.world, logs, self._down, self._last)
        return f"seed {self.seed}, at {self.now:.3f} s\n{seen}"

    def _log(self, host: Host) -> list[Entry[Any]]:
        node = host.running
        batches = node._backend()._engine.raft.log.batches_from(1, 1 << 62)
        if batches is None:  # memory holds the newest only
            batches = read_all(host._sound_copy())
        return entries_of(node._codec, batches, 1, node.status().commit_index)


async def _caught(part: Coroutine[Any, Any, R]) -> tuple[R] | RaftError:
    try:
        return (await part,)
    except RaftError as error:
        return error
