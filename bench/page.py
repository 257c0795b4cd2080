"""The tables and plots of a comparison, written into a page between two marks; the rest of the page is a person's."""

from __future__ import annotations

import importlib
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bench.compare import Outcome, Results

__all__ = ["check", "write"]

BEGIN: Final = "<!-- written by `make bench` -->"
END: Final = "<!-- end -->"
IN_FLIGHTS: Final = (1, 64, 1024)


def write(path: Path, results: Results, found: list[Outcome]) -> None:
    """Write the tables between the marks of the page, the plot beside it. Raises as `check` does."""
    text = check(path)
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    plot = path.with_name(f"{path.stem}-in-flight.svg")
    _plot(plot, results)
    floor_us = statistics.median(results.floors_us)
    lines = [
        f"Medians of {len(results.floors_us)} rounds; the floor of this machine was {floor_us:.0f} us.",
        "",
        *_measures(found),
        "",
        *_sizes(results),
        "",
        f"![entries a second, and time to commit, by requests in flight]({plot.name})",
    ]
    path.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


def check(path: Path) -> str:
    """The page's text. Raises OSError if it cannot be read, ValueError if the marks are missing."""
    text = path.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(
            f"{path} has no place for the tables: it needs a line '{BEGIN}' and behind it a line '{END}'"
        )
    return text


def _measures(found: list[Outcome]) -> list[str]:
    rows = ["| measure | figure | beside | ratio | target | |", "|---|---|---|---|---|---|"]
    for outcome in found:
        measure = outcome.measure
        figure = {
            "per_s": f"{outcome.value:,.0f}/s",
            "p50_ms": f"{outcome.value:.2f} ms",
            "cpu_us": f"{outcome.value:.1f}",
        }[measure.what]
        bound = "at least" if measure.what == "per_s" else "at most"
        ratio = "" if outcome.ratio is None else f"{outcome.ratio:.2f}"
        target, verdict = "", ""
        if measure.target is not None:
            target = f"{bound} {measure.target:,.10g}"
            verdict = {True: "reached", False: "missed", None: "not measured"}[outcome.reached]
        rows.append(f"| {measure.name} | {figure} | {measure.peer} | {ratio} | {target} | {verdict} |")
    return rows


def _sizes(results: Results) -> list[str]:
    rows = [
        "| totora, three nodes | in flight | entries/s | p50 | p99 | processor time each | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    by_size = sorted(results.figures.items(), key=lambda one: (one[0][1].payload_bytes, one[0][1].in_flight))
    for (system, load), figures in by_size:
        if system == "totora" and load.via == "node":
            per_s, p50, p99, cpu, memory = (
                statistics.median([getattr(figure, what) for figure in figures])
                for what in ("per_s", "p50_ms", "p99_ms", "cpu_us", "memory_mib")
            )
            size = str(load).split(", ")[1]
            rows.append(
                f"| {size} | {load.in_flight:,} | {per_s:,.0f} | {p50:.2f} ms | {p99:.1f} ms | {cpu:,.1f} us "
                f"| {memory:,.0f} MiB |"
            )
    return rows


def _plot(path: Path, results: Results) -> None:
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "totora"
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, (rates, times) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for (system, load), figures in results.figures.items():
        shown = load.payload_bytes == 256 if load.via == "client" else load.payload_bytes == 16
        if system in ("totora", "PySyncObj (tuned)", "etcd") and load.via in ("node", "client") and shown:
            label = f"{system}, {'client, ' if load.via == 'client' else ''}{load.payload_bytes} B"
            per_s = statistics.median([each.per_s for each in figures])
            p50_ms = statistics.median([each.p50_ms for each in figures])
            lines.setdefault(label, []).append((load.in_flight, per_s, p50_ms))
    for label, points in lines.items():
        points.sort()
        rates.plot([p[0] for p in points], [p[1] for p in points], marker="o", label=label)
        times.plot([p[0] for p in points], [p[2] for p in points], marker="o", label=label)
    for axes, title in ((rates, "entries a second"), (times, "p50, milliseconds")):
        axes.set(xscale="log", yscale="log", xlabel="requests in flight", title=title)
        axes.set_xticks(IN_FLIGHTS, [f"{n:,}" for n in IN_FLIGHTS])
        axes.grid(visible=True, which="major", alpha=0.3)
    rates.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
