"""The asyncio face and the real forms of the ports."""

from .client import Client
from .node import Node

__all__ = ["Client", "Node"]
