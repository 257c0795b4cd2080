"""`RaftNode.start`: a node in a thread of its own, and a pair of channels to talk to it over.

    Requests -> _Pair (a Channel behind a lock) -> the node's loop -> _Pair -> Responses

The thread knows the pair, never the two ends: when the caller drops `Requests`, a finalizer closes the sender; nothing joins.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import ssl
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from ..aio.loops import new_event_loop
from ..aio.node import Node
from ..config import Settings
from ..errors import NodeStopped, Overloaded
from ..session.channel import REQUESTS_MAX, Channel, Ticket
from ..session.requests import AppendRequest, ClientRequest, Err, IndexRange, Response
from ..types import Address, NodeId, NodeStatus

__all__ = ["RaftNode", "Requests", "Responses"]

T = TypeVar("T")

STOP_AT_EXIT_S: Final = 5.0
"""How long the end of the process waits for a node to close its log."""


def _is_read(request: ClientRequest[T]) -> bool:
    return isinstance(request, IndexRange)


class _Pair(Generic[T]):
    """What the two ends and the node's thread share. Every method may be called from any thread."""

    def __init__(self) -> None:
        self.channel: Channel[ClientRequest[T], Response[T]] = Channel(_is_read)
        self.lock = threading.Lock()
        self.may_send = threading.Condition(self.lock)
        self.may_receive = threading.Condition(self.lock)
        self.pid = os.getpid()
        self.stopped: NodeStopped | None = None
        self.node: Node[T] | None = None
        self.thread: threading.Thread | None = None
        self.watchers: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Future[None] | None = None
        self._pump_scheduled = False

    # -- from the ends

    def check_alive(self) -> None:
        if os.getpid() != self.pid:
            raise NodeStopped(
                RuntimeError("this process was forked from the node's: start a node after the fork")
            )

    def wake_node(self) -> None:
        """Let the node look at the channel; the lock is held."""
        if not self._pump_scheduled and self._loop is not None and self.stopped is None:
            self._pump_scheduled = True
            self._loop.call_soon_threadsafe(self._pump)

    def close_sender(self) -> None:
        with self.lock:
            if not self.channel.closed:
                self.channel.close()
                if os.getpid() == self.pid:
                    self.wake_node()

    def discard_responses(self) -> None:
        with self.lock:
            self.channel.discard()

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back once, on some thread, when either end may find something new; the lock is held."""
        self.watchers.append(callback)

    def _tell(self) -> None:
        self.may_send.notify_all()
        self.may_receive.notify_all()
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            watcher()

    # -- on the node's thread

    def _pump(self) -> None:
        """Take what may be carried out now, and hand it to the node."""
        node = self.node
        assert node is not None, "the node runs while its loop does"
        taken: list[tuple[Ticket[Response[T]], ClientRequest[T]]] = []
        with self.lock:
            self._pump_scheduled = False
            while (next_one := self.channel.take()) is not None:
                taken.append(next_one)
            if taken:
                self._tell()
            if self.channel.drained:
                self._finish()
        for ticket, request in taken:
            node.submit(request, lambda response, ticket=ticket: self._answer(ticket, response))  # type: ignore[misc]

    def _answer(self, ticket: Ticket[Response[T]], response: Response[T]) -> None:
        with self.lock:
            if self.channel.answer(ticket, response):
                self._tell()
            if self.channel.wants_node:
                self.wake_node()

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def run(self, started: Callable[[BaseException | None], None]) -> None:
        """The life of the node: until the sender is closed and all is answered, or the node stops by itself."""
        node = self.node
        assert node is not None
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        try:
            await node.start()
        except BaseException as error:
            started(error)
            return
        started(None)
        stopped = asyncio.ensure_future(node.stopped())
        ends: list[asyncio.Future[Any]] = [self._done, stopped]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        cause = stopped.result() if stopped.done() else None
        await node.stop()
        stopped.cancel()
        self._ended(cause)

    def _ended(self, cause: BaseException | None) -> None:
        with self.lock:
            self.stopped = NodeStopped(cause)
            self.channel.abandon(Err(self.stopped))
            self._tell()


class Requests(Generic[T]):
    """The sender's end. Closing or dropping it stops the node once everything that was sent has its response."""

    def __init__(self, pair: _Pair[T]) -> None:
        self._pair = pair
        weakref.finalize(self, pair.close_sender)

    def send(self, request: ClientRequest[T], timeout: float | None = None) -> None:
        """Hand over a request; waits while the queue is full.

        timeout: seconds to wait; then, or at once while unread responses fill their queue, Overloaded. Raises NodeStopped.
        """
        _check_request(request)
        pair = self._pair
        pair.check_alive()
        with pair.lock:
            while not self._offer(request):
                if not pair.may_send.wait(timeout):
                    raise Overloaded(REQUESTS_MAX)

    async def send_async(self, request: ClientRequest[T], timeout: float | None = None) -> None:
        """`send` for coroutines, on any event loop."""
        _check_request(request)
        pair = self._pair
        pair.check_alive()
        while True:
            with pair.lock:
                if self._offer(request):
                    return
                changed = _future_watch(pair)
            try:
                await asyncio.wait_for(changed, timeout)
            except TimeoutError:
                raise Overloaded(REQUESTS_MAX) from None

    def _offer(self, request: ClientRequest[T]) -> bool:
        pair = self._pair
        if pair.stopped is not None:
            raise pair.stopped
        if pair.channel.closed:
            raise NodeStopped(RuntimeError("the sender was closed"))
        if pair.channel.offer(request):
            pair.wake_node()
            return True
        return False

    def status(self) -> NodeStatus:
        """What the node knows now (see `Node.status`). Raises NodeStopped."""
        node = self._pair.node
        if self._pair.stopped is not None or node is None:
            raise self._pair.stopped or NodeStopped()
        return node.status()

    def close(self) -> None:
        """Nothing more will be sent. Does not wait; iterating over the responses does."""
        self._pair.close_sender()

    def __enter__(self) -> Requests[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Responses(Generic[T]):
    """The receiver's end: one response for each request, in the order of the requests. Dropping it discards them."""

    def __init__(self, pair: _Pair[T]) -> None:
        self._pair = pair
        weakref.finalize(self, pair.discard_responses)

    def recv(self, timeout: float | None = None) -> Response[T]:
        """The next response. Raises TimeoutError after `timeout` seconds, NodeStopped when there will be none."""
        pair = self._pair
        pair.check_alive()
        with pair.lock:
            while (response := self._poll()) is None:
                if not pair.may_receive.wait(timeout):
                    raise TimeoutError(f"no response within {timeout} s")
        return response

    async def recv_async(self, timeout: float | None = None) -> Response[T]:
        """`recv` for coroutines, on any event loop."""
        pair = self._pair
        pair.check_alive()
        while True:
            with pair.lock:
                response = self._poll()
                if response is not None:
                    return response
                changed = _future_watch(pair)
            await asyncio.wait_for(changed, timeout)

    def _poll(self) -> Response[T] | None:
        response = self._pair.channel.poll()
        if response is None and self._pair.stopped is not None:
            raise self._pair.stopped
        return response

    def __iter__(self) -> Iterator[Response[T]]:
        """Responses until the node has stopped; raises only if an error stopped it."""
        while True:
            try:
                yield self.recv()
            except NodeStopped as stopped:
                if stopped.cause is not None:
                    raise
                return

    async def __aiter__(self) -> AsyncIterator[Response[T]]:
        while True:
            try:
                yield await self.recv_async()
            except NodeStopped as stopped:
                if stopped.cause is not None:
                    raise
                return


_pairs: weakref.WeakSet[_Pair[Any]] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """The process ends: answer what was sent and close the logs, within a bounded time."""
    pairs = [pair for pair in _pairs if pair.pid == os.getpid()]
    for pair in pairs:
        pair.close_sender()
    for pair in pairs:
        if pair.thread is not None:
            pair.thread.join(STOP_AT_EXIT_S)


class RaftNode:
    """The ancestor's entry point; `totora.aio.Node` is the same node for asyncio."""

    @staticmethod
    def start(
        id: NodeId,
        nodes: Mapping[NodeId, Address] | Iterable[tuple[NodeId, Address]],
        *,
        entry_type: type[T],
        data_dir: str | os.PathLike[str] | None = None,
        bind: Address | None = None,
        tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
        insecure_plaintext: bool = False,
        settings: Settings | None = None,
        use_uvloop: bool = True,
    ) -> tuple[Requests[T], Responses[T]]:
        """Start a node in a thread of its own and return the channels to talk to it over.

        Returns once the address is bound and the log is open, with or without a leader; the parameters are those of `Node`.
        Both channels work from any thread and from any event loop. Close or drop `Requests` to stop the node.
        Raises ConfigurationError, StorageError.
        """
        pair: _Pair[T] = _Pair()
        pair.node = Node(
            id,
            nodes,
            entry_type=entry_type,
            data_dir=data_dir,
            bind=bind,
            tls=tls,
            insecure_plaintext=insecure_plaintext,
            settings=settings,
        )
        outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        thread = threading.Thread(
            target=_run, args=(pair, outcome.put, use_uvloop), name=f"totora-{id}", daemon=True
        )
        pair.thread = thread
        thread.start()
        error = outcome.get()
        if error is not None:
            thread.join()
            raise error
        _pairs.add(pair)
        return Requests(pair), Responses(pair)


def _run(pair: _Pair[T], started: Callable[[BaseException | None], None], use_uvloop: bool) -> None:
    with asyncio.Runner(loop_factory=lambda: new_event_loop(use_uvloop=use_uvloop)) as runner:
        runner.run(pair.run(started))


def _check_request(request: object) -> None:
    if not isinstance(request, IndexRange | AppendRequest):
        raise TypeError(f"send takes an IndexRange or an AppendRequest, not {type(request).__name__}")


def _future_watch(pair: _Pair[T]) -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(None))

    pair.watch(wake)
    return future
