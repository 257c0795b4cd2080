"""totora and its peers, alternately, under the same loads; medians of the ratios of each round.

    python -m bench.compare [--rounds 5] [--seconds 2] [--page docs/performance.md]

One JSON line a measure. A peer that is not installed is left out, and why is said.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bench import floor, page
from bench.folders import scratch
from bench.loads import Figure, Load, System, present
from bench.options import options_of
from bench.own import Totora
from bench.peers.etcd import Etcd
from bench.peers.pysyncobj import PySyncObj

__all__ = ["MEASURES", "Measure", "Outcome", "Results", "compare", "main"]

What = Literal["per_s", "p50_ms", "cpu_us"]
FLOOR: Final = "the floor"
CEILING: Final = "the ceiling"


@dataclass(frozen=True)
class Measure:
    """What is compared: `what` of totora with that of `peer` (FLOOR, or "" for the figure alone) under the same load.

    target: of the ratio; of the figure itself where there is no peer. A rate is to be at least that, all else at most. None:
    the ratio is told and not judged.
    """

    name: str
    load: Load
    peer: str
    what: What
    target: float | None
    system: str = "totora"


def _node(payload_bytes: int, in_flight: int) -> Load:
    return Load("node", payload_bytes, in_flight)


MEASURES: Final = (
    Measure("16 B, 1,024 in flight", _node(16, 1024), "PySyncObj (tuned)", "per_s", 5.0),
    Measure("256 B, 1,024 in flight", _node(256, 1024), "PySyncObj (tuned)", "per_s", 6.0),
    Measure("16 B, 64 in flight", _node(16, 64), "PySyncObj (tuned)", "per_s", 3.5),
    Measure("16 B, 1 in flight, p50", _node(16, 1), FLOOR, "p50_ms", 1.8),
    Measure("16 B, 1 in flight, p50", _node(16, 1), "PySyncObj (nobatch)", "p50_ms", 1.0),
    Measure("16 B, 1,024 in flight", _node(16, 1024), CEILING, "per_s", None),
    Measure("256 B, 1,024 in flight", _node(256, 1024), CEILING, "per_s", None),
    Measure("16 B, 64 in flight", _node(16, 64), CEILING, "per_s", None),
    Measure("16 B, 1 in flight, p50", _node(16, 1), CEILING, "p50_ms", None),
    Measure(
        "requests of 100 entries of 16 B, over the channels, entries/s",
        Load("requests", 16, 256, 100),
        "",
        "per_s",
        2e6,
        "totora (channels)",
    ),
    Measure("a client over TCP, 256 B, 64 in flight", Load("client", 256, 64), "etcd", "per_s", 5.0),
    Measure("a client over TCP, 256 B, 1 in flight, p50", Load("client", 256, 1), "etcd", "p50_ms", 0.65),
    Measure("reads over TCP, 64 in flight", Load("reads", 256, 64), "etcd", "per_s", 8.0),
    Measure("processor time a commit, all nodes, us", _node(16, 1024), "", "cpu_us", 5.0),
    Measure("5 nodes", _node(16, 1024), "totora", "per_s", 0.6, "totora, 5 nodes"),
    Measure("7 nodes", _node(16, 1024), "totora", "per_s", 0.4, "totora, 7 nodes"),
    Measure("JSON over UDP", _node(16, 1024), "totora", "per_s", 0.2, "totora (udp)"),
    Measure(
        "JSON over UDP, 1 % lost", _node(16, 1024), "totora (udp)", "per_s", 0.7, "totora (udp, 1 % lost)"
    ),
)

SIZES: Final = tuple(_node(size, in_flight) for size in (16, 256, 4096, 65536) for in_flight in (1, 64, 1024))
"""What totora alone is measured under too, for the table of sizes."""


class Results:
    """Figures by system and load, one of each round; `floors_us` of each round."""

    def __init__(self) -> None:
        self.figures: dict[tuple[str, Load], list[Figure]] = {}
        self.floors_us: list[float] = []

    def values(self, system: str, load: Load, what: What) -> list[float]:
        if system == FLOOR:
            return [floor_us / 1e3 for floor_us in self.floors_us]
        return [getattr(figure, what) for figure in self.figures.get((system, load), [])]


@dataclass(frozen=True)
class Outcome:
    """value: the median of totora's figures. ratio: the median of the rounds' ratios; None: the peer was not measured."""

    measure: Measure
    value: float
    ratio: float | None

    @property
    def reached(self) -> bool | None:
        found = self.ratio if self.measure.peer else self.value
        if found is None or self.measure.target is None:
            return None
        return found >= self.measure.target if self.measure.what == "per_s" else found <= self.measure.target


def outcomes(results: Results) -> list[Outcome]:
    found = []
    for measure in MEASURES:
        own = results.values(measure.system, measure.load, measure.what)
        peer = results.values(measure.peer, measure.load, measure.what) if measure.peer else []
        if own:
            ratios = [mine / theirs for mine, theirs in zip(own, peer, strict=False) if theirs]
            ratio = statistics.median(ratios) if ratios else None
            found.append(Outcome(measure, statistics.median(own), ratio))
    return found


def _systems() -> dict[str, System]:
    return {
        "totora": Totora(),
        CEILING: Totora(transport="ceiling"),
        "PySyncObj (tuned)": PySyncObj("tuned"),
        "PySyncObj (nobatch)": PySyncObj("nobatch"),
        "etcd": Etcd(),
        "totora, 5 nodes": Totora(5),
        "totora, 7 nodes": Totora(7),
        "totora (udp)": Totora(transport="udp"),
        "totora (udp, 1 % lost)": Totora(transport="udp", loss=0.01),
        "totora (channels)": Totora(channels=True),
    }


def _loads(name: str) -> Iterable[Load]:
    """All loads that a system is measured under, each once."""
    wanted = dict.fromkeys(m.load for m in MEASURES if name in (m.system, m.peer))
    if name == "totora":
        wanted |= dict.fromkeys(SIZES)
    return wanted


def compare(rounds: int, seconds: float, folder: Path) -> Results:
    """Each round measures the floor and every system once, in turn."""
    results = Results()
    systems = present(_systems())
    for n in range(rounds):
        results.floors_us.append(floor.measure(min(1.0, seconds), 3, folder).floor_us)
        for name, system in systems.items():
            print(f"round {n + 1} of {rounds}: {name}", file=sys.stderr)
            place = folder / f"{n}-{name.replace(' ', '-')}"
            place.mkdir()
            with system.start(place) as session:
                for load in _loads(name):
                    results.figures.setdefault((name, load), []).append(session.measure(load, seconds))
            # What is kept takes memory for its pages, from all that follow.
            shutil.rmtree(place)
    return results


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__, folder=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each figure")
    parser.add_argument("--page", type=Path, help="a page to write the tables and plots into")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("at least one round, and more than no seconds")
    if options.page:
        # Not after ten minutes of measuring.
        try:
            page.check(options.page)
        except (OSError, ValueError) as error:
            parser.error(f"--page: {error}")
    with scratch(options.folder) as folder:
        results = compare(options.rounds, options.seconds, folder)
    found = outcomes(results)
    for outcome in found:
        measure = outcome.measure
        print(
            json.dumps(
                {
                    "bench": "compare",
                    "measure": measure.name,
                    "figure": round(outcome.value, 3),
                    "beside": measure.peer or None,
                    "ratio": None if outcome.ratio is None else round(outcome.ratio, 3),
                    "target": measure.target,
                    "reached": outcome.reached,
                }
            ),
            flush=True,
        )
    if options.page:
        page.write(options.page, results, found)


if __name__ == "__main__":
    main()
