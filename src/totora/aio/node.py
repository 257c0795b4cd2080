"""The node for asyncio: the typed face over a `Runtime`, with its life."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from types import TracebackType, UnionType
from typing import TYPE_CHECKING, Any, Generic, Never, Self

from ..config import Settings, checked_member, require_safety
from ..errors import ConfigurationError, NodeStopped, RaftError
from ..ports import Ports, StateMachine
from ..session.requests import Err, Result
from ..types import Address, NodeId, NodeStatus
from .applier import Applier
from .face import Face, _patience_s
from .futures import asked
from .real import real_ports
from .runtime import Runtime

if TYPE_CHECKING:
    # Of the checkers' own, for defaults, which `typing` has from 3.13 on: `Node[str]` is a node of any machine, or of none.
    from typing_extensions import TypeVar

    T = TypeVar("T")
    ResultT_co = TypeVar("ResultT_co", covariant=True, default=object)
    QueryT_contra = TypeVar("QueryT_contra", contravariant=True, default=Never)
    AnswerT_co = TypeVar("AnswerT_co", covariant=True, default=object)
else:
    from typing import TypeVar

    from ..ports import AnswerT_co, QueryT_contra, ResultT_co

    T = TypeVar("T")

__all__ = ["Node"]


class Node(Face[T], Generic[T, ResultT_co, QueryT_contra, AnswerT_co]):
    """One member of a cluster, in this process. An async context manager; `start` and `stop` do the same by hand.

        async with Node(1, nodes, entry_type=str, data_dir="data/1") as node:
            receipt = await node.propose("hello")
            entries = await node.index_range(1, receipt.index)

        async with Node(1, nodes, entry_type=Command, machine=Bank(), data_dir="data/1") as node:
            balance = await node.apply(Deposit("ann", 5))
            balance = await node.query(Balance("ann"))

    nodes: every member's address by id, or pairs of both. On the first start with a data directory this becomes the
        cluster's configuration; later the log alone says who is a member, and addresses here are hints.
    entry_type: `str`, `bytes` or any type that msgspec supports; every member must use the same.
    machine: a new state machine, to which this node applies the log from its first entry on (see `ports.StateMachine`); the
        entries are its commands. What it returns goes to the caller as it is, so let it be no part of its state that changes.
    data_dir: where the log is kept. None: the node is volatile; started anew it is another store, which the cluster refuses.
    bind: the address to listen on, if it is not the one in `nodes`.
    tls: (server, client) contexts for mutual authentication; certificates must name `node-<id>`.
    insecure_plaintext: allow unencrypted traffic beyond loopback.
    ports: what the node needs from outside, for simulation; the real ones by default.

    Raises ConfigurationError, from the constructor or from `start`, which also raises StorageError.
    """

    def __init__(
        self,
        id: NodeId,
        nodes: Mapping[NodeId, Address] | Iterable[tuple[NodeId, Address]],
        *,
        entry_type: type[T] | UnionType,
        machine: StateMachine[T, ResultT_co, QueryT_contra, AnswerT_co] | None = None,
        data_dir: str | PathLike[str] | None = None,
        bind: Address | None = None,
        tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
        insecure_plaintext: bool = False,
        settings: Settings | None = None,
        ports: Callable[[], Ports] | None = None,
    ) -> None:
        super().__init__(entry_type, settings)
        self._id = id
        self._nodes = checked_member(id, nodes)
        self._bind = bind or self._nodes[id]
        if ports is None:
            addresses = (self._bind, *self._nodes.values())
            require_safety(addresses, self._settings, encrypted=tls is not None, allowed=insecure_plaintext)
        self._ports = ports or (lambda: real_ports(data_dir, tls))
        self._runtime: Runtime | None = None
        self._applier = None if machine is None else Applier(machine, self._codec)

    if not TYPE_CHECKING:

        def __class_getitem__(cls, kinds: Any) -> Any:
            # `Node[str]` at run time, where the variables have no defaults.
            kinds = kinds if isinstance(kinds, tuple) else (kinds,)
            return super().__class_getitem__(
                kinds + (object, Never, object)[len(kinds) - 1 :] if cls is Node else kinds
            )

    # -- life

    async def start(self) -> None:
        """Open the log and listen; returns as soon as both are done, with or without a leader."""
        if self._runtime is not None:
            raise ConfigurationError("a node starts once: make a new Node")
        self._runtime = Runtime(
            self._id,
            self._nodes,
            self._codec.fingerprint,
            self._ports(),
            self._settings,
            self._bind,
            self._applier,
        )
        await self._runtime.start()

    async def stop(self) -> None:
        """Give every request an outcome, close the log, leave. Safe to call twice."""
        if self._runtime is not None:
            await self._runtime.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def stopped(self) -> BaseException | None:
        """Wait until the node has stopped; returns what stopped it, None if it was asked to."""
        return await self._backend().stopped()

    def status(self) -> NodeStatus:
        """What this node knows now, without asking anyone."""
        return self._backend().status()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._backend().address

    # -- the state machine

    def apply(self, command: T, *, timeout_s: float | None = None) -> asyncio.Future[ResultT_co]:
        """Append a command, once, and return what the machine returned for it, when it is committed and applied here.

        Raises CommandFailed if the machine raised; ConfigurationError without a machine; else as `propose` does.
        """
        return asked(lambda respond: self.submit_command(command, respond, timeout_s))

    def query(self, query: QueryT_contra, *, timeout_s: float | None = None) -> asyncio.Future[AnswerT_co]:
        """Ask the machine of this node, linearizably: its state holds all that was acknowledged before this call (thesis 6.4).

        Raises QueryFailed if the machine raised; ConfigurationError without a machine; Overloaded, Unavailable, NodeStopped.
        """
        return asked(lambda respond: self.submit_query(query, respond, timeout_s))

    def submit_command(
        self, command: T, respond: Callable[[Result[ResultT_co]], None], timeout_s: float | None = None
    ) -> None:
        """`apply` with a callback: `respond` is called once, on the node's loop, possibly at once."""
        try:
            applier, runtime = self._applying(), self._backend()
            payload = self._codec.encode(command)
            self._check_size((payload,))
            applier.apply(runtime, payload, _patience_s(timeout_s), respond)
        except RaftError as error:
            respond(Err(error))

    def submit_query(
        self,
        query: QueryT_contra,
        respond: Callable[[Result[AnswerT_co]], None],
        timeout_s: float | None = None,
    ) -> None:
        """`query` with a callback: `respond` is called once, on the node's loop, possibly at once."""
        try:
            self._applying().query(self._backend(), query, _patience_s(timeout_s), respond)
        except RaftError as error:
            respond(Err(error))

    def _applying(self) -> Applier[T, ResultT_co, QueryT_contra, AnswerT_co]:
        if self._applier is None:
            raise ConfigurationError("this node has no state machine: pass machine= to Node")
        return self._applier

    def _backend(self) -> Runtime:
        if self._runtime is None:
            raise NodeStopped(ConfigurationError("it was never started: use `async with`, or await start()"))
        return self._runtime
