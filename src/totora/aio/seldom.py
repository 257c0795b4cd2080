"""What may happen often and is worth a word only now and then. Bounded, whoever causes it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

__all__ = ["CAUSES_MAX", "Seldom"]

CAUSES_MAX: Final = 1_024
"""Causes that are remembered; while so many are fresh, further ones do not pass at all."""


class Seldom:
    """Lets each cause pass once per interval."""

    def __init__(self, every_ns: int) -> None:
        self._every_ns = every_ns
        self._passed: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._passed)

    def passes(self, cause: Hashable, now: int) -> bool:
        if now - self._passed.get(cause, -self._every_ns) < self._every_ns:
            return False
        if len(self._passed) >= CAUSES_MAX:
            self._passed = {known: ns for known, ns in self._passed.items() if now - ns < self._every_ns}
        if len(self._passed) >= CAUSES_MAX:
            return False
        self._passed[cause] = now
        return True
