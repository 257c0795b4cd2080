"""Nodes in threads of their own and their channels: alone, of a cluster whose others do not run, and held up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from tests.processes.waiting import HANG_S, QUICK
from totora import Entry, Err, Ok, RaftNode, Requests, Response, Responses, Settings
from totora.cli.demo_cluster import free_addresses
from totora.threads import node as threads

__all__ = [
    "PATIENT",
    "Pair",
    "alone",
    "channel_of",
    "cut_off",
    "drained",
    "error_in",
    "held_up",
    "pair_of",
    "received",
    "script",
    "thread_of",
    "values",
]

T = TypeVar("T")

Pair: TypeAlias = tuple[Requests[T], Responses[T]]

PATIENT: Final = Settings(
    heartbeat_s=0.05, election_min_s=0.3, election_max_s=0.6, segment_bytes=1 << 20, request_timeout_s=HANG_S
)
"""Requests wait for as long as a test may take."""


def pair_of(end: Requests[T] | Responses[T]) -> threads._Pair[T]:
    return end._pair


def channel_of(end: Requests[T] | Responses[T]) -> Any:
    return end._pair.channel


def thread_of(end: Requests[T] | Responses[T]) -> threading.Thread:
    thread = end._pair.thread
    assert thread is not None
    return thread


def drained(requests: Requests[T], responses: Responses[T]) -> list[Response[T]]:
    """Close the sender; what was not read yet."""
    requests.close()
    rest = list(responses)
    thread_of(requests).join(HANG_S)
    assert not thread_of(requests).is_alive()
    return rest


@contextmanager
def alone(
    folder: Path | None = None, *, settings: Settings = QUICK, use_uvloop: bool = True
) -> Generator[Pair[str]]:
    """A cluster of one, which answers everything; volatile without a folder."""
    requests, responses = RaftNode.start(
        1, free_addresses(1), entry_type=str, data_dir=folder, settings=settings, use_uvloop=use_uvloop
    )
    try:
        yield requests, responses
    finally:
        requests.close()
        thread_of(requests).join(HANG_S)
    assert not thread_of(requests).is_alive()


@contextmanager
def cut_off(settings: Settings = PATIENT) -> Generator[Pair[str]]:
    """One node of three, the others do not run: it answers nothing before its time is over."""
    requests, responses = RaftNode.start(1, free_addresses(3), entry_type=str, settings=settings)
    try:
        yield requests, responses
    finally:
        pair_of(requests).stop_now()
        thread_of(requests).join(HANG_S)
    assert not thread_of(requests).is_alive()


@contextmanager
def held_up(requests: Requests[T]) -> Generator[None]:
    """The node's thread does nothing meanwhile, as if its process had been stopped."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait(HANG_S)

    loop = pair_of(requests)._loop
    assert loop is not None
    loop.call_soon_threadsafe(hold)
    assert held.wait(HANG_S)
    try:
        yield
    finally:
        release.set()


def received(responses: Responses[T], count: int) -> list[Response[T]]:
    return [responses.recv(timeout=HANG_S) for _ in range(count)]


def values(response: Response[T]) -> list[T]:
    assert isinstance(response, Ok), response
    entries: Sequence[Entry[T]] = response.value
    return [entry.value for entry in entries]


def error_in(response: Response[T]) -> BaseException:
    assert isinstance(response, Err), response
    return response.error


def script(text: str, *arguments: str) -> str:
    """Run a script in another process; what it printed. It must end by itself, without a word on stderr."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", text, *arguments],
        capture_output=True,
        text=True,
        timeout=2 * HANG_S,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    return ended.stdout
