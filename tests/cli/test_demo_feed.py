"""The demo's feed: every line once and in order, a rest that waits for the kill, and who acknowledged first."""

from __future__ import annotations

import asyncio

import pytest

from tests.processes.waiting import run
from totora import Entry, OutcomeUnknown
from totora.cli.demo_feed import Feed
from totora.cli.ending import Failed


class Cluster:
    """Acknowledges what it is sent, in `term`; refuses the line `bad`."""

    def __init__(self, bad: str | None = None) -> None:
        self.sent: list[str] = []
        self.term = 1
        self._bad = bad

    async def propose(self, entry: str, *, timeout_s: float | None = None) -> Entry[str]:
        self.sent.append(entry)
        index = len(self.sent)
        await asyncio.sleep(0)
        if entry == self._bad:
            raise OutcomeUnknown("no answer in time")
        return Entry(index, self.term, entry)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1_000])
def test_a_quarter_waits_for_the_kill_and_at_least_one_line(count: int) -> None:
    lines = [str(n) for n in range(count)]
    feed, cluster = Feed(lines), Cluster()
    held = max(1, count // 4)

    async def scenario() -> None:
        running = asyncio.ensure_future(feed.run(cluster))
        await feed.reached((count - held) / count)
        assert not running.done()
        assert cluster.sent == lines[: count - held]
        taken_over = feed.taken_over(1)
        cluster.term = 3
        feed.release()
        assert (await taken_over).term == 3
        await running

    run(scenario())
    assert cluster.sent == lines
    assert [feed.acknowledged[n].value for n in range(count)] == lines
    assert {feed.acknowledged[n].term for n in range(count - held, count)} == {3}


def test_a_line_that_is_not_acknowledged_ends_the_feed() -> None:
    feed = Feed([str(n) for n in range(2_000)])
    feed.release()
    with pytest.raises(Failed) as raised:
        run(feed.run(Cluster(bad="1000")))
    assert str(raised.value) == "line 1,001 is not acknowledged: no answer in time"
    assert len(feed.acknowledged) < 2_000
    assert 1_000 not in feed.acknowledged
