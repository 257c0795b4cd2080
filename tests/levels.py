"""How thorough this run is: `LEVEL=quick`, the default, or `LEVEL=ci`, everything and nothing skipped."""

from __future__ import annotations

import os
from typing import Literal, TypeAlias, TypeVar, cast, get_args

__all__ = ["Level", "by_level", "level"]

Level: TypeAlias = Literal["quick", "ci"]
T = TypeVar("T")


def level() -> Level:
    """The level of this run."""
    named = os.environ.get("LEVEL") or "quick"
    if named not in get_args(Level):
        raise ValueError(f"LEVEL is {named!r}, but may be one of {', '.join(get_args(Level))}")
    return cast("Level", named)


def by_level(*, quick: T, ci: T) -> T:
    """The one of both that belongs to this run: `range(by_level(quick=20, ci=2_000))`."""
    return ci if level() == "ci" else quick
