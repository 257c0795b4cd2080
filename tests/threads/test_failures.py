"""A node that fails: both ends say why, whoever waits is woken, and what was acknowledged is kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.processes.waiting import HANG_S, eventually, run
from tests.threads.pairs import PATIENT, alone, channel_of, held_up, received, thread_of, values
from totora import (
    Err,
    NodeStopped,
    OutcomeUnknown,
    Requests,
    Responses,
    StorageError,
    append_request,
    index_range,
)
from totora.aio import disk
from totora.cli.demo_logs import read_log

_SYNC: Final = disk._sync
_PWRITEV: Final = disk._pwritev


class Syncs:
    """The system's calls that sync, which fail from some moment on."""

    def __init__(self) -> None:
        self.failing = False

    def sync(self, descriptor: int) -> None:
        self._fail()
        _SYNC(descriptor)

    def pwritev(self, descriptor: int, parts: list[bytes], offset: int, flags: int) -> int:
        if flags:
            self._fail()
        return _PWRITEV(descriptor, parts, offset, flags)

    def _fail(self) -> None:
        if self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    syncs = Syncs()
    monkeypatch.setattr("totora.aio.disk._sync", syncs.sync)
    monkeypatch.setattr("totora.aio.disk._pwritev", syncs.pwritev)
    return syncs


@pytest.fixture
def pair(tmp_path: Path, syncs: Syncs) -> Iterator[tuple[Requests[str], Responses[str]]]:
    """A cluster of one that has appended an entry, and syncs nothing else of its own accord."""
    # So small that the next one is ready after one step.
    settings = replace(PATIENT, segment_bytes=64 << 10)
    with alone(tmp_path, settings=settings) as (requests, responses):
        requests.send(append_request(["before"]))
        assert values(responses.recv(timeout=HANG_S)) == ["before"]
        run(eventually("the next segment is in reserve", (tmp_path / "reserve").exists))
        yield requests, responses


def stopped_by_the_disk(error: NodeStopped) -> bool:
    return isinstance(error.cause, StorageError) and os.strerror(errno.EIO) in str(error)


def test_a_failed_sync_stops_the_node_and_both_ends_say_so(
    pair: tuple[Requests[str], Responses[str]], syncs: Syncs, tmp_path: Path
) -> None:
    """The append whose sync failed may be on the disk or not: it is not reported as failed."""
    requests, responses = pair
    syncs.failing = True
    requests.send(append_request(["lost or not"]))
    answer = responses.recv(timeout=HANG_S)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, OutcomeUnknown)
    with pytest.raises(NodeStopped) as raised:
        responses.recv(timeout=HANG_S)
    assert stopped_by_the_disk(raised.value)
    for call in (
        lambda: requests.send(append_request(["late"])),
        requests.status,
        lambda: next(iter(responses)),
    ):
        with pytest.raises(NodeStopped) as raised:
            call()
        assert stopped_by_the_disk(raised.value)

    async def scenario() -> None:
        with pytest.raises(NodeStopped) as raised:
            await responses.recv_async()
        assert stopped_by_the_disk(raised.value)
        with pytest.raises(NodeStopped) as raised:
            await anext(aiter(responses))
        assert stopped_by_the_disk(raised.value)

    run(scenario())
    requests.close()
    thread_of(requests).join(HANG_S)
    syncs.failing = False
    assert [entry.value for entry in read_log(tmp_path)][:1] == ["before"]


def test_what_was_sent_behind_the_failure_gets_an_outcome_in_its_turn(
    pair: tuple[Requests[str], Responses[str]], syncs: Syncs
) -> None:
    """Under way, taken and not taken alike: one response each, then the end."""
    requests, responses = pair
    with held_up(requests):
        syncs.failing = True
        for n in range(20):
            requests.send(append_request([str(n)]))
            requests.send(index_range(1, 1))
    answers = received(responses, 40)
    for answer in answers:
        assert isinstance(answer, Err)
        assert isinstance(answer.error, OutcomeUnknown | NodeStopped)
    last = answers[-1]
    assert isinstance(last, Err)
    assert isinstance(last.error, NodeStopped)
    assert stopped_by_the_disk(last.error)
    with pytest.raises(NodeStopped):
        responses.recv(timeout=HANG_S)


def test_whoever_waits_when_the_node_fails_is_woken(
    pair: tuple[Requests[str], Responses[str]], syncs: Syncs
) -> None:
    """Senders that wait for room and receivers that wait for responses, in threads and coroutines, without any timeout."""
    requests, responses = pair
    with ThreadPoolExecutor(8) as others:
        with held_up(requests):
            syncs.failing = True
            while not channel_of(requests).full:
                requests.send(append_request(["a"]))
            count = channel_of(requests)._requests_max
            # A range holds the rest back, so that there is no room before the end.
            senders = [others.submit(requests.send, append_request(["late"])) for _ in range(2)]
            senders.append(others.submit(run, requests.send_async(append_request(["late"]))))
        late = 0
        for sender in senders:
            error = sender.exception(HANG_S)
            assert error is None or (isinstance(error, NodeStopped) and stopped_by_the_disk(error))
            late += error is None
        received(responses, count + late)
        receivers = [others.submit(responses.recv) for _ in range(2)]
        receivers.append(others.submit(run, responses.recv_async()))
        for receiver in receivers:
            error = receiver.exception(HANG_S)
            assert isinstance(error, NodeStopped)
            assert stopped_by_the_disk(error)


def test_receivers_that_wait_before_the_failure_are_woken(
    pair: tuple[Requests[str], Responses[str]], syncs: Syncs
) -> None:
    """Each of the two requests has one response; the third receiver is told that there will be no other."""
    requests, responses = pair
    with ThreadPoolExecutor(3) as others:
        receivers = [others.submit(responses.recv) for _ in range(3)]
        with held_up(requests):
            syncs.failing = True
            requests.send(append_request(["a"]))
            requests.send(append_request(["b"]))
        outcomes = [(one.exception(HANG_S), one) for one in receivers]
    errors = [error for error, _ in outcomes if error is not None]
    assert len(errors) == 1
    assert isinstance(errors[0], NodeStopped)
    assert stopped_by_the_disk(errors[0])
