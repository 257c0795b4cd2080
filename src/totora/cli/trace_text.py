"""A trace's records in words: what a node did, on one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from ..sim.specification import ServerState
from ..sim.trace import Record

__all__ = ["spell", "spell_all", "spell_state"]

DULL: Final = frozenset(("type", "round", "current_leader", "candidate_id", "leader_id"))
"""Fields of messages that are plain from who sent them, or say little."""

SPELLED_MAX: Final = 4
"""Of what is sent, or of batches, so many are spelled out."""


def spell(record: Record | dict[str, Any]) -> str:
    """When, who, what, and in which state that left it. record: also as `Report.last` has it."""
    told: dict[str, Any] = record if isinstance(record, dict) else msgspec.to_builtins(record)
    return _what(told) + _after(told)


def spell_all(records: Iterable[Record | dict[str, Any]]) -> Iterator[str]:
    """The same of several, with a node's state only where it changed."""
    states: dict[int, str] = {}
    for record in records:
        told: dict[str, Any] = record if isinstance(record, dict) else msgspec.to_builtins(record)
        after = _after(told)
        changed = after != states.get(told.get("node", 0))
        states[told.get("node", 0)] = after
        yield _what(told) + (after if changed else "")


def _after(told: dict[str, Any]) -> str:
    if told["type"] != "step":
        return ""
    return "  ->  " + spell_state(ServerState(*(told[name] for name in ServerState._fields)))


def _what(told: dict[str, Any]) -> str:
    if told["type"] == "header":
        return f"a trace of nodes {', '.join(map(str, told['voters']))}"
    return f"{told['t_ns'] / 1e9:13.6f} s  node {told['node']}  {_WHAT[told['type']](told)}"


def _started(told: dict[str, Any]) -> str:
    log = told["log"]
    wiped = ", its disk was wiped" if told.get("wiped") else ""
    return f"starts: term {told['term']}, {_vote(told['voted_for'])}, {_log(log)}, commit {told['commit_index']}{wiped}"


def _log(log: Sequence[Sequence[int]]) -> str:
    return f"log up to {log[-1][1]} of term {log[-1][2]}" if log else "no log"


def _vote(voted_for: int | None) -> str:
    return "no vote" if voted_for is None else f"vote for {voted_for}"


def _crashed(told: dict[str, Any]) -> str:
    return {"power": "loses power", "kill": "is killed", "stop": "stops"}[told["how"]]


def _step(told: dict[str, Any]) -> str:
    parts = [_event(told)]
    if wrote := told.get("wrote"):
        parts.append(f"writes {_wrote(wrote)}")
    if sent := told.get("sent"):
        parts.append(f"sends {_sent(sent)}")
    parts += [f"answers read {key} with {index}" for key, index in told.get("reads", ())]
    return "; ".join(parts)


_WHAT: Final = {"started": _started, "crashed": _crashed, "step": _step}


def _event(told: dict[str, Any]) -> str:
    match told["event"]:
        case "received":
            return f"receives {_message(told['message'])} from {told['sender']}"
        case "persisted":
            return f"hears that write {told['token']} is durable"
        case "read_requested":
            return f"is asked for read {told['key']}"
        case event:
            return _PLAIN.get(event, str(event))


_PLAIN: Final = {
    "transfer_requested": "is asked to hand over",
    "tick": "its time has come",
    "proposed": "is given entries",
    "entries_read": "has read old entries",
    "link_up": "is linked to a peer",
    "link_lost": "lost the link to a peer",
}


def _sent(sent: Sequence[tuple[int, dict[str, Any]]]) -> str:
    """What goes to several at once is spelled once."""
    receivers: dict[str, list[str]] = {}
    for to, message in sent:
        receivers.setdefault(_message(message), []).append(str(to))
    spelled = [f"{message} to {', '.join(to)}" for message, to in receivers.items()]
    more = f" and {len(spelled) - SPELLED_MAX} more" if len(spelled) > SPELLED_MAX else ""
    return "; ".join(spelled[:SPELLED_MAX]) + more


def _message(message: dict[str, Any]) -> str:
    fields = [f"{name} {value}" for name, value in message.items() if name not in DULL and name != "batches"]
    if message.get("batches"):
        fields.append(_batches(message["batches"]))
    return f"{message['type']}({', '.join(fields)})"


def _batches(batches: Sequence[Sequence[int]]) -> str:
    spelled = [
        (f"{first}" if first == last else f"{first}-{last}") + f" of term {term}"
        for first, last, term, *_ in batches[:SPELLED_MAX]
    ]
    more = f" and {len(batches) - SPELLED_MAX} more" if len(batches) > SPELLED_MAX else ""
    return "entries " + ", ".join(spelled) + more


def _wrote(wrote: dict[str, Any]) -> str:
    parts = []
    if wrote.get("truncate_after") is not None:
        parts.append(f"nothing after {wrote['truncate_after']}")
    if wrote.get("hard_state") is not None:
        term, voted_for = wrote["hard_state"]
        parts.append(f"term {term}, {_vote(voted_for)}")
    if wrote.get("batches"):
        parts.append(_batches(wrote["batches"]))
    return f"{', '.join(parts) or 'nothing'} (write {wrote['token']})"


def spell_state(state: ServerState | None) -> str:
    """A server's state; None: it was never started."""
    if state is None:
        return "never started"
    log = f"log up to {state.last_index} of term {state.last_term}" if state.last_index else "no log"
    return f"{state.role}, term {state.term}, {_vote(state.voted_for)}, {log}, commit {state.commit_index}"
