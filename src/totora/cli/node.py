"""`totora node`: one node of a cluster whose entries are text, in this process, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from ..aio.node import Node
from ..config import Settings
from ..errors import RaftError
from ..types import Address, NodeId
from .options import Security, escape

__all__ = ["run_node"]

_TELLS: Final = {
    "started": "listens on {address}; its log ends at {last_index:,}, incarnation {incarnation}",
    "volatile": "keeps its log in memory only: {remedy}",
    "became_follower": "follows {leader} in term {term}",
    "became_pre_candidate": "looks for a leader, term {term}",
    "became_candidate": "asks for votes in term {term}",
    "became_leader": "leads in term {term}",
    "link_up": "is linked to node {peer}",
    "link_lost": "lost its link to node {peer}",
    "peer_trouble": "{peer}: {why}",
    "failed": "failed: {cause}",
    "not_closed": "did not close its log: {cause}",
    "stopped": "has stopped",
}


class _Teller(logging.Handler):
    """The node's events, a line each."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = getattr(record, "fields", {})
        event = record.getMessage()
        if self._as_json:
            moment = {"at": round(record.created, 3), "level": record.levelname.lower(), "event": event}
            line = msgspec.json.encode(moment | fields).decode()
        else:
            known = {**fields, "leader": f"node {fields['leader']}" if fields.get("leader") else "nobody"}
            tell = _TELLS.get(event, event).format_map(known)
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            line = f"{clock}.{int(record.msecs):03d} node {fields.get('node', '?')} {escape(tell)}"
        with contextlib.suppress(BrokenPipeError):
            print(line, file=sys.stdout if self._as_json else sys.stderr, flush=True)


async def run_node(
    id: NodeId,
    nodes: dict[NodeId, Address],
    data: Path | None,
    *,
    bind: Address | None,
    transport: Literal["tcp", "udp"],
    security: Security,
    as_json: bool,
) -> None:
    """Until SIGTERM or Ctrl-C, then a clean stop; raises the error that stopped the node otherwise."""
    logger = logging.getLogger("totora")
    teller = _Teller(as_json)
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    try:
        async with Node(
            id,
            nodes,
            entry_type=str,
            data_dir=data,
            bind=bind,
            tls=security.tls,
            insecure_plaintext=security.insecure_plaintext,
            settings=Settings(transport=transport),
        ) as node:
            ended = asyncio.ensure_future(node.stopped())
            for number in (signal.SIGTERM, signal.SIGINT):
                with contextlib.suppress(NotImplementedError):
                    asyncio.get_running_loop().add_signal_handler(number, ended.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                cause = await ended
                if isinstance(cause, RaftError | OSError):
                    raise cause
    finally:
        logger.removeHandler(teller)
