"""What `totora append` shows on stderr while it runs: nothing, a bar, or the place of each line that is typed."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..aio.client import Client
from ..types import Entry
from .health import ASK_S, trouble
from .text import count, escape

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Bar", "Display", "Typed", "display_for"]

FRAME_S: Final = 0.1
FRAMES_OF_RATE: Final = 20
BAR_MAX: Final = 40
BESIDE_BAR: Final = 34
PATIENCE_S: Final = 1.0
"""Lines that are unanswered for so long deserve a reason."""


class Display:
    """Shows nothing. A context manager."""

    def __init__(self) -> None:
        self.sent = 0
        self.appended = 0

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sending(self, lines: int) -> None:
        self.sent += lines

    def acknowledged(self, entries: Sequence[Entry[str]]) -> None:
        self.appended += len(entries)

    async def watch(self, client: Client[str]) -> None:
        """Runs while lines are sent."""


class _Live(Display, ABC):
    async def watch(self, client: Client[str]) -> None:
        """Shows what moves, and why nothing does."""
        moved_s, appended = time.monotonic(), -1
        while True:
            now = time.monotonic()
            if self.appended not in (appended, self.sent):
                moved_s = now
            appended = self.appended
            if appended == self.sent:
                moved_s = now
            waited_s = now - moved_s
            why = trouble(await client.statuses(timeout_s=ASK_S)) if waited_s > PATIENCE_S else None
            self.frame(why, waited_s)
            await asyncio.sleep(FRAME_S)

    @abstractmethod
    def frame(self, why: str | None, waited_s: float) -> None:
        """Called ten times a second; `why`: what keeps lines from being appended."""


class Typed(_Live):
    """For lines that a person types."""

    def __init__(self) -> None:
        super().__init__()
        self._said: str | None = None

    def __enter__(self) -> Typed:
        self._say("each line becomes an entry; Ctrl-D ends")
        return self

    def acknowledged(self, entries: Sequence[Entry[str]]) -> None:
        super().acknowledged(entries)
        self._said = None
        for entry in entries:
            self._say(f"  index {entry.index:,}")

    def frame(self, why: str | None, waited_s: float) -> None:
        if why is not None and why != self._said:
            self._said = why
            self._say(f"  waiting: {escape(why)}")

    def _say(self, what: str) -> None:
        print(what, file=sys.stderr)


class Bar(_Live):
    """For all else, on a terminal. size_bytes: of the source, where it is known."""

    def __init__(self, size_bytes: int | None, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self._size_bytes = size_bytes
        self._appended_bytes = 0
        self._past: deque[tuple[float, int]] = deque(maxlen=FRAMES_OF_RATE)
        self._console = console or Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Bar:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def acknowledged(self, entries: Sequence[Entry[str]]) -> None:
        super().acknowledged(entries)
        self._appended_bytes += sum(len(entry.value.encode()) + 1 for entry in entries)

    def frame(self, why: str | None, waited_s: float) -> None:
        self._past.append((time.monotonic(), self.appended))
        (since_s, before), (now_s, after) = self._past[0], self._past[-1]
        rate = (after - before) / (now_s - since_s) if now_s > since_s else 0.0
        waiting = None if why is None else f"waiting for {waited_s:.0f} s: {escape(why)}"
        self._live.update(self._picture(rate, waiting), refresh=True)

    def _picture(self, rate: float, waiting: str | None) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        row: list[RenderableType] = [Text(f"{count(self.appended, 'line')}  {rate:,.0f}/s")]
        if self._size_bytes:
            done = min(self._appended_bytes, self._size_bytes)
            width = max(1, min(BAR_MAX, self._console.width - BESIDE_BAR))
            bar = ProgressBar(self._size_bytes, done, width, complete_style="blue", finished_style="blue")
            row = [bar, Text(f"{done / self._size_bytes:4.0%}", style="bold"), *row]
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_row(*row)
        return table if waiting is None else Group(table, Text(waiting, style="yellow"))


def display_for(source: int, *, quiet: bool) -> Display:
    """What suits the source (a descriptor) and the terminal, if there is one."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return Display()
    if os.isatty(source):
        return Typed()
    status = os.fstat(source)
    return Bar(status.st_size if stat.S_ISREG(status.st_mode) else None)
