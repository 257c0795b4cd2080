"""`RaftNode.start`: a node in a thread of its own, and a pair of channels to talk to it over.

    Requests -> _Pair (a Channel behind a lock) -> the node's loop -> _Pair -> Responses

The thread knows the pair, never the two ends: when the caller drops `Requests`, a finalizer tells the thread; nothing joins.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import queue
import ssl
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeVar

import msgspec

from ..aio.face import values_of
from ..aio.loops import new_event_loop
from ..aio.node import Node
from ..config import Settings
from ..errors import NodeStopped, Overloaded
from ..session.channel import REQUESTS_MAX, Channel, Ticket
from ..session.requests import AppendRequest, ClientRequest, Err, IndexRange, Response
from ..types import Address, NodeId, NodeStatus

__all__ = ["RaftNode", "Requests", "Responses"]

T = TypeVar("T")
R = TypeVar("R")

STOP_AT_EXIT_S: Final = 5.0
"""How long the end of the process waits for requests to be answered, and then for logs to be closed."""


def _is_read(request: ClientRequest[T]) -> bool:
    return isinstance(request, IndexRange)


class _Pair(Generic[T]):
    """What the two ends and the node's thread share. Every method may be called from any thread.

    watchers: what coroutines that wait on other loops left to be called, once each. They take theirs back without the lock.
    """

    def __init__(self, node: Node[T]) -> None:
        self.channel: Channel[ClientRequest[T], Response[T]] = Channel(_is_read)
        self.lock = threading.Lock()
        self.may_send = threading.Condition(self.lock)
        self.may_receive = threading.Condition(self.lock)
        self.pid = os.getpid()
        self.stopped: NodeStopped | None = None
        self.thread: threading.Thread | None = None
        self.watchers: set[Callable[[], None]] = set()
        self._node: Node[T] | None = node
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Future[None] | None = None
        self._pump_scheduled = False
        self._questions: list[Future[NodeStatus]] = []

    # -- from the ends

    @property
    def forked(self) -> bool:
        """This is a child of the node's process: the thread is not here, and the lock may be held for ever."""
        return os.getpid() != self.pid

    def check_alive(self) -> None:
        if self.forked:
            raise NodeStopped(
                RuntimeError("this process was forked from the node's: start a node after the fork")
            )

    def ended(self) -> NodeStopped:
        """To be raised: a new one each time, for each raise adds to an error's traceback."""
        return NodeStopped(None if self.stopped is None else self.stopped.cause)

    def wake_node(self) -> None:
        """Let the node look at the channel; the lock is held."""
        if not self._pump_scheduled and self._loop is not None and self.stopped is None:
            self._pump_scheduled = True
            self._loop.call_soon_threadsafe(self._pump)

    def close_sender(self) -> None:
        if self.forked:
            return
        with self.lock:
            if not self.channel.closed:
                self.channel.close()
                self.wake_node()
                self._tell()

    def discard_responses(self) -> None:
        with self.lock:
            self.channel.discard()

    def leave_word(self, callback: Callable[[], None]) -> None:
        """Have the node's thread call back. For finalizers: the collector runs them anywhere, also where the lock is held."""
        if self._loop is not None and not self.forked:
            with contextlib.suppress(RuntimeError):  # The loop is closed: the node has stopped.
                self._loop.call_soon_threadsafe(callback)

    def stop_now(self) -> None:
        """Do not wait for answers: what was sent gets another outcome."""
        self.leave_word(self._finish)

    def status(self) -> NodeStatus:
        """The node is asked on its own thread: elsewhere its state may change under the eyes of whoever looks."""
        question: Future[NodeStatus] = Future()
        with self.lock:
            if self.stopped is not None or self._loop is None:
                raise self.ended()
            self._questions.append(question)
            self._loop.call_soon_threadsafe(self._report)
        return question.result()

    def _tell(self) -> None:
        self.may_send.notify_all()
        self.may_receive.notify_all()
        watchers = list(self.watchers)
        self.watchers.clear()
        for watcher in watchers:
            watcher()

    # -- on the node's thread

    def _pump(self) -> None:
        """Take what may be carried out now, and hand it to the node."""
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
            assert self._node is not None, "what is taken is taken while the node runs"
            self._node.submit(request, lambda response, ticket=ticket: self._answer(ticket, response))  # type: ignore[misc]

    def _answer(self, ticket: Ticket[Response[T]], response: Response[T]) -> None:
        with self.lock:
            if self.channel.answer(ticket, response):
                self._tell()
            if self.channel.wants_node:
                self.wake_node()

    def _report(self) -> None:
        with self.lock:
            questions, self._questions = self._questions, []
        for question in questions:
            try:
                assert self._node is not None, "what is asked in time is answered while the node runs"
                question.set_result(self._node.status())
            except Exception as error:  # whoever asked waits for it
                question.set_exception(error)

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def run(self, started: Callable[[BaseException | None], None]) -> None:
        """The life of the node: until the sender is closed and all is answered, or the node stops by itself."""
        node = self._node
        assert node is not None, "a pair runs once"
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        try:
            await node.start()
        except BaseException as error:
            self.over(error)
            started(error)
            return
        started(None)
        self._pump()
        cause: BaseException | None = None
        stopped = asyncio.ensure_future(node.stopped())
        try:
            ends: list[asyncio.Future[Any]] = [self._done, stopped]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            cause = stopped.result() if stopped.done() else None
            await node.stop()
        except BaseException as error:
            cause = error
            raise
        finally:
            stopped.cancel()
            self.over(cause)

    def over(self, cause: BaseException | None) -> None:
        """Nothing happens any more: tell everyone who waits, and whoever asks later."""
        with self.lock:
            self.stopped = NodeStopped(cause)
            self.channel.abandon(Err(self.stopped))
            questions, self._questions = self._questions, []
            # Its log may fill much memory, and whoever still reads responses needs none of it.
            self._node = None
            self._tell()
        for question in questions:
            question.set_exception(self.ended())


