"""The executable specification: what nodes do is allowed by it, and what they must not do is not."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import pytest

from tests.levels import by_level
from tests.sim.test_durability import restless
from totora.sim.cluster import Cluster
from totora.sim.specification import Specification, Violation
from totora.sim.trace import (
    BatchRef,
    Crashed,
    Header,
    Record,
    Started,
    Step,
    dump_record,
    load_trace,
)
from totora.sim.world import World


def record_run(seed: int, rounds: int = 60) -> list[Record]:
    """All that happened in a restless run, checked while it happens."""
    world = World(seed)
    records: list[Record] = [Header(sorted(world.nodes))]
    specification = Specification(world.nodes)

    def record(record: Record) -> None:
        records.append(record)
        specification.check(record)

    world.record = record
    restless(world, rounds=rounds)
    return records


def check(records: list[Record]) -> Specification:
    header = records[0]
    assert isinstance(header, Header)
    specification = Specification(header.voters)
    for record in records:
        specification.check(record)
    return specification


@pytest.mark.parametrize("first", range(0, by_level(quick=10, ci=60), 10))
def test_every_step_of_every_node_is_allowed(first: int) -> None:
    """Restless clusters: crashes at any point, partitions, resets."""
    for seed in range(first, first + 10):
        record_run(seed)


def test_a_trace_from_a_file_is_checked_like_the_run_itself() -> None:
    """Nothing that the specification looks at is lost on the way through the file."""
    records = record_run(3)
    lines = [dump_record(record) for record in records]
    restored = list(load_trace(lines))
    assert [dump_record(record) for record in restored] == lines
    assert check(restored).committed_index == check(records).committed_index > 10


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (['{"type":"crashed","t_ns":1,"node":1,"how":"kill"}'], "begins with its header"),
        (['{"type":"header","voters":[1],"version":2}'], "version 2"),
        (['{"type":"header","voters":[1]}', "", '{"type":"stepped"}'], "line 3"),
        (
            ['{"type":"header","voters":[1]}', '{"type":"crashed","t_ns":1,"node":1,"how":"boredom"}'],
            "line 2",
        ),
    ],
)
def test_a_trace_that_cannot_be_read_says_where(lines: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        list(load_trace(lines))


# -- what is not allowed: one thing is changed in a trace that is right


TAMPERINGS: list[Callable[[list[Record]], None]] = []


def tampering(change: Callable[[list[Record]], None]) -> Callable[[list[Record]], None]:
    TAMPERINGS.append(change)
    return change


def steps(records: list[Record], event: str | None = None, message: str | None = None) -> Iterator[Step]:
    for record in records:
        if not isinstance(record, Step) or event not in (None, record.event):
            continue
        if message is None or (record.message or {}).get("type") == message:
            yield record


@tampering
def votes_twice(records: list[Record]) -> None:
    step = next(step for step in steps(records, "received", "RequestVote") if step.voted_for == step.sender)
    step.voted_for = 6 - step.node - (step.sender or 0)


@tampering
def votes_without_being_asked(records: list[Record]) -> None:
    step = next(
        step for step in steps(records, "tick") if step.role != "candidate" and step.voted_for is None
    )
    step.voted_for = step.node


@tampering
def hands_over_without_leading(records: list[Record]) -> None:
    step = next(step for step in steps(records) if step.role == "follower")
    step.sent.append((6 - step.node, {"type": "TimeoutNow", "term": step.term, "leader_id": step.node}))


@tampering
def hands_over_to_whoever_lacks_entries(records: list[Record]) -> None:
    step = next(step for step in steps(records, "proposed") if step.role == "leader" and step.wrote)
    step.sent.append((1 + step.node % 3, {"type": "TimeoutNow", "term": step.term, "leader_id": step.node}))


@tampering
def claims_the_leaders_consent(records: list[Record]) -> None:
    step = next(step for step in steps(records) if step.role == "candidate" and step.sent)
    for _, message in step.sent:
        message["transfer"] = True


@tampering
def falls_back_a_term(records: list[Record]) -> None:
    next(step for step in steps(records) if step.term > 1).term -= 1


@tampering
def leaps_a_term(records: list[Record]) -> None:
    next(step for step in steps(records, "received", "PreVoteAccepted") if step.role == "candidate").term += 1


@tampering
def leads_without_votes(records: list[Record]) -> None:
    next(step for step in steps(records) if step.role == "candidate").role = "leader"


@tampering
def leads_from_following(records: list[Record]) -> None:
    next(step for step in steps(records) if step.role == "follower").role = "leader"


@tampering
def stands_without_an_election(records: list[Record]) -> None:
    next(step for step in steps(records) if step.role == "follower").role = "candidate"


@tampering
def commits_too_early(records: list[Record]) -> None:
    step = next(step for step in steps(records) if step.role == "leader" and step.wrote is not None)
    step.commit_index = step.last_index


@tampering
def commits_what_nobody_told(records: list[Record]) -> None:
    step = next(
        step for step in steps(records, "persisted") if step.role == "follower" and step.last_index > 2
    )
    step.commit_index += 1


@tampering
def commits_backwards(records: list[Record]) -> None:
    before: dict[int, int] = {}
    for step in steps(records):
        if before.get(step.node) == step.commit_index > 1:
            step.commit_index -= 1
            return
        before[step.node] = step.commit_index


@tampering
def appends_what_nobody_sent(records: list[Record]) -> None:
    step = next(
        step for step in steps(records, "received", "AppendEntries") if step.wrote and step.wrote.batches
    )
    assert step.wrote is not None
    ref = step.wrote.batches[0]
    step.wrote.batches[0] = BatchRef(ref.first_index, ref.last_index, ref.term, ref.kind, ref.checksum ^ 1)


@tampering
def appends_beyond_its_end(records: list[Record]) -> None:
    step = next(
        step for step in steps(records) if step.role == "leader" and step.wrote and step.wrote.batches
    )
    assert step.wrote is not None
    ref = step.wrote.batches[0]
    step.wrote.batches[0] = BatchRef(
        ref.first_index + 1, ref.last_index + 1, ref.term, ref.kind, ref.checksum
    )


@tampering
def forgets_to_write_its_vote(records: list[Record]) -> None:
    step = next(
        step
        for step in steps(records, "received", "RequestVote")
        if step.voted_for == step.sender and step.wrote and step.wrote.hard_state
    )
    assert step.wrote is not None
    step.wrote.hard_state = None


@tampering
def removes_without_a_conflict(records: list[Record]) -> None:
    """All that is not committed goes, before new entries come."""
    committed: dict[int, int] = {}
    for step in steps(records):
        known = committed.get(step.node, 0)
        wrote = step.wrote if step.role == "follower" else None
        if (
            wrote
            and wrote.batches
            and wrote.truncate_after is None
            and known < wrote.batches[0].first_index - 1
        ):
            wrote.truncate_after = known
            return
        committed[step.node] = step.commit_index


@tampering
def leader_removes(records: list[Record]) -> None:
    step = next(
        step for step in steps(records) if step.role == "leader" and step.wrote and step.last_index > 4
    )
    assert step.wrote is not None
    step.wrote.truncate_after = step.last_index - 2


@tampering
def hears_what_was_never_said(records: list[Record]) -> None:
    step = next(steps(records, "received", "AppendAccepted"))
    assert step.message is not None
    step.message["match_index"] += 1


@tampering
def acknowledges_too_much(records: list[Record]) -> None:
    step = next(step for step in steps(records, "received", "AppendEntries") if step.sent)
    step.sent[0][1]["match_index"] = step.last_index + 7


@tampering
def sends_what_it_has_not(records: list[Record]) -> None:
    for step in steps(records):
        for _, message in step.sent:
            if message["type"] == "AppendEntries" and message["batches"]:
                ref = message["batches"][0]
                message["batches"][0] = BatchRef(ref.first_index, ref.last_index, ref.term, 9, ref.checksum)
                return


@tampering
def claims_to_hold_more(records: list[Record]) -> None:
    step = next(step for step in steps(records) if step.sent and step.sent[0][1]["type"] == "RequestVote")
    step.sent[0][1]["last_log_index"] += 3


@tampering
def tells_two_that_it_voted(records: list[Record]) -> None:
    for step in steps(records, "received", "RequestVote"):
        if step.sent and step.sent[0][1]["type"] == "VoteAccepted":
            step.sent.append((6 - step.node - step.sent[0][0], dict(step.sent[0][1])))
            return


@tampering
def gives_out_a_stale_read(records: list[Record]) -> None:
    step = next(step for step in steps(records) if step.reads and step.reads[0][1] > 3)
    step.reads[0] = step.reads[0][0], 1


@tampering
def answers_a_read_before_anyone_followed(records: list[Record]) -> None:
    asked: dict[tuple[int, str], Step] = {}
    for step in steps(records):
        if step.event == "read_requested" and step.key:
            asked[step.node, step.key] = step
        for key, read_index in step.reads:
            first = asked[step.node, key]
            if first is not step and first.role == "leader" and first.commit_index == read_index:
                step.reads.remove((key, read_index))
                first.reads.append((key, read_index))
                return


@tampering
def answers_a_read_twice(records: list[Record]) -> None:
    step = next(step for step in steps(records) if step.reads)
    step.reads.append(step.reads[0])


@tampering
def loses_what_was_durable(records: list[Record]) -> None:
    restart = next(r for r in records if isinstance(r, Started) and len(r.log) > 3)
    del restart.log[-3:]


@tampering
def forgets_its_term(records: list[Record]) -> None:
    next(r for r in records if isinstance(r, Started) and r.term > 1).term -= 1


@tampering
def remembers_what_was_never_written(records: list[Record]) -> None:
    restart = next(r for r in records if isinstance(r, Started) and len(r.log) > 3)
    last = restart.log[-1]
    restart.log.append(BatchRef(last.last_index + 1, last.last_index + 1, last.term, 2, 99))


@tampering
def is_heard_before_it_is_durable(records: list[Record]) -> None:
    """The write of a vote completes only after the vote was counted."""
    vote = next(s for s in steps(records, "received", "RequestVote") if s.voted_for == s.sender and s.wrote)
    assert vote.wrote is not None
    durable = next(
        s for s in steps(records, "persisted") if s.node == vote.node and (s.token or 0) >= vote.wrote.token
    )
    records.remove(durable)


@tampering
def acts_after_its_crash(records: list[Record]) -> None:
    crash = next(r for r in records if isinstance(r, Crashed))
    last = next(s for s in steps(records) if s.node == crash.node)
    records.insert(records.index(crash) + 1, last)


@pytest.fixture(scope="module")
def right() -> list[list[Record]]:
    return [record_run(seed, 100) for seed in range(3, 13)]


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_it_refuses(tamper: Callable[[list[Record]], None], right: list[list[Record]]) -> None:
    """In the first trace that has the place for it."""
    for records in right:
        tampered = copy.deepcopy(records)
        with contextlib.suppress(StopIteration):
            tamper(tampered)
        if tampered == records:
            continue
        with pytest.raises(Violation) as caught:
            check(tampered)
        assert caught.value.rule
        assert "node" in str(caught.value)
        return
    pytest.fail("no trace has a place for it")


def test_a_leader_of_an_earlier_term_need_not_hold_what_was_committed_since() -> None:
    """Its votes were long on their way: it leads for a moment, in a term that is over, without the newest entry."""
    led: set[tuple[int, int]] = set()

    def record(record: Record) -> None:
        if isinstance(record, Step) and record.role == "leader":
            led.add((record.node, record.term))

    with Cluster(3, seed=0, record=record) as cluster:
        old = cluster.start().leader()
        voter, late = sorted(cluster.settle().others(old))
        back = cluster.world.ether.link(cluster.host(voter).name, cluster.host(late).name)
        back.delay_ns = 200_000_000, 200_000_000
        cluster.kill(old)
        cluster.expect(lambda: cluster.role(late) == "candidate", "it asks for votes", within=60)
        cluster.expect(lambda: cluster.status(voter).term == cluster.status(late).term, "it gets a vote")
        cluster.pause(late).start(old)
        new = cluster.expect(
            lambda: next((id for id in (old, voter) if cluster.role(id) == "leader"), None),
            "another is elected",
            within=60,
        )
        cluster.propose("since", at=new)
        assert cluster.status(late).term < cluster.status(new).term
        cluster.resume(late).settle()
        assert (late, cluster.status(new).term - 1) in led
        assert cluster.values(late) == ["since"]
