"""Totora's node with a fault: it answers reads from what it has applied, and asks no leader. For tests of the harness."""

from __future__ import annotations

import sys
from collections.abc import Callable

from totora.sim.key_value import Get
from totora.testing.maelstrom import main
from totora.testing.maelstrom_node import MaelstromNode, Outcome


def ask(self: MaelstromNode, query: Get, resolve: Callable[[Outcome], None]) -> None:
    resolve(self._machine.key_value.query(query))


if __name__ == "__main__":
    MaelstromNode.ask = ask  # type: ignore[method-assign]
    sys.exit(main())
