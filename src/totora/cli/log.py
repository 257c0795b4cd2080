"""`totora log`: what the cluster's log holds."""

from __future__ import annotations

import sys
from functools import partial

from ..errors import RaftError
from ..types import Address, LogIndex, NodeId
from .ending import Failed
from .health import reason
from .options import Security
from .running import open_client, run
from .text import escape, is_colorful, to_json

__all__ = ["print_log"]


def print_log(
    nodes: dict[NodeId, Address],
    security: Security,
    first: LogIndex,
    last: LogIndex | None,
    *,
    timeout_s: float,
    as_json: bool,
) -> None:
    """The command: the entries from `first` to `last`; None: to the end. Raises Failed, Interrupted, OSError, RaftError."""

    async def reading() -> None:
        opens = partial(open_client, nodes, security)
        try:
            async with opens() as client:
                async for entry in client.entries(first, timeout_s=timeout_s):
                    if last is not None and entry.index > last:
                        break
                    if as_json:
                        write(f"{to_json(entry)}\n")
                    else:
                        write(f"{place.format(entry.index, entry.term)}{escape(entry.value)}\n")
        except RaftError as error:
            raise Failed(await reason(opens, error)) from error
        sys.stdout.flush()

    write = sys.stdout.write
    place = "{:>8} {:>5}  "
    if is_colorful(sys.stdout):
        place = f"\x1b[2m{place}\x1b[0m"
    run(reading, "at once")
