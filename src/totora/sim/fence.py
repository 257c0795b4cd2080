"""What separates one life of a node from the next: behind a fallen fence no port does anything any more."""

from __future__ import annotations

__all__ = ["Fence"]


class Fence:
    """Shared by all ports of one incarnation; `fall` makes them deaf and mute at once, clean-up code included."""

    def __init__(self) -> None:
        self.fallen = False

    def fall(self) -> None:
        self.fallen = True
