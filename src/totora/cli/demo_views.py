"""What the demo looks like: live on a terminal, plain lines in a pipe, JSON lines for a program. Shows, decides nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import msgspec

from ..types import NodeId, NodeStatus

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType

__all__ = ["Event", "JsonView", "LiveView", "PlainView", "Scene", "View"]

Tone: TypeAlias = Literal["fact", "good", "bad", "kill"]

PROGRESS_STEPS: Final = 10
"""A plain progress line at every tenth."""

MARKS: Final[dict[Tone, str]] = {"fact": "·", "good": "✓", "bad": "✗", "kill": "✗"}
STYLES: Final[dict[Tone, str]] = {"fact": "default", "good": "green", "bad": "bold red", "kill": "bold red"}


@dataclass(slots=True, frozen=True)
class Event:
    """One line of the story.

    name, fields: for programs. text: for people.
    """

    at_s: float
    name: str
    text: str
    tone: Tone = "fact"
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Scene:
    """All that can be seen. `dead`: killed and not started again yet."""

    title: str
    total: int
    nodes: dict[NodeId, NodeStatus | None]
    began_s: float = field(default_factory=time.monotonic)
    acknowledged: int = 0
    rate: float = 0.0
    dead: set[NodeId] = field(default_factory=set)
    stopped: bool = False
    story: list[Event] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began_s

    def state(self, id: NodeId) -> str:
        """A node's role, or what it is instead."""
        status = self.nodes[id]
        if id in self.dead:
            return "killed"
        if self.stopped:
            return "stopped"
        return "starting" if status is None else status.role


class View(Protocol):
    """A context manager that is told what changed."""

    def __enter__(self) -> View: ...

    def __exit__(self, *_: object) -> None: ...

    def happened(self, event: Event) -> None: ...

    def moved(self) -> None:
        """The numbers in the scene changed; called some ten times a second."""
        ...


class PlainView:
    """For pipes and files."""

    def __init__(self, scene: Scene, write: Callable[[str], None] | None = None) -> None:
        self._scene = scene
        self._write = write or (lambda line: print(line, flush=True))
        self._shown = 0

    def __enter__(self) -> PlainView:
        self._write(self._scene.title)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def happened(self, event: Event) -> None:
        self._write(f"{event.at_s:6.2f} s  {MARKS[event.tone]} {event.text}")

    def moved(self) -> None:
        scene = self._scene
        step = PROGRESS_STEPS * scene.acknowledged // scene.total
        if step == self._shown:
            return
        self._shown = step
        indexes = ", ".join(
            f"node {id} {'killed' if id in scene.dead else f'at {status.commit_index:,}' if status else 'starting'}"
            for id, status in scene.nodes.items()
        )
        self._write(
            f"{scene.elapsed_s:6.2f} s    {scene.acknowledged / scene.total:4.0%}  {scene.acknowledged:,} lines acknowledged, "
            f"{scene.rate:,.0f}/s; committed: {indexes}"
        )


class JsonView:
    """One JSON object a line: the story, and the numbers once a second."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._next_s = 0.0

    def __enter__(self) -> JsonView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _say(self, line: dict[str, Any]) -> None:
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()

    def happened(self, event: Event) -> None:
        self._say({"event": event.name, "at_s": round(event.at_s, 3), **event.fields})

    def moved(self) -> None:
        scene = self._scene
        if (now := scene.elapsed_s) < self._next_s:
            return
        self._next_s = now + 1.0
        nodes = [
            {"id": id, "role": scene.state(id)}
            | (
                {"term": status.term, "last_index": status.last_index, "commit_index": status.commit_index}
                if status
                else {}
            )
            for id, status in scene.nodes.items()
        ]
        self._say(
            {
                "event": "progress",
                "at_s": round(now, 3),
                "acknowledged": scene.acknowledged,
                "total": scene.total,
                "lines_per_s": round(scene.rate),
                "nodes": nodes,
            }
        )


ROLE_STYLES: Final = {
    "leader": "bold green",
    "follower": "cyan",
    "pre-candidate": "yellow",
    "candidate": "yellow",
    "starting": "dim",
    "killed": "bold red",
    "stopped": "dim",
}
ROLE_MARKS: Final = {"leader": "★", "killed": "✗", "stopped": "■", "starting": "…"}


class LiveView:
    """For terminals: three nodes, a bar, and the story below."""

    def __init__(self, scene: Scene, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._scene = scene
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, get_renderable=self._picture)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.refresh()
        self._live.stop()

    def happened(self, event: Event) -> None:
        self._live.refresh()

    def moved(self) -> None:
        self._live.refresh()

    def _picture(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        scene = self._scene
        return Group(
            Text(scene.title, style="bold"), Text(), self._nodes(), Text(), self._bar(), Text(), self._story()
        )

    def _nodes(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        scene = self._scene
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
        table.add_column("node")
        table.add_column("role", min_width=15)
        for name in ("term", "last index", "commit index"):
            table.add_column(name, justify="right", min_width=len(name) + 1)
        table.add_column("", min_width=20)
        for id, status in scene.nodes.items():
            state = scene.state(id)
            style = ROLE_STYLES[state]
            role = Text(f"{ROLE_MARKS.get(state, '●')} {state}", style=style)
            if status is None:
                table.add_row(Text(str(id), style="bold"), role, "", "", "", "")
                continue
            bar = ProgressBar(
                total=scene.total,
                completed=min(status.commit_index, scene.total),
                width=20,
                complete_style=style,
                finished_style=style,
            )
            dim = "dim" if id in scene.dead else "default"
            numbers = (str(status.term), f"{status.last_index:,}", f"{status.commit_index:,}")
            table.add_row(
                Text(str(id), style="bold"), role, *(Text(number, style=dim) for number in numbers), bar
            )
        return table

    def _bar(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        scene = self._scene
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_row(
            ProgressBar(total=scene.total, completed=scene.acknowledged, width=40),
            Text(f"{scene.acknowledged / scene.total:4.0%}", style="bold"),
            Text(f"{scene.acknowledged:,} of {scene.total:,} lines acknowledged"),
            Text(f"{scene.rate:,.0f}/s" if scene.rate else "", style="dim"),
        )
        return table

    def _story(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(justify="right", style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for event in self._scene.story:
            style = STYLES[event.tone]
            table.add_row(
                f"{event.at_s:.2f} s", Text(MARKS[event.tone], style=style), Text(event.text, style=style)
            )
        return table
