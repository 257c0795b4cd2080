"""A match over a closed union that forgets a member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never


@dataclass(slots=True)
class Persisted:
    token: int


@dataclass(slots=True)
class Received:
    payload: bytes


Event: TypeAlias = Persisted | Received


def size_bytes(event: Event) -> int:
    match event:
        case Persisted():
            return 0
        case _:
            assert_never(event)  # E: Received is not handled
