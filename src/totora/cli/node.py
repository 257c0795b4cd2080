"""`totora node`: one node of a cluster whose entries are text, in this process, until it is told to stop."""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal

from ..aio.node import Node
from ..config import Settings
from ..errors import RaftError
from ..types import Address, NodeId
from .ending import Interrupted, discard
from .options import Security
from .running import run
from .text import escape, to_json

__all__ = ["run_node"]

_TELLS: Final = {
    "started": "listens on {address}; its log ends at {last_index:,}; start {incarnation} of it",
    "volatile": "keeps its log in memory only: give --data to keep it on disk",
    "became_follower": "follows node {leader} in term {term}",
    "became_pre_candidate": "asks who would vote for it, in term {term}",
    "became_candidate": "asks for votes in term {term}",
    "became_leader": "leads in term {term}",
    "link_up": "is linked to node {peer}",
    "link_lost": "lost its link to node {peer}",
    "peer_trouble": "has trouble with {peer}: {why}",
    "failed": "failed: {cause}",
    "not_closed": "could not close its log: {cause}",
    "stopped": "has stopped",
}


class _Teller(logging.Handler):
    """The node's events, a line each: words on stderr, or JSON on stdout."""

    def __init__(self, id: NodeId, as_json: bool) -> None:
        super().__init__()
        self._id = id
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"node": self._id, **getattr(record, "fields", {})}
        event = record.getMessage()
        if record.exc_info is not None:
            fields["cause"] = repr(record.exc_info[1])
        if self._as_json:
            moment = {"at": round(record.created, 3), "level": record.levelname.lower(), "event": event}
            line = to_json(moment | fields)
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            line = f"{clock}.{int(record.msecs):03d} node {self._id} {escape(_tell(event, fields))}"
        stream = sys.stdout if self._as_json else sys.stderr
        try:
            print(line, file=stream, flush=True)
        except OSError:
            discard(stream)  # that nobody reads it, or has room for it, is no reason to stop a node


def _tell(event: str, fields: dict[str, Any]) -> str:
    if event == "became_follower" and not fields.get("leader"):
        return f"waits for a leader in term {fields.get('term')}"
    if event in _TELLS:
        return _TELLS[event].format_map(fields)
    return " ".join([event, *(f"{name}={value}" for name, value in fields.items() if name != "node")])


def run_node(
    id: NodeId,
    nodes: dict[NodeId, Address],
    data: Path | None,
    *,
    bind: Address | None,
    transport: Literal["tcp", "udp"],
    security: Security,
    as_json: bool,
) -> None:
    """The command. Until SIGTERM, or Ctrl-C: raises SystemExit then; raises the error that stopped the node otherwise."""

    async def running() -> None:
        async with Node(
            id,
            nodes,
            entry_type=str,
            data_dir=data,
            bind=bind,
            tls=security.contexts(),
            insecure_plaintext=security.insecure_plaintext,
            settings=Settings(transport=transport),
        ) as node:
            cause = await node.stopped()
            if isinstance(cause, RaftError | OSError):
                raise cause
            if cause is not None:
                raise RuntimeError("a node stops for no other reason") from cause

    logger = logging.getLogger("totora")
    teller = _Teller(id, as_json)
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    try:
        run(running, "in order")
    except Interrupted as interrupted:
        # The node has said that it has stopped. SIGTERM is how those who look after services ask for that.
        raise SystemExit(0 if interrupted.number == signal.SIGTERM else 128 + interrupted.number) from None
    finally:
        logger.removeHandler(teller)
