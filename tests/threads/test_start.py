"""`RaftNode.start`: it returns when the node runs, and raises when it cannot; nothing stays behind then."""

from __future__ import annotations

import errno
import inspect
import os
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.processes.waiting import HANG_S, QUICK, eventually_in_thread
from tests.threads.pairs import alone, drained, error_in, received, thread_of, values
from totora import ConfigurationError, Err, InvalidRequest, Node, RaftNode, append_request, index_range
from totora.cli.demo_cluster import free_addresses
from totora.cli.demo_logs import read_log


def node_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("totora")]


@pytest.mark.parametrize("form", [dict, list, tuple], ids=["mapping", "list of pairs", "tuple of pairs"])
def test_nodes_are_a_mapping_or_a_list_of_pairs(form: Any, tmp_path: Path) -> None:
    """Both are the ancestor's `Vec<(u64, SocketAddr)>`; once started, the node answers."""
    nodes = free_addresses(1)
    given = nodes if form is dict else form(nodes.items())
    requests, responses = RaftNode.start(1, given, entry_type=str, data_dir=tmp_path, settings=QUICK)
    requests.send(append_request(["a"]))
    (answer,) = drained(requests, responses)
    assert values(answer) == ["a"]
    assert [entry.value for entry in read_log(tmp_path)] == ["a"]


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_either_loop_serves(use_uvloop: bool, tmp_path: Path) -> None:
    """And it is the one that was asked for."""
    with alone(tmp_path, use_uvloop=use_uvloop) as (requests, responses):
        requests.send(append_request(["a", "b"]))
        requests.send(index_range(1, 3))
        appended, read = received(responses, 2)
        assert values(appended) == values(read) == ["a", "b"]
        assert type(requests._pair._loop).__module__.startswith("uvloop") == use_uvloop


def test_bad_settings_raise_where_the_node_is_started(tmp_path: Path) -> None:
    """Not as a response, and not in the thread."""
    nodes = free_addresses(1)
    not_a_directory = tmp_path / "file"
    not_a_directory.write_text("")
    with pytest.raises(ConfigurationError, match="node 2 is not in nodes"):
        RaftNode.start(2, nodes, entry_type=str)
    lenient = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ConfigurationError, match=r"verify_mode = ssl\.CERT_REQUIRED"):
        RaftNode.start(1, nodes, entry_type=str, tls=(lenient, lenient))
    with pytest.raises(ConfigurationError, match="file"):
        RaftNode.start(1, nodes, entry_type=str, data_dir=not_a_directory / "data")
    eventually_in_thread("no thread is left", lambda: not node_threads())


def test_a_loop_that_cannot_be_made_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor is left, perhaps: whoever starts a node does not wait for ever."""

    def no_loop(*, use_uvloop: bool) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("totora.threads.node.new_event_loop", no_loop)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        RaftNode.start(1, free_addresses(1), entry_type=str)
    assert node_threads() == []


def test_an_address_in_use_raises_and_releases_the_directory(tmp_path: Path) -> None:
    """The second attempt, with a free address, gets the same directory."""
    nodes = free_addresses(1)
    with alone() as (first, _):
        taken = {1: (first._pair._node or pytest.fail("it runs")).address}
        with pytest.raises(ConfigurationError, match=r"cannot listen on .* does another node run there?"):
            RaftNode.start(1, taken, entry_type=str, data_dir=tmp_path, settings=QUICK)
    requests, responses = RaftNode.start(1, nodes, entry_type=str, data_dir=tmp_path, settings=QUICK)
    requests.send(append_request(["a"]))
    assert [values(answer) for answer in drained(requests, responses)] == [["a"]]


def test_a_node_that_ended_leaves_no_thread(tmp_path: Path) -> None:
    """Neither its own nor those of its log."""
    with alone(tmp_path) as (requests, responses):
        requests.send(append_request(["a"]))
        received(responses, 1)
        assert "totora-1" in node_threads()
        thread = thread_of(requests)
    assert not thread.is_alive()
    eventually_in_thread("no thread is left", lambda: not node_threads())


# -- what is sent ----------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [None, "a", ["a"], 1, append_request, Err(InvalidRequest("no request"))])
def test_what_is_no_request_is_not_sent(thing: Any) -> None:
    """It is a mistake of the program: raised where it is made, by its type."""
    with alone() as (requests, responses):
        with pytest.raises(TypeError, match="send takes an IndexRange or an AppendRequest, not "):
            requests.send(thing)
        requests.send(append_request(["a"]))
        assert values(responses.recv(timeout=HANG_S)) == ["a"]


@pytest.mark.parametrize(
    "request_",
    [
        append_request(["fine", 7]),
        append_request([None]),
        append_request(["\ud800"]),
        append_request([b"bytes"]),
        append_request(["x" * (256 << 10), "y"]),
        append_request(["x" * ((256 << 10) + 1)]),
    ],
    ids=lambda request: str(request)[:60],
)
def test_a_bad_request_is_answered_in_its_turn_and_does_not_stop_later_ones(request_: Any) -> None:
    """Nothing of it is appended, not even the entries that were sound; the node is not harmed."""
    with alone() as (requests, responses):
        requests.send(append_request(["before"]))
        requests.send(request_)
        requests.send(append_request(["after"]))
        before, bad, after = received(responses, 3)
        assert isinstance(error_in(bad), InvalidRequest)
        last = after.unwrap()[0].index
        requests.send(index_range(1, last))
        assert (
            values(responses.recv(timeout=HANG_S)) == [*values(before), *values(after)] == ["before", "after"]
        )


@pytest.mark.parametrize("entries", [5, object(), None])
def test_entries_that_are_no_sequence_are_an_invalid_request(entries: Any) -> None:
    with alone() as (requests, responses):
        with pytest.raises(InvalidRequest):
            requests.send(append_request(entries))
        requests.send(append_request(["a"]))
        assert values(responses.recv(timeout=HANG_S)) == ["a"]


def test_the_same_node_cannot_be_had_twice_from_one_directory(tmp_path: Path) -> None:
    with alone(tmp_path) as (requests, responses):
        with pytest.raises(ConfigurationError, match=str(tmp_path)):
            RaftNode.start(1, free_addresses(1), entry_type=str, data_dir=tmp_path, settings=QUICK)
        requests.send(append_request(["the first one goes on"]))
        received(responses, 1)


def test_the_parameters_are_those_of_a_node() -> None:
    """One place to read about them; the exceptions are the channel's own, the simulator's, and what channels have no use for."""
    of_a_node = set(inspect.signature(Node.__init__).parameters) - {"self", "ports", "machine"}
    assert set(inspect.signature(RaftNode.start).parameters) == of_a_node | {"use_uvloop"}