class Requests(Generic[T]):
    """The sender's end. Closing or dropping it stops the node once everything that was sent has its response."""

    def __init__(self, pair: _Pair[T]) -> None:
        self._pair = pair
        weakref.finalize(self, pair.leave_word, pair.close_sender).atexit = False

    def send(self, request: ClientRequest[T], timeout: float | None = None) -> None:
        """Hand over a request; waits while the queue is full.

        timeout: seconds to wait; then, or at once while unread responses fill their queue, Overloaded. Raises InvalidRequest,
            NodeStopped.
        """
        request = _snapshot(request)
        pair = self._pair
        pair.check_alive()
        with pair.lock:
            if not pair.may_send.wait_for(lambda: self._offer(request), timeout):
                raise Overloaded(REQUESTS_MAX)

    async def send_async(self, request: ClientRequest[T], timeout: float | None = None) -> None:
        """`send` for coroutines, on any event loop."""
        request = _snapshot(request)
        self._pair.check_alive()
        try:
            async with asyncio.timeout(timeout):
                await _until(self._pair, lambda: self._offer(request) or None)
        except TimeoutError:
            raise Overloaded(REQUESTS_MAX) from None

    def _offer(self, request: ClientRequest[T]) -> bool:
        pair = self._pair
        if pair.stopped is not None:
            raise pair.ended()
        if pair.channel.closed:
            raise NodeStopped(RuntimeError("the sender was closed"))
        if pair.channel.offer(request):
            pair.wake_node()
            return True
        return False

    def status(self) -> NodeStatus:
        """What the node knows now (see `Node.status`). Raises NodeStopped."""
        self._pair.check_alive()
        return self._pair.status()

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
        weakref.finalize(self, pair.leave_word, pair.discard_responses).atexit = False

    def recv(self, timeout: float | None = None) -> Response[T]:
        """The next response. Raises TimeoutError after `timeout` seconds, NodeStopped when there will be none."""
        pair = self._pair
        pair.check_alive()
        with pair.lock:
            response = pair.may_receive.wait_for(self._poll, timeout)
        if response is None:
            raise TimeoutError(f"no response within {timeout} s")
        return response

    async def recv_async(self, timeout: float | None = None) -> Response[T]:
        """`recv` for coroutines, on any event loop."""
        self._pair.check_alive()
        try:
            async with asyncio.timeout(timeout):
                return await _until(self._pair, self._poll)
        except TimeoutError:
            raise TimeoutError(f"no response within {timeout} s") from None

    def _poll(self) -> Response[T] | None:
        response = self._pair.channel.poll()
        if response is None and self._pair.stopped is not None:
            raise self._pair.ended()
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
    pairs = [pair for pair in list(_pairs) if not pair.forked]
    for pair in pairs:
        pair.close_sender()
    _join(pairs)
    # Without a quorum nothing is answered for as long as requests wait; their outcome must not cost a log its clean end.
    for pair in pairs:
        pair.stop_now()
    _join(pairs)


