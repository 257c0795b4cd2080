"""The wires between the nodes: the part of `Cluster` that does harm to the network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from ..types import NodeId
from .stage import ScriptError, Stage

__all__ = ["Wires"]


class Wires(Stage):
    """Cuts, delays and holds links between nodes."""

    def partition(self, *groups: Iterable[NodeId]) -> Self:
        """Only nodes of one group reach each other; those that are in none form one more. It replaces earlier cuts."""
        self._require_open()
        sides = [{self.host(id).id for id in group} for group in groups]
        named = [id for side in sides for id in side]
        if len(named) > len(set(named)):
            raise ScriptError(f"a node is on one side of a partition: {sides}")
        sides.append(set(self.ids) - set(named))
        self.world.ether.partition(*([self.host(id).name for id in sorted(side)] for side in sides))
        return self

    def cut(self, one: NodeId, other: NodeId, *, one_way: bool = False) -> Self:
        """Nothing passes between two nodes; one_way: from `one` to `other`."""
        for way in self._ways(one, other, one_way=one_way):
            self.world.ether.cut(*way)
        return self

    def slow(
        self, one: NodeId, other: NodeId, *, delay: float = 0.5, loss: float = 0.0, doubled: float = 0.0
    ) -> Self:
        """Packets between two nodes take up to `delay` seconds, and overtake each other.

        loss, doubled: shares of them that are lost or arrive twice. Streams show a loss as delay, and nothing else of it.
        """
        for way in self._ways(one, other):
            link = self.world.ether.link(*way)
            link.delay_ns, link.loss, link.doubled = (round(delay * 2.5e8), round(delay * 1e9)), loss, doubled
        return self

    def hold(self, one: NodeId, other: NodeId, *, one_way: bool = False) -> Self:
        """What is under way between two nodes waits until `release`, however long; one_way: from `one` to `other`.

        Streams last meanwhile, and what comes by them keeps its order; a stream that is begun meanwhile fails in time.
        """
        for way in self._ways(one, other, one_way=one_way):
            self.world.ether.hold(*way)
        return self

    def release(self, one: NodeId, other: NodeId, *, one_way: bool = False) -> Self:
        """What was held arrives as soon as time passes."""
        for way in self._ways(one, other, one_way=one_way):
            self.world.ether.release(*way)
        return self

    def heal(self) -> Self:
        """The network is whole and fast again; what was held arrives."""
        self._require_open()
        self.world.ether.heal_all()
        for one in self.world.hosts.values():
            for other in self.world.hosts.values():
                self.world.ether.restore(one.name, other.name)
        return self

    def _ways(self, one: NodeId, other: NodeId, *, one_way: bool = False) -> list[tuple[str, str]]:
        self._require_open()
        if one == other:
            raise ScriptError(f"there is no link from node {one} to itself")
        here, there = self.host(one).name, self.host(other).name
        return [(here, there)] if one_way else [(here, there), (there, here)]

    def _linked(self, one: NodeId, other: NodeId) -> bool:
        links = [self.world.ether.link(*way) for way in self._ways(one, other)]
        return not any(link.cut or link.held for link in links)
