"""The asyncio face and the real forms of the ports."""

from .node import Node

__all__ = ["Node"]