def _join(pairs: Iterable[_Pair[Any]]) -> None:
    until = time.monotonic() + STOP_AT_EXIT_S
    for pair in pairs:
        if pair.thread is not None:
            pair.thread.join(max(0.0, until - time.monotonic()))


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
        node = Node(
            id,
            nodes,
            entry_type=entry_type,
            data_dir=data_dir,
            bind=bind,
            tls=tls,
            insecure_plaintext=insecure_plaintext,
            settings=settings,
        )
        pair = _Pair(node)
        outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        thread = threading.Thread(
            target=_run, args=(pair, outcome.put, use_uvloop), name=f"totora-{id}", daemon=True
        )
        pair.thread = thread
        _pairs.add(pair)
        thread.start()
        try:
            error = outcome.get()
        except BaseException:  # Ctrl-C: nobody gets the channels, so the node must not stay
            pair.close_sender()
            raise
        if error is not None:
            thread.join()
            raise error
        return Requests(pair), Responses(pair)


def _run(pair: _Pair[T], started: Callable[[BaseException | None], None], use_uvloop: bool) -> None:
    try:
        with asyncio.Runner(loop_factory=lambda: new_event_loop(use_uvloop=use_uvloop)) as runner:
            runner.get_loop()
            runner.run(pair.run(started))
    except BaseException as error:
        if pair.stopped is not None:
            raise
        # There is not even a loop, and somebody waits for the start.
        pair.over(error)
        started(error)


def _snapshot(request: ClientRequest[T]) -> ClientRequest[T]:
    """The sender may go on using its list of entries: the node reads it later, on another thread. Raises InvalidRequest."""
    if isinstance(request, IndexRange):
        return request
    if isinstance(request, AppendRequest):
        return msgspec.structs.replace(request, entries=values_of(request))
    raise TypeError(f"send takes an IndexRange or an AppendRequest, not {type(request).__name__}")


async def _until(pair: _Pair[T], attempt: Callable[[], R | None]) -> R:
    """The first result of `attempt`, which is made under the lock, now and whenever something changed."""
    loop = asyncio.get_running_loop()
    while True:
        changed: asyncio.Future[None] = loop.create_future()

        def wake(changed: asyncio.Future[None] = changed) -> None:
            with contextlib.suppress(RuntimeError):  # That loop is closed: nobody waits on it any more.
                loop.call_soon_threadsafe(lambda: None if changed.done() else changed.set_result(None))

        with pair.lock:
            result = attempt()
            if result is not None:
                return result
            pair.watchers.add(wake)
        try:
            await changed
        finally:
            # Without the lock: the collector may be what ends this coroutine, and may run where the lock is held.
            pair.watchers.discard(wake)
