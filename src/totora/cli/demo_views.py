"""What the demo looks like without a terminal: plain lines for a pipe, JSON lines for a program. Shows, decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

from ..types import NodeId, NodeStatus
from .text import escape, to_json

__all__ = ["Event", "JsonView", "Mark", "PlainView", "Scene", "Tone", "View"]

Tone: TypeAlias = Literal["fact", "good", "bad", "kill"]

Mark: TypeAlias = Literal["starting", "killed", "catching up", "stopped", "reading", "verified", "damaged"]
"""What a node is instead of a follower, a candidate or a leader."""

PROGRESS_STEPS: Final = 10
"""A plain progress line at every tenth."""

SIGNS: Final[dict[Tone, str]] = {"fact": "·", "good": "✓", "bad": "✗", "kill": "✗"}


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
    """All that can be seen.

    nodes: what each said last. marks: what it is instead of what it said.
    """

    title: str
    total: int
    nodes: dict[NodeId, NodeStatus | None]
    began_s: float = field(default_factory=time.monotonic)
    acknowledged: int = 0
    rate: float = 0.0
    marks: dict[NodeId, Mark] = field(default_factory=dict)
    story: list[Event] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began_s

    @property
    def share(self) -> float:
        return self.acknowledged / self.total

    def state(self, id: NodeId) -> str:
        """A node's mark, or else its role."""
        status = self.nodes[id]
        if id in self.marks:
            return self.marks[id]
        return "starting" if status is None else status.role


class View(Protocol):
    """A context manager that is told what changed. Raises OSError where nobody takes what it shows."""

    def __enter__(self) -> View: ...

    def __exit__(self, *_: object) -> None: ...

    def happened(self, event: Event) -> None: ...

    def moved(self) -> None:
        """The numbers in the scene changed; called some ten times a second."""
        ...


def _print(line: str) -> None:
    print(line, flush=True)


class PlainView:
    """For pipes and files."""

    def __init__(self, scene: Scene, write: Callable[[str], None] = _print) -> None:
        self._scene = scene
        self._write = write
        self._shown = 0

    def __enter__(self) -> PlainView:
        self._write(escape(self._scene.title))
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def happened(self, event: Event) -> None:
        self._write(f"{event.at_s:6.2f} s  {SIGNS[event.tone]} {escape(event.text)}")

    def moved(self) -> None:
        scene = self._scene
        step = PROGRESS_STEPS * scene.acknowledged // scene.total
        if step == self._shown:
            return
        self._shown = step
        nodes = ", ".join(f"node {id} {self._place(id)}" for id in scene.nodes)
        self._write(
            f"{scene.elapsed_s:6.2f} s    {scene.share:4.0%}  {scene.acknowledged:,} acknowledged, "
            f"{scene.rate:,.0f}/s; committed: {nodes}"
        )

    def _place(self, id: NodeId) -> str:
        status = self._scene.nodes[id]
        if id in self._scene.marks or status is None:
            return self._scene.state(id)
        return f"to {status.commit_index:,}"


class JsonView:
    """One JSON object a line: the story, and the numbers once a second."""

    def __init__(self, scene: Scene, write: Callable[[str], None] = _print) -> None:
        self._scene = scene
        self._write = write
        self._next_s = 0.0

    def __enter__(self) -> JsonView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _say(self, line: dict[str, Any]) -> None:
        self._write(to_json(line))

    def happened(self, event: Event) -> None:
        self._say({"event": event.name, "at_s": round(event.at_s, 3), **event.fields})

    def moved(self) -> None:
        scene = self._scene
        if (now_s := scene.elapsed_s) < self._next_s:
            return
        self._next_s = now_s + 1.0
        self._say(
            {
                "event": "progress",
                "at_s": round(now_s, 3),
                "acknowledged": scene.acknowledged,
                "total": scene.total,
                "lines_per_s": round(scene.rate),
                "nodes": [self._node(id, status) for id, status in scene.nodes.items()],
            }
        )

    def _node(self, id: NodeId, status: NodeStatus | None) -> dict[str, Any]:
        node = {"id": id, "state": self._scene.state(id)}
        if status is None:
            return node
        return node | {
            "term": status.term,
            "last_index": status.last_index,
            "commit_index": status.commit_index,
        }
