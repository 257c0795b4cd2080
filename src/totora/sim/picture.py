"""A run as text, for people: what each node is, what the network is like, what happened last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ..types import Entry, NodeId
from .network import Link
from .trace import Crashed, Record, Started, Step
from .world import World

__all__ = ["event", "picture"]

ENTRIES_SHOWN: Final = 6
VALUE_CHARACTERS_MAX: Final = 40

LINKS: Final[dict[str, Callable[[Link], bool]]] = {
    "cut": lambda link: link.cut,
    "held": lambda link: link.held,
}

HOW: Final = {"power": "lost power", "kill": "was killed", "stop": "was stopped"}


def picture(
    world: World,
    logs: Mapping[NodeId, Sequence[Entry[Any]]],
    down: Mapping[NodeId, str],
    last: Iterable[Record],
) -> str:
    """What there is to know when something went wrong. logs: committed entries of nodes that run; down: how others ended."""
    rows = [("node", "role", "term", "leader", "committed", "log")]
    for id, host in world.hosts.items():
        if not host.up:
            rows.append((str(id), HOW[down[id]] if id in down else "is down", "", "", "", ""))
            continue
        status = host.running.status()
        role = f"{status.role}, paused" if host.gate.paused else status.role
        leader = "-" if status.leader is None else str(status.leader)
        rows.append(
            (str(id), role, str(status.term), leader, str(status.commit_index), _values(logs.get(id, ())))
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    for name, what in LINKS.items():
        if links := _links(world, what):
            lines.append(f"{name}: {links}")
    lines.append("last events:")
    lines += [f"  {event(record)}" for record in last] or ["  none"]
    return "\n".join(lines)


def event(record: Record) -> str:
    """One line."""
    match record:
        case Step():
            return f"{record.t_ns / 1e9:12.6f} s  node {record.node}  {_step(record)}"
        case Started():
            return f"{record.t_ns / 1e9:12.6f} s  node {record.node}  started in term {record.term}"
        case Crashed():
            return f"{record.t_ns / 1e9:12.6f} s  node {record.node}  {HOW[record.how]}"
        case _:
            return f"a run of nodes {record.voters}"


def _step(step: Step) -> str:
    what = step.event.replace("_", " ")
    if step.message is not None:
        what = f"{what} {step.message['type']} from {step.sender}"
    told = f"{what}: {step.role} of term {step.term}, committed {step.commit_index} of {step.last_index}"
    if step.sent:
        told += ", sends " + ", ".join(f"{message['type']} to {to}" for to, message in step.sent)
    return told


def _values(log: Sequence[Entry[Any]]) -> str:
    shown = [_short(repr(entry.value)) for entry in log[-ENTRIES_SHOWN:]]
    if len(log) > ENTRIES_SHOWN:
        shown.insert(0, f"{len(log) - ENTRIES_SHOWN} more")
    return ", ".join(shown) or "empty"


def _short(text: str) -> str:
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 3] + "..."


def _links(world: World, what: Callable[[Link], bool]) -> str:
    def found(one: NodeId, other: NodeId) -> bool:
        return what(world.ether.link(world.hosts[one].name, world.hosts[other].name))

    ids = list(world.hosts)
    both = [f"{a} x {b}" for a in ids for b in ids if a < b and found(a, b) and found(b, a)]
    one_way = [f"{a} to {b}" for a in ids for b in ids if a != b and found(a, b) and not found(b, a)]
    return ", ".join(both + one_way)
