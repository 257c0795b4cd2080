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
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from bench.ceiling import Ceiling
from bench.floor import percentile
from bench.lossy import lossy_ports
from totora import Address, AppendRequest, Ok, RaftError, RaftNode, Settings
from totora.aio import Client, Node
from totora.aio.face import Face
from totora.aio.loops import new_event_loop
from totora.threads import Requests, Responses

Command: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, Any]

CALLS_MAX: Final = 500_000
"""Latencies kept of one load; later ones are counted, not kept."""

PAUSE_S: Final = 0.001
"""Before what failed is asked again."""


async def load(face: Face[bytes], command: Command) -> Answer:
    """A closed loop: `in_flight` callers, each asks again as soon as it has its answer."""
    clock = time.perf_counter
    latencies: list[float] = []
    commits = failures = 0
    end = clock() + command["seconds"]
    request = await request_of(face, command)

    async def caller() -> None:
        nonlocal commits, failures
        while (start := clock()) < end:
            try:
                await request()
            except RaftError:
                failures += 1
                await asyncio.sleep(0.01)
                continue
            commits += 1
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
    return answer_of(commits, failures, elapsed, processor, latencies)


def answer_of(
    commits: int, failures: int, elapsed_s: float, processor_s: float, latencies: list[float]
) -> Answer:
    latencies.sort()
    return {
        "commits": commits,
        "failures": failures,
        "commits_per_s": round(commits / elapsed_s),
        "p50_ms": round(percentile(latencies, 0.5) * 1e3, 3) if latencies else None,
        "p99_ms": round(percentile(latencies, 0.99) * 1e3, 3) if latencies else None,
        "processor": round(processor_s / elapsed_s, 2),
    }


def load_over_channels(requests: Requests[bytes], responses: Responses[bytes], command: Command) -> Answer:
    """A closed loop of one thread: as many requests are under way as `in_flight` says."""
    clock = time.perf_counter
    latencies: list[float] = []
    sent: deque[float] = deque()
    commits = failures = 0
    request = AppendRequest([b"x" * command["payload_bytes"]] * command["entries"])
    began, processor = clock(), time.process_time()
    end = began + command["seconds"]
    for _ in range(command["in_flight"]):
        sent.append(clock())
        requests.send(request)
    while sent:
        response = responses.recv()
        now = clock()
        latencies.append(now - sent.popleft())
        if isinstance(response, Ok):
            commits += len(response.value)
        else:
            failures += 1
        if now < end:
            sent.append(now)
            requests.send(request)
    return answer_of(commits, failures, clock() - began, time.process_time() - processor, latencies)


async def request_of(face: Face[bytes], command: Command) -> Callable[[], Awaitable[object]]:
    """What each caller does."""
    entry = b"x" * command["payload_bytes"]
    if command.get("via") == "reads":
        index = (await face.propose(entry)).index
        return partial(face.index_range, index, index)
    return partial(face.propose, entry)


async def beside_large(node: Node[bytes], command: Command) -> Answer:
    """One entry after another, while batches of `large_bytes` go the same way, one after another too."""
    clock = time.perf_counter
    latencies: list[float] = []
    large = failures = 0
    end = clock() + command["seconds"]
    term = node.status().term
    pieces = [bytes(command["large_bytes"] // 16 - 128)] * 16

    async def append_large() -> None:
        nonlocal large
        while clock() < end:
            await node.append(pieces)
            large += 1

    appending = asyncio.ensure_future(append_large())
    while not appending.done():
        start = clock()
        try:
            await node.propose(b"x")
        except RaftError:
            failures += 1
        latencies.append(clock() - start)
    await appending
    return {
        "large_batches": large,
        "failures": failures,
        "elections": node.status().term - term,
        "p50_ms": round(percentile(sorted(latencies), 0.5) * 1e3, 1),
        "max_ms": round(max(latencies) * 1e3, 1),
    }


async def first_of_term(node: Node[bytes], command: Command) -> Answer:
    """Propose one entry after another until one is committed in a term above `term`; when that was (CLOCK_MONOTONIC)."""
    while True:
        try:
            entry = await node.propose(b"x")
        except RaftError:
            await asyncio.sleep(PAUSE_S)
            continue
        if entry.term > command["term"]:
            return {"at_ns": time.monotonic_ns(), "index": entry.index}


async def first_read(node: Node[bytes], command: Command) -> Answer:
    """Read the entry at `index` linearizably until that succeeds; when that was (CLOCK_MONOTONIC)."""
    while True:
        try:
            await node.index_range(command["index"], command["index"])
        except RaftError:
            await asyncio.sleep(PAUSE_S)
            continue
        return {"at_ns": time.monotonic_ns()}


async def status(node: Node[bytes], _: Command) -> Answer:
    answer: Answer = msgspec.to_builtins(node.status())
    return answer


DEEDS: Final = {
    "load": load,
    "beside_large": beside_large,
    "first_of_term": first_of_term,
    "first_read": first_read,
    "status": status,
}


async def commands() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    return reader


async def main(setup: Command, nodes: dict[int, Address], settings: Settings) -> None:
    if setup["id"]:
        folder = setup["data_dir"]
        if setup["transport"] == "ceiling":
            async with Ceiling(setup["id"], nodes, Path(folder)) as ceiling:
                await obey(ceiling)
            return
        loss = setup["loss"]
        ports = partial(lossy_ports, folder, loss, setup["id"]) if loss else None
        node = Node(setup["id"], nodes, entry_type=bytes, data_dir=folder, settings=settings, ports=ports)
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


def over_channels(setup: Command, nodes: dict[int, Address], settings: Settings) -> None:
    """The node in a thread of its own, the load in this one."""
    requests, responses = RaftNode.start(
        setup["id"], nodes, entry_type=bytes, data_dir=setup["data_dir"], settings=settings
    )
    print(json.dumps({"started": os.getpid()}), flush=True)
    with requests:
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "status":
                answer: Answer = msgspec.to_builtins(requests.status())
            else:
                answer = load_over_channels(requests, responses, command)
            print(json.dumps(answer), flush=True)


def start() -> None:
    setup = json.loads(sys.argv[1])
    nodes = {int(id): (host, port) for id, (host, port) in setup["nodes"].items()}
    settings = Settings(transport="udp" if setup["transport"] == "udp" else "tcp")
    if setup["channels"]:
        over_channels(setup, nodes, settings)
        return
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(setup, nodes, settings))


if __name__ == "__main__":
    start()
