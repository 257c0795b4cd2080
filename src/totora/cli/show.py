"""`totora log` and `totora status`: what a cluster holds, and how it is."""

from __future__ import annotations

import sys
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..aio.client import Client
from ..errors import RaftError
from ..types import Address, LogIndex, NodeId, NodeStatus
from .options import Failed, escape

__all__ = ["show_log", "show_status"]

WIDTH_IN_A_PIPE: Final = 160


async def show_log(client: Client[str], first: LogIndex, last: LogIndex | None, *, as_json: bool) -> None:
    """The entries from `first` to `last`; None: to the end."""
    write = sys.stdout.write
    async with client:
        async for entry in client.entries(first):
            if last is not None and entry.index > last:
                break
            if as_json:
                write(msgspec.json.encode(entry).decode() + "\n")
            else:
                write(f"{entry.index:>8} {entry.term:>5}  {escape(entry.value)}\n")
    sys.stdout.flush()


async def show_status(
    client: Client[str], nodes: dict[NodeId, Address], *, timeout_s: float, as_json: bool
) -> None:
    """Each node's state, and why there is no leader. Raises Failed if no node answers."""
    async with client:
        found = await client.statuses(timeout_s=timeout_s)
    if as_json:
        for id, status in found.items():
            known = {"id": id, "error": str(status)} if isinstance(status, RaftError) else status
            print(msgspec.json.encode(known).decode())
    else:
        console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        if not console.is_terminal:
            console.width = WIDTH_IN_A_PIPE
        console.print(_table(found, nodes))
        for line in _remarks(found):
            console.print(Text(line))
    if all(isinstance(status, RaftError) for status in found.values()):
        raise Failed("no node answers: is one running at these addresses?")


def _table(found: dict[NodeId, NodeStatus | RaftError], nodes: dict[NodeId, Address]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("node", "address", "role"):
        table.add_column(name)
    for name in ("term", "last", "commit", "applied"):
        table.add_column(name, justify="right")
    for id, status in found.items():
        host, port = nodes[id]
        address = f"{host}:{port}"
        if isinstance(status, NodeStatus):
            numbers = (status.term, status.last_index, status.commit_index, status.applied_index)
            style = "bold green" if status.role == "leader" else ""
            table.add_row(str(id), address, Text(status.role, style=style), *(f"{n:,}" for n in numbers))
        else:
            table.add_row(str(id), address, Text("unreachable", style="red"))
    return table


def _remarks(found: dict[NodeId, NodeStatus | RaftError]) -> list[str]:
    """Sentences about what is amiss, each once."""
    answered = [status for status in found.values() if isinstance(status, NodeStatus)]
    remarks = [
        f"node {id}: {escape(str(error))}" for id, error in found.items() if isinstance(error, RaftError)
    ]
    for status in answered:
        if status.why is not None:
            remarks.append(f"node {status.id}: {escape(status.why)}")
        refusals = {peer.id: peer.refused for peer in status.peers if peer.refused is not None}
        remarks += [f"node {status.id} and node {id}: {escape(why)}" for id, why in refusals.items()]
        if status.volatile:
            remarks.append(f"node {status.id} keeps its log in memory only")
    leading = [status for status in answered if status.role == "leader"]
    if answered and not leading:
        remarks.insert(0, "there is no leader")
    return list(dict.fromkeys(remarks))
