"""What an entry costs at the edge, in instructions: `Face.propose` beside a future that is made, awaited and resolved.

    python -m bench.edge [--callers 1024]

Needs valgrind. Nothing is behind the edge: what is proposed in one turn of the loop is resolved in the next but one. Each
figure is the difference between a short and a long run, so that starting does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from bench.options import options_of
from totora.aio.face import Backend, Face
from totora.aio.loops import new_event_loop
from totora.session.units import Appended, Lot, ResolvePart

__all__ = ["main"]

ROOT: Final = Path(__file__).resolve().parent.parent
SHORT, LONG = 10_240, 30_720
REFS: Final = re.compile(r"I\s+refs:\s+([\d,]+)")


class Plain:
    """Futures by the turn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._entries: list[bytes] = []
        self._futures: list[asyncio.Future[None]] = []

    def propose(self, entry: bytes) -> asyncio.Future[None]:
        if not self._futures:
            self._loop.call_soon(self._flush)
        future: asyncio.Future[None] = self._loop.create_future()
        self._entries.append(entry)
        self._futures.append(future)
        return future

    def _flush(self) -> None:
        futures, self._futures = self._futures, []
        b"".join(self._entries)
        self._entries.clear()
        self._loop.call_soon(self._resolve, futures)

    def _resolve(self, futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            future.set_result(None)


class Edge(Face[bytes]):
    """The face, over a backend that commits whatever it gets."""

    def __init__(self) -> None:
        super().__init__(bytes, None)
        self._loop = asyncio.get_running_loop()
        self._next_index = 1

    def _backend(self) -> Backend:
        backend: Any = self
        found: Backend = backend
        return found

    def open_lot(self, need_bytes: int, limit_bytes: int, resolve: ResolvePart) -> Lot:
        lot = Lot(1, limit_bytes, 0, resolve)
        self._loop.call_soon(self._flush, lot)
        return lot

    def _flush(self, lot: Lot) -> None:
        lot.close()
        b"".join(lot.taken)
        self._loop.call_soon(self._resolve, lot)

    def _resolve(self, lot: Lot) -> None:
        assert lot.resolve is not None, "it is resolved once"
        lot.resolve(Appended(self._next_index, 1))
        self._next_index += lot.count


async def _play(what: str, callers: int, entries: int) -> None:
    propose: Callable[[bytes], Awaitable[object]] = (Plain() if what == "future" else Edge()).propose
    left = entries

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await propose(b"x" * 16)

    await asyncio.gather(*(caller() for _ in range(callers)))


def instructions(what: str, callers: int, collector: bool) -> int:
    """Of one entry."""

    def of(entries: int) -> int:
        command = [
            "valgrind",
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
            sys.executable,
        ]
        command += ["-m", "bench.edge", "--callers", str(callers), "--play", what, "--entries", str(entries)]
        command += [] if collector else ["--without-collector"]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr
        found = REFS.search(told)
        assert found is not None, told
        return int(found[1].replace(",", ""))

    return (of(LONG) - of(SHORT)) // (LONG - SHORT)


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__)
    parser.add_argument("--callers", type=int, default=1_024)
    parser.add_argument("--play", choices=("future", "propose"), help=argparse.SUPPRESS)
    parser.add_argument("--entries", type=int, default=SHORT, help=argparse.SUPPRESS)
    parser.add_argument("--without-collector", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.play:
        if options.without_collector:
            gc.disable()
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_play(options.play, options.callers, options.entries))
        return
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed: apt-get install valgrind")
    for what in ("future", "propose"):
        for collector in (True, False):
            figure = instructions(what, options.callers, collector)
            print(
                json.dumps({"bench": "edge", "what": what, "collector": collector, "instructions": figure}),
                flush=True,
            )


if __name__ == "__main__":
    main()
