"""What the demo looks like on a terminal: three nodes and how far each is, and the story below, which stays."""

from __future__ import annotations

from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..types import NodeId
from .demo_views import SIGNS, Event, Scene, Tone
from .text import escape

__all__ = ["LiveView"]

STYLES: Final[dict[Tone, str]] = {"fact": "", "good": "green", "bad": "bold red", "kill": "bold red"}

STATE_STYLES: Final = {
    "leader": "bold green",
    "follower": "cyan",
    "pre-candidate": "yellow",
    "candidate": "yellow",
    "catching up": "yellow",
    "killed": "bold red",
    "reading": "yellow",
    "verified": "green",
    "damaged": "bold red",
}
STATE_SIGNS: Final = {
    "leader": "★",
    "follower": "●",
    "pre-candidate": "○",
    "candidate": "○",
    "catching up": "↻",
    "killed": "✗",
    "starting": "…",
    "stopped": "■",
    "reading": "…",
    "verified": "✓",
    "damaged": "✗",
}

BAR_MIN: Final = 10
BAR_MAX: Final = 40
BESIDE_NODE_BAR: Final = 47
BESIDE_BAR: Final = 42
"""Columns that all else in a row takes."""

ABOVE_STORY: Final = 10
"""Lines, with the nodes."""


class LiveView:
    """Redraws in place; the last picture stays."""

    def __init__(self, scene: Scene, console: Console | None = None) -> None:
        self._scene = scene
        self._console = console or Console(highlight=False)
        self._ended = False
        self._live = Live(console=self._console, auto_refresh=False, get_renderable=self.picture)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._live.refresh()
        self._live.stop()

    def happened(self, event: Event) -> None:
        self._live.refresh()

    def moved(self) -> None:
        self._live.refresh()

    def picture(self) -> RenderableType:
        """All that is seen now."""
        gap = Text()
        title = Text(escape(self._scene.title), style="bold")
        return Group(title, gap, self._nodes(), gap, self._progress(), gap, self._story())

    def _nodes(self) -> Table:
        """How far each is can be compared at a glance."""
        width = min(BAR_MAX, self._console.width - BESIDE_NODE_BAR)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("node", no_wrap=True)
        table.add_column("state", no_wrap=True, min_width=15)
        table.add_column("term", justify="right", no_wrap=True)
        table.add_column("committed", justify="right", no_wrap=True, min_width=9)
        if width >= BAR_MIN:
            table.add_column("", width=width)
        for id in self._scene.nodes:
            table.add_row(*self._node(id, width)[: len(table.columns)])
        return table

    def _node(self, id: NodeId, width: int) -> tuple[RenderableType, ...]:
        scene = self._scene
        status, state = scene.nodes[id], scene.state(id)
        style = STATE_STYLES.get(state, "dim")
        name, role = Text(str(id), style="bold"), Text(f"{STATE_SIGNS[state]} {state}", style=style)
        if status is None:
            return name, role, "", "", ""
        number_style = "dim" if state == "killed" else ""
        numbers = (Text(text, style=number_style) for text in (str(status.term), f"{status.commit_index:,}"))
        return name, role, *numbers, self._bar(status.commit_index, width, style)

    def _progress(self) -> RenderableType:
        scene = self._scene
        width = min(BAR_MAX, self._console.width - BESIDE_BAR)
        words = Text.assemble(
            (f"{scene.share:4.0%}", "bold"),
            f"  {scene.acknowledged:,} acknowledged",
            (f"  {scene.rate:,.0f}/s" if scene.rate else "", "dim"),
        )
        if width < BAR_MIN:
            return words
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_row(self._bar(scene.acknowledged, width, "blue"), words)
        return table

    def _bar(self, completed: int, width: int, style: str) -> ProgressBar:
        total = self._scene.total
        return ProgressBar(
            total=total,
            completed=min(completed, total),
            width=width,
            complete_style=style,
            finished_style=style,
        )

    def _story(self) -> RenderableType:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(justify="right", style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1, overflow="fold")
        # While it is redrawn the picture must fit; at the end all of it is left.
        room = max(1, self._console.height - ABOVE_STORY)
        for event in self._scene.story if self._ended else self._scene.story[-room:]:
            style = STYLES[event.tone]
            words = Text(escape(event.text), style=style)
            table.add_row(f"{event.at_s:.2f} s", Text(SIGNS[event.tone], style=style), words)
        return table
