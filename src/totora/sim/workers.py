"""An executor of processes that are known by what they do: one that dies fails its own task, and no other.

A pool of `concurrent.futures` breaks as a whole when a process dies, and cannot say whose task killed it. Here each process has
one task at a time. Processes are spawned, end with the process that made them, however that ends, and do not hear a terminal's
Ctrl-C.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Pipe, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

__all__ = ["WorkerDied", "Workers"]

P = ParamSpec("P")
T = TypeVar("T")

_Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]
_End: TypeAlias = Any
"""Of a pipe: its type is another one on Windows."""

_SPAWN: Final = multiprocessing.get_context("spawn")


class WorkerDied(RuntimeError):
    """The process that carried out a task is no more; `str()` says of what."""


class Workers(Executor):
    """So many processes, started when they are needed. Functions, arguments and results pass as pickles."""

    def __init__(self, count: int) -> None:
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._slots = [_Slot(self._tasks, f"worker-{number}") for number in range(1, count + 1)]
        self._started = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with self._lock:
            if self._closed:
                raise RuntimeError("the workers are shut down")
            future: Future[T] = Future()
            self._tasks.put((future, fn, args, kwargs))
            if self._started < len(self._slots):
                self._slots[self._started].thread.start()
                self._started += 1
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            if cancel_futures:
                self._cancel()
            if not self._closed:
                self._closed = True
                for _ in range(self._started):
                    self._tasks.put(None)
        if wait:
            for slot in self._slots[: self._started]:
                slot.thread.join()

    def kill(self) -> None:
        """Shut down at once: what runs fails with WorkerDied, what waits is cancelled."""
        self.shutdown(wait=False, cancel_futures=True)
        for slot in self._slots:
            slot.kill()
        self.shutdown()

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [pid for slot in self._slots if (pid := slot.pid) is not None]

    def _cancel(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                task = self._tasks.get_nowait()
                if task is not None:
                    task[0].cancel()
                    task[0].set_running_or_notify_cancel()
        if self._closed:  # what told the threads to end was taken out too
            for _ in range(self._started):
                self._tasks.put(None)


class _Slot:
    """A thread, and the process that it feeds."""

    def __init__(self, tasks: queue.SimpleQueue[_Task | None], name: str) -> None:
        self._tasks = tasks
        self._process: BaseProcess | None = None
        self._connection: _End | None = None
        self._lock = threading.Lock()
        self._killed = False
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def kill(self) -> None:
        """The process, and whichever would follow it."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, fn, args, kwargs = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                worked, result = self._carry_out((fn, args, kwargs))
            except BaseException as error:
                future.set_exception(error)
            else:
                (future.set_result if worked else future.set_exception)(result)
            del task, future, fn, args, kwargs
        self._end()

    def _carry_out(self, what: tuple[Any, ...]) -> tuple[bool, Any]:
        """Raises WorkerDied, and what a pickle raises."""
        connection, process = self._ready()
        try:
            connection.send(what)
            # A process that dies closes its end; where something else holds that open, its sentinel tells.
            if connection in wait([connection, process.sentinel]) or connection.poll():
                outcome: tuple[bool, Any] = connection.recv()
                return outcome
        except (EOFError, ConnectionError):
            pass
        self._end()
        raise WorkerDied(_told(process.exitcode))

    def _ready(self) -> tuple[_End, BaseProcess]:
        with self._lock:
            if self._killed:
                raise WorkerDied("the workers are shut down")
            if self._process is None or self._connection is None:
                ours, theirs = Pipe()
                process = _SPAWN.Process(target=_work, args=(theirs,), name=self.thread.name, daemon=True)
                with theirs, _deaf_to_interrupts():
                    process.start()
                self._process, self._connection = process, ours
            return self._connection, self._process

    def _end(self) -> None:
        """Let the process end: it does when nobody can give it anything any more."""
        with self._lock:
            process, self._process = self._process, None
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if process is not None:
            process.join()


def _told(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"its process died of {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


@contextmanager
def _deaf_to_interrupts() -> Generator[None]:
    """A process that is started now never hears SIGINT: a terminal's Ctrl-C is for the one that started it."""
    resource_tracker.ensure_running()  # it is started with the first process, and unblocks the signal then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: _End) -> None:
    """What a process does: one task after the other, until nobody gives it any."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        outcome: tuple[bool, Any]
        try:
            fn, args, kwargs = connection.recv()
            outcome = True, fn(*args, **kwargs)
        except (EOFError, ConnectionError):
            return
        except Exception as error:
            outcome = False, error
        try:
            connection.send(outcome)
        except ConnectionError:
            return
        except Exception as error:  # a result that has no pickle
            connection.send((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
