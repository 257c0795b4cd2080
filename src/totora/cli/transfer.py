"""`totora transfer`: the leader hands over."""

from __future__ import annotations

from functools import partial

from ..errors import RaftError
from ..types import Address, NodeId
from .ending import Failed
from .health import reason
from .options import Security
from .running import open_client, run
from .text import to_json

__all__ = ["hand_over"]


def hand_over(
    nodes: dict[NodeId, Address],
    security: Security,
    target: NodeId | None,
    *,
    timeout_s: float,
    as_json: bool,
) -> None:
    """The command: to `target`; None: to whoever holds most. Raises Failed, Interrupted, OSError, RaftError."""

    async def asking() -> NodeId:
        opens = partial(open_client, nodes, security)
        try:
            async with opens() as client:
                return await client.transfer(target, timeout_s=timeout_s)
        except RaftError as error:
            raise Failed(await reason(opens, error)) from error

    leader_id = run(asking, "at once")
    print(to_json({"leader": leader_id}) if as_json else f"node {leader_id} leads")
