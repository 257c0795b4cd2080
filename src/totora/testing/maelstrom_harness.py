"""Run a program that speaks Maelstrom's node contract (workload `lin-kv`) under faults, and check what its clients saw.

    python -m totora.testing.maelstrom_harness --nodes 5 --seconds 20 --rate 30 --latency-ms 10 --partition-every 5 [-- COMMAND]

Without COMMAND it runs totora's own node. Exit code: 0 the history is linearizable; 1 it is not, or it could not be decided;
2 bad usage, or the program broke the contract; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, get_args

import msgspec

from ..sim.history import Operation, dump_history
from ..sim.linearizability import Verdict, check_history
from .maelstrom_clients import Clients
from .maelstrom_cluster import Broken, Cluster, Distribution, Weather, halves, isolated, ring

__all__ = ["main"]

HISTORY: Final = "history.jsonl"


class _Report(msgspec.Struct, kw_only=True):
    """What is printed in the end. Shares are of all operations; recovered_s: by node, None: it did not."""

    operations: int
    succeeded: int
    refused: int
    unavailable: int
    unknown: int
    latency_ms: dict[str, float]
    messages: dict[str, int]
    partitions: int
    kills: int
    recovered_s: dict[str, float | None]
    linearizable: bool | None
    history: str | None


async def _now_and_then(
    every_s: float,
    chance: random.Random,
    strike: Callable[[], Awaitable[None]],
    mend: Callable[[], Awaitable[None]],
) -> None:
    """By turns, after random times of which `every_s` is the mean. Until cancelled."""
    while True:
        for act in (strike, mend):
            await asyncio.sleep(2 * every_s * chance.random())
            await act()


class _Faults:
    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.partitions = 0
        self.kills = 0
        self._cluster = cluster
        self._cutting, self._killing = (random.Random(chance.getrandbits(64)) for _ in range(2))

    def tasks(self, partition_every_s: float, kill_every_s: float) -> list[asyncio.Task[None]]:
        wanted = (
            (partition_every_s, self._cutting, self._cut, self.heal),
            (kill_every_s, self._killing, self._kill, self.restart),
        )
        return [asyncio.create_task(_now_and_then(*each)) for each in wanted if each[0]]

    async def _cut(self) -> None:
        names, chance = self._cluster.names, self._cutting
        size = len(names)
        kinds: list[Callable[[], set[frozenset[str]]]] = [
            lambda: isolated(names, chance),
            lambda: halves(names, max(1, (size - 1) // 3), chance),
            lambda: halves(names, size // 2, chance),
        ]
        if size > 3:
            kinds.append(lambda: ring(names, chance))
        self._cluster.cuts = chance.choice(kinds)()
        assert self._cluster.cuts or size == 1, "a cut cuts something"
        self.partitions += 1

    async def heal(self) -> None:
        self._cluster.cuts = set()

    async def _kill(self) -> None:
        names, chance = self._cluster.names, self._killing
        size = chance.choice((1, len(names) // 2, len(names) // 2 + 1, len(names)))
        chosen = chance.sample(names, max(1, size))
        self.kills += len(chosen)
        self._cluster.kill(chosen)

    async def restart(self) -> None:
        await self._cluster.start(self._cluster.down)


async def _run(options: argparse.Namespace, folder: Path, history: list[Operation]) -> dict[str, Any]:
    """Everything up to the end of the last operation; what is known then, for the report. Raises Broken."""
    chance = random.Random(options.seed)
    weather = Weather(options.latency_ms / 1e3, options.latency_dist, options.loss, options.duplicate)
    of_network, of_clients, of_faults = (random.Random(chance.getrandbits(64)) for _ in range(3))

    def replied(client: str, body: dict[str, Any], now_ns: int) -> None:
        clients.replied(client, body, now_ns)

    cluster = Cluster(options.nodes, options.command, folder, weather, of_network, replied)
    clients = Clients(
        cluster.names,
        cluster.send,
        history.append,
        of_clients,
        rate_per_s=options.rate,
        latency_s=weather.latency_s,
    )
    faults = _Faults(cluster, of_faults)

    async def working() -> dict[str, float | None]:
        await cluster.start(cluster.names)
        at_work = faults.tasks(options.partition_every, options.kill_every)
        try:
            await _first_to_end(clients.run(options.seconds), *at_work)
        finally:
            for task in at_work:
                task.cancel()
            await asyncio.gather(*at_work, return_exceptions=True)
        await faults.heal()
        await faults.restart()
        return await clients.read_all()

    try:
        recovered_s = await _first_to_end(working(), cluster.broken)
    finally:
        cluster.kill(cluster.names)
        if cluster.broken.done():
            cluster.broken.exception()
        await asyncio.sleep(0)  # the loop closes the pipes
    return {
        "counts": clients.counts,
        "latencies_ns": sorted(clients.latencies_ns),
        "messages": {name: cluster.counts[name] for name in ("sent", "lost", "doubled", "cut")},
        "partitions": faults.partitions,
        "kills": faults.kills,
        "recovered_s": recovered_s,
    }


async def _first_to_end(main: Any, *others: asyncio.Future[None]) -> Any:
    """The result of `main`, unless one of the others, which never end well before, raises."""
    task = asyncio.ensure_future(main)
    try:
        await asyncio.wait((task, *others), return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            if other.done() and not task.done():
                other.result()
        return await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- the report


def _report(known: dict[str, Any], verdict: Verdict, kept: Path | None) -> _Report:
    counts: Counter[str] = known.pop("counts")
    latencies_ns: list[int] = known.pop("latencies_ns")
    ranks = {"median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    latency_ms = {
        name: latencies_ns[min(len(latencies_ns) - 1, int(len(latencies_ns) * rank))] / 1e6
        for name, rank in ranks.items()
        if latencies_ns
    }
    return _Report(
        operations=counts.total(),
        succeeded=counts["succeeded"],
        refused=counts["refused"],
        unavailable=counts["unavailable"],
        unknown=counts["unknown"],
        latency_ms=latency_ms,
        linearizable=True if verdict.ok else None if not verdict.violations else False,
        history=None if kept is None else str(kept / HISTORY),
        **known,
    )


def _account(report: _Report, verdict: Verdict) -> str:
    def share(number: int) -> str:
        return f"{number:7,}  {100 * number / max(1, report.operations):5.1f} %"

    messages = report.messages
    troubles = ", ".join(f"{messages[name]:,} {name}" for name in ("lost", "doubled", "cut"))
    latency = ", ".join(f"{name} {ms:,.1f}" for name, ms in report.latency_ms.items())
    slow = [name for name, took in report.recovered_s.items() if took is None]
    lines = [
        f"operations    {report.operations:7,}",
        f"  succeeded   {share(report.succeeded)}",
        f"  refused     {share(report.refused)}   another value, or no such key",
        f"  unavailable {share(report.unavailable)}   certainly without effect",
        f"  unknown     {share(report.unknown)}",
        f"latency       {latency or 'nothing succeeded'} ms",
        f"messages      {messages['sent']:,} between nodes: {troubles}",
        f"faults        {report.partitions:,} partitions, {report.kills:,} kills",
    ]
    if slow:
        lines.append(f"recovery      NONE of {', '.join(slow)} after the faults were over")
    else:
        longest_s = max((took or 0.0 for took in report.recovered_s.values()), default=0.0)
        lines.append(f"recovery      all nodes had answered {longest_s:.2f} s after the faults were over")
    if verdict.ok:
        lines.append(f"linearizable  {verdict.checked:,} operations, the last reads included")
    if verdict.violations:
        keys = ", ".join(violation.key for violation in verdict.violations)
        lines.append(f"NOT linearizable: keys {keys}, of {verdict.checked:,} operations")
    if verdict.undecided:
        lines.append(f"undecided     keys {', '.join(verdict.undecided)}")
    if report.history is not None:
        lines.append(f"history       {report.history}   (totora check-history {report.history})")
    return "\n".join(lines)


# -- the program


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e6:
        raise ValueError
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1:
        raise ValueError
    return number


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 99:
        raise ValueError
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "totora.testing.maelstrom_harness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--nodes", type=_count, metavar="N", default=5, help="default 5; there are two clients for each")
    add("--seconds", type=_positive, metavar="S", default=20.0, help="default 20")
    add("--rate", type=_positive, metavar="N", default=30.0, help="operations a second together; default 30")
    add("--latency-ms", type=_positive, metavar="MS", default=10.0, help="mean between nodes; default 10")
    add(
        "--latency-dist",
        choices=get_args(Distribution),
        default="uniform",
        help="default uniform, from 0 to twice that",
    )
    add("--loss", type=_share, metavar="SHARE", default=0.0, help="of messages between nodes; default 0")
    add("--duplicate", type=_share, metavar="SHARE", default=0.0, help="likewise")
    add(
        "--partition-every",
        type=_positive,
        metavar="S",
        default=0.0,
        help="mean time to a cut, and to its end; default: none",
    )
    add(
        "--kill-every",
        type=_positive,
        metavar="S",
        default=0.0,
        help="mean time to kill -9, and to the restart; default: none",
    )
    add("--seed", type=int, metavar="N", default=1, help="default 1")
    add(
        "--out",
        type=Path,
        metavar="DIRECTORY",
        help="new, for the history and the nodes' logs; else they are kept if it is not linearizable",
    )
    add("--json", action="store_true", dest="as_json", help="the report as one JSON object")
    add("command", nargs="*", metavar="COMMAND", help="of one node; default: totora's own")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.out is not None:
        try:
            options.out.mkdir(parents=True)
        except OSError as error:
            parser.error(f"--out {options.out}: {error.strerror}")
    folder = options.out or Path(tempfile.mkdtemp(prefix="totora-maelstrom-"))
    keep = options.out is not None
    if not options.command:
        data = ("--data", str(folder / "data")) if options.kill_every else ()
        options.command = [sys.executable, "-m", "totora.testing.maelstrom", *data]
    try:
        history: list[Operation] = []
        try:
            known = asyncio.run(_run(options, folder, history))
        finally:
            with (folder / HISTORY).open("wb") as file:
                _write(file, history)
        verdict = check_history(history)
        keep = keep or not verdict.ok
        report = _report(known, verdict, folder if keep else None)
        sys.stdout.write(_json(report) if options.as_json else _account(report, verdict) + "\n")
        return 0 if verdict.ok else 1
    except Broken as error:
        keep = True
        sys.stderr.write(f"the program broke the contract: {error}; what it told is in {folder}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        if not keep:
            shutil.rmtree(folder)


def _write(file: BinaryIO, history: list[Operation]) -> None:
    ordered = sorted(history, key=lambda operation: operation.call_ns)
    file.writelines(line + b"\n" for line in dump_history(ordered))


def _json(report: _Report) -> str:
    return msgspec.json.encode(report).decode() + "\n"


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
