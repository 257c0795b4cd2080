"""`totora status`: how each node of a cluster is, and what is amiss."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ..aio.client_stream import spell
from ..errors import RaftError
from ..types import Address, NodeId, NodeStatus
from .ending import Failed
from .health import Found, remarks, silence
from .options import Security
from .running import open_client, run
from .text import escape, is_colorful, to_json

__all__ = ["print_status", "report"]

COLUMNS: Final = ("node", "address", "role", "term", "last", "commit", "applied")
LEFT: Final = frozenset(("node", "address", "role"))
DISPENSABLE: Final = ("address", "applied", "last")
"""Left out in this order where a terminal is too narrow."""

STYLES: Final[Mapping[str, str]] = {
    "leader": "1;32",
    "candidate": "33",
    "pre-candidate": "33",
    "unreachable": "31",
}


def print_status(
    nodes: dict[NodeId, Address], security: Security, *, timeout_s: float, as_json: bool
) -> None:
    """The command. Raises Failed if no node answers, Interrupted, OSError, RaftError."""

    async def asking() -> Found:
        async with open_client(nodes, security) as client:
            return await client.statuses(timeout_s=timeout_s)

    found = run(asking, "at once")
    if as_json:
        for id, status in found.items():
            print(_as_json(id, nodes[id], status))
    else:
        colorful = is_colorful(sys.stdout)
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in report(found, nodes, width=width, colorful=colorful):
            print(line)
    if all(isinstance(status, RaftError) for status in found.values()):
        raise Failed("no node answers")


def _as_json(id: NodeId, address: Address, status: NodeStatus | RaftError) -> str:
    said = {"error": silence(status)} if isinstance(status, RaftError) else msgspec.to_builtins(status)
    return to_json({"id": id, "address": spell(address), **said})


def report(found: Found, nodes: Mapping[NodeId, Address], *, width: int | None, colorful: bool) -> list[str]:
    """A table, and what is amiss below it. width: of the terminal; None: there is none."""
    rows = [_row(id, nodes[id], status) for id, status in found.items()]
    columns = _that_fit(rows, width)
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    lines = [_styled(_joined({name: name for name in columns}, widths), "2", colorful)]
    lines += [_styled(_joined(row, widths), STYLES.get(row["role"], ""), colorful) for row in rows]
    amiss = remarks(found, nodes)
    if amiss:
        lines.append("")
    for remark in map(escape, amiss):
        lines += [remark] if width is None else textwrap.wrap(remark, max(width, 20), subsequent_indent="  ")
    return lines


def _row(id: NodeId, address: Address, status: NodeStatus | RaftError) -> dict[str, str]:
    row = {"node": str(id), "address": escape(spell(address))}
    if isinstance(status, RaftError):
        return row | {"role": "unreachable"} | dict.fromkeys(COLUMNS[3:], "")
    numbers = (status.term, status.last_index, status.commit_index, status.applied_index)
    return row | {"role": status.role} | dict(zip(COLUMNS[3:], (f"{n:,}" for n in numbers), strict=True))


def _that_fit(rows: Sequence[Mapping[str, str]], width: int | None) -> list[str]:
    columns: list[str] = list(COLUMNS)
    for dispensable in DISPENSABLE:
        needed = sum(2 + max(len(name), *(len(row[name]) for row in rows)) for name in columns) - 2
        if width is None or needed <= width:
            break
        columns.remove(dispensable)
    return columns


def _joined(row: Mapping[str, str], widths: Mapping[str, int]) -> str:
    cells = [
        row[name].ljust(width) if name in LEFT else row[name].rjust(width) for name, width in widths.items()
    ]
    return "  ".join(cells).rstrip()


def _styled(line: str, style: str, colorful: bool) -> str:
    return f"\x1b[{style}m{line}\x1b[0m" if colorful and style else line
