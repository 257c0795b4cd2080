"""A node, or a client, in a process of its own, told over stdin what to do; answers on stdout.

One JSON object a line, one at a time.
Started by `bench.cluster`; ends when stdin does.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec

from bench.floor import percentile
from totora import AppendRequest, Ok, RaftError, Response, Settings
from totora.aio import Client, Node
from totora.aio.face import Face
from totora.aio.loops import new_event_loop

Command: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, Any]

CALLS_MAX: Final = 500_000
"""Latencies kept of one load; later ones are counted, not kept."""


async def load(face: Face[bytes], command: Command) -> Answer:
    """A closed loop: `in_flight` callers, each asks again as soon as it has its answer."""
    clock = time.perf_counter
    latencies: list[float] = []
    commits = failures = 0
    end = clock() + command["seconds"]
    request, entries = await requests_of(face, command)

    async def caller() -> None:
        nonlocal commits, failures
        while (start := clock()) < end:
            try:
                await request()
            except RaftError:
                failures += 1
                await asyncio.sleep(0.01)
                continue
            commits += entries
            if len(latencies) < CALLS_MAX:
                latencies.append(clock() - start)

    profile = cProfile.Profile() if command.get("profile") else None
    if profile:
        profile.enable()
    began, processor = clock(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(command["in_flight"])))
    elapsed, processor = clock() - began, time.process_time() - processor
    if profile:
        profile.disable()
        profile.dump_stats(command["profile"])
    latencies.sort()
    return {
        "commits": commits,
        "failures": failures,
        "commits_per_s": round(commits / elapsed),
        "p50_ms": round(percentile(latencies, 0.5) * 1e3, 3) if latencies else None,
        "p99_ms": round(percentile(latencies, 0.99) * 1e3, 3) if latencies else None,
        "processor": round(processor / elapsed, 2),
    }


async def requests_of(face: Face[bytes], command: Command) -> tuple[Callable[[], Awaitable[object]], int]:
    """What each caller does, and how many entries that is."""
    entry = b"x" * command["payload_bytes"]
    entries = command.get("entries", 1)
    if command.get("via") == "reads":
        index = (await face.propose(entry)).index
        return partial(face.index_range, index, index), 1
    if entries > 1:
        return partial(submitted, face, AppendRequest([entry] * entries)), entries
    return partial(face.propose, entry), 1


async def submitted(face: Face[bytes], request: AppendRequest[bytes]) -> None:
    """One request, submitted on the node's loop with a callback: what the channels do, but for their queues and threads."""
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def respond(response: Response[bytes]) -> None:
        if isinstance(response, Ok):
            answered.set_result(None)
        else:
            answered.set_exception(response.error)

    face.submit(request, respond)
    await answered


async def first_of_term(node: Node[bytes], command: Command) -> Answer:
    """Propose one entry after another until one is committed in a term above `term`; when that was (CLOCK_MONOTONIC)."""
    while True:
        try:
            entry = await node.propose(b"x")
        except RaftError:
            continue
        if entry.term > command["term"]:
            return {"at_ns": time.monotonic_ns(), "term": entry.term}


async def status(node: Node[bytes], _: Command) -> Answer:
    answer: Answer = msgspec.to_builtins(node.status())
    return answer


DEEDS: Final = {"load": load, "first_of_term": first_of_term, "status": status}


async def commands() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    return reader


async def main() -> None:
    setup = json.loads(sys.argv[1])
    nodes = {int(id): (host, port) for id, (host, port) in setup["nodes"].items()}
    settings = Settings(transport=setup["transport"])
    if setup["id"]:
        node = Node(setup["id"], nodes, entry_type=bytes, data_dir=setup["data_dir"], settings=settings)
        async with node:
            await obey(node)
    else:
        async with Client(nodes, entry_type=bytes) as client:
            await obey(client)


async def obey(face: Any) -> None:
    print(json.dumps({"started": os.getpid()}), flush=True)
    reader = await commands()
    while line := await reader.readline():
        command = json.loads(line)
        print(json.dumps(await DEEDS[command["do"]](face, command)), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
