"""Other systems, driven the same way."""

from __future__ import annotations

from typing import Any

from bench.loads import Figure
from bench.processor import Spent

__all__ = ["figure_of"]


def figure_of(answer: dict[str, Any], spent: Spent) -> Figure:
    """What the peer's load told of itself, and its nodes took meanwhile."""
    return Figure(
        answer["per_s"],
        answer["p50_ms"],
        answer["p99_ms"],
        spent.cpu_us(answer["all"]),
        answer["failed"],
        spent.peak_mib,
    )
