"""The event loop that a node runs on: uvloop where it is installed."""

from __future__ import annotations

import asyncio

__all__ = ["new_event_loop"]


def new_event_loop(*, use_uvloop: bool = True) -> asyncio.AbstractEventLoop:
    """A new loop; uvloop's if it can be imported and is wanted."""
    if use_uvloop:
        try:
            import uvloop
        except ImportError:
            pass
        else:
            return uvloop.new_event_loop()
    return asyncio.new_event_loop()
