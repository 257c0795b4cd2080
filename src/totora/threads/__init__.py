"""The channel face: the ancestor's `RaftNode.start`, for plain threads and for asyncio. A thin portal onto `aio`."""

from .node import RaftNode, Requests, Responses

__all__ = ["RaftNode", "Requests", "Responses"]
