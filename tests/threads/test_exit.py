"""The end of a process, and its children: logs are closed at exit, and a forked child does not pretend to have a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tests.threads.pairs import script
from totora.aio.disk import RealDisk
from totora.cli.demo_cluster import free_addresses
from totora.cli.demo_logs import read_log
from totora.storage.identity import IDENTITY, Identity
from totora.storage.recovery import recover

PRELUDE: Final = """
import os, sys, threading, warnings
from tests.processes.waiting import HANG_S, QUICK
from totora import *
from totora.cli.demo_cluster import free_addresses

def start(folder, **others):
    return RaftNode.start(1, free_addresses(1), entry_type=str, data_dir=folder, settings=QUICK, **others)
"""


def closed_cleanly(folder: Path) -> bool:
    """The log ends in the mark of a clean end."""
    text = (folder / IDENTITY).read_bytes().splitlines()[0]
    identity = msgspec.json.decode(text, type=Identity)
    found = recover(RealDisk(str(folder)), bytes.fromhex(identity.store_id), identity.configuration)
    return found is not None and found.marked


@pytest.mark.parametrize(
    ("end", "clean"),
    [
        ("", True),
        ("sys.exit(0)", True),
        ("del responses", True),
        ("threading.Thread(target=lambda: list(responses), daemon=True).start()", True),
        ("received = [responses.recv(HANG_S) for _ in range(200)]; os._exit(0)", False),
    ],
    ids=["nothing", "exit", "receiver dropped", "receiver waits", "killed"],
)
def test_at_exit_what_was_sent_is_answered_and_the_log_is_closed(
    end: str, clean: bool, tmp_path: Path
) -> None:
    """Nobody closed anything, neither the channels nor their node. (Where a process is killed, nothing is.)"""
    script(
        PRELUDE
        + f"""
requests, responses = start(sys.argv[1])
for n in range(200):
    requests.send(append_request([str(n)]))
{end}
""",
        str(tmp_path),
    )
    assert closed_cleanly(tmp_path) == clean
    assert [entry.value for entry in read_log(tmp_path)] == [str(n) for n in range(200)]


def test_at_exit_without_a_quorum_the_end_is_bounded_and_clean(tmp_path: Path) -> None:
    """Requests would wait for a minute; they get another outcome, the log is closed, and there is no word on stderr."""
    nodes = free_addresses(3)
    said = script(
        PRELUDE
        + """
import dataclasses, json
import totora.threads.node as threads
threads.STOP_AT_EXIT_S = 0.3
nodes = {int(id): tuple(address) for id, address in json.loads(sys.argv[2]).items()}
settings = dataclasses.replace(QUICK, request_timeout_s=60.0)
requests, responses = RaftNode.start(1, nodes, entry_type=str, data_dir=sys.argv[1], settings=settings)
requests.send(append_request(["nobody hears it"]))
requests.send(index_range(1, 1))

import atexit

@atexit.register
def _report():
    print("running yet" if requests._pair.thread.is_alive() else "stopped")

# What is registered last runs first; the node's own comes before this.
atexit.unregister(threads._stop_all)
atexit.register(threads._stop_all)
""",
        str(tmp_path),
        json.dumps(nodes),
    )
    assert said == "stopped\n"
    assert closed_cleanly(tmp_path)


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_at_exit_names_instead_of_addresses_make_no_noise(use_uvloop: bool, tmp_path: Path) -> None:
    """Peers are dialled until the node stops, but the threads that look up their names are gone before."""
    nodes = {id: ("localhost", port) for id, (_, port) in free_addresses(3).items()}
    said = script(
        PRELUDE
        + """
import dataclasses, json
import totora.threads.node as threads
threads.STOP_AT_EXIT_S = 0.5
nodes = {int(id): tuple(address) for id, address in json.loads(sys.argv[2]).items()}
settings = dataclasses.replace(QUICK, request_timeout_s=60.0)
requests, responses = RaftNode.start(
    1, nodes, entry_type=str, data_dir=sys.argv[1], settings=settings, use_uvloop=sys.argv[3] == "True"
)
requests.send(append_request(["it keeps the node alive until then"]))
print(requests.status().id)
""",
        str(tmp_path),
        json.dumps(nodes),
        str(use_uvloop),
    )
    assert said == "1\n"


def test_a_forked_child_has_no_node_and_says_so(tmp_path: Path) -> None:
    """Sending, receiving, iterating, asking for the status: NodeStopped with a remedy. Closing and dropping do nothing there,
    and its end, with all that runs at exit, does not stop the node of the parent."""
    said = script(
        PRELUDE
        + """
requests, responses = start(sys.argv[1])
requests.send(append_request(["before the fork"]))
responses.recv(timeout=HANG_S)

async def in_a_loop():
    for call in (requests.send_async(append_request(["a"])), responses.recv_async()):
        try:
            await call
        except NodeStopped as stopped:
            print("in a loop:", stopped)

sys.stdout.flush()
child = os.fork()
if not child:
    for call in (
        lambda: requests.send(append_request(["a"])),
        lambda: responses.recv(),
        lambda: requests.status(),
        lambda: list(responses),
    ):
        try:
            call()
        except NodeStopped as stopped:
            print("in a thread:", stopped)
    import asyncio
    asyncio.run(in_a_loop())
    requests.close()
    del requests, responses
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
requests.send(append_request(["after the fork"]))
print(responses.recv(timeout=HANG_S).unwrap()[0].value)
requests.close()
assert list(responses) == []
""",
        str(tmp_path),
    )
    remedy = "the node has stopped: this process was forked from the node's: start a node after the fork"
    assert said.splitlines() == [
        *4 * [f"in a thread: {remedy}"],
        *2 * [f"in a loop: {remedy}"],
        "after the fork",
    ]


def test_a_child_that_was_forked_while_the_lock_was_held_ends(tmp_path: Path) -> None:
    """The thread that would give it back does not exist in the child."""
    said = script(
        PRELUDE
        + """
requests, responses = start(sys.argv[1])
requests._pair.lock.acquire()
child = os.fork()
if child:
    requests._pair.lock.release()
else:
    assert requests._pair.lock.locked()
    try:
        requests.send(append_request(["a"]))
    except NodeStopped:
        requests.close()
        del requests, responses
        print("the child ends")
        sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
requests.close()
assert list(responses) == []
print("so does the parent")
""",
        str(tmp_path),
    )
    assert said.splitlines() == ["the child ends", "so does the parent"]


def test_a_child_may_have_a_node_of_its_own(tmp_path: Path) -> None:
    """Started after the fork, as the remedy says."""
    said = script(
        PRELUDE
        + """
requests, responses = start(sys.argv[1] + "/parent")
child = os.fork()
if not child:
    requests, responses = start(sys.argv[1] + "/child")
    requests.send(append_request(["of the child"]))
    print(responses.recv(timeout=HANG_S).unwrap()[0].value)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
requests.send(append_request(["of the parent"]))
print(responses.recv(timeout=HANG_S).unwrap()[0].value)
""",
        str(tmp_path),
    )
    assert said.splitlines() == ["of the child", "of the parent"]
    assert [entry.value for entry in read_log(tmp_path / "child")] == ["of the child"]
    assert [entry.value for entry in read_log(tmp_path / "parent")] == ["of the parent"]
