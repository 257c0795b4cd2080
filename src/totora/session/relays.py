"""Requests of client processes that this node has passed on to the leader: whose they are, until they are answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from ..types import FAR_NS

__all__ = ["RELAYS_MAX", "RELAY_PATIENCE_NS", "ClientKey", "Relay", "Relays"]

RELAYS_MAX: Final = 65_536

RELAY_PATIENCE_NS: Final = 1_000_000_000
"""Where messages may be lost, what was passed on counts as lost after this: the client hands it over again."""

ClientKey: TypeAlias = object
"""Names a connected client process; the driver chooses it."""


@dataclass(slots=True, frozen=True)
class Relay:
    """A client's request, under the client's own number; past `deadline_ns` it, or its answer, is taken for lost."""

    client: ClientKey
    request_id: int
    deadline_ns: int


class Relays:
    """By the number under which they were passed on. All have the same patience, so the first is the oldest."""

    def __init__(self, patience_ns: int) -> None:
        self._patience_ns = patience_ns
        self.under_way: dict[int, Relay] = {}

    @property
    def full(self) -> bool:
        return len(self.under_way) >= RELAYS_MAX

    def __len__(self) -> int:
        return len(self.under_way)

    def add(self, passed_on_as: int, client: ClientKey, request_id: int, now: int) -> None:
        self.under_way[passed_on_as] = Relay(client, request_id, now + self._patience_ns)

    def answered(self, passed_on_as: int) -> Relay | None:
        """Whose request this was; None if it was not passed on for anybody, or is given up."""
        return self.under_way.pop(passed_on_as, None)

    def deadline(self) -> int:
        """When the oldest is given up."""
        if not self.under_way:
            return FAR_NS
        return next(iter(self.under_way.values())).deadline_ns

    def expired(self, now: int) -> list[Relay]:
        """Take out those that count as lost."""
        lost = []
        while self.under_way:
            passed_on_as, relay = next(iter(self.under_way.items()))
            if relay.deadline_ns > now:
                break
            del self.under_way[passed_on_as]
            lost.append(relay)
        return lost

    def take_all(self) -> list[Relay]:
        """Take out all: the leader that they were passed on to is not heard any more."""
        taken = list(self.under_way.values())
        self.under_way.clear()
        return taken
