"""Group commit: writes in groups, in order, and no message before the write that it rests on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from totora.core.effects import HardState, Persist, Send, WriteToken
from totora.core.messages import VoteAccepted
from totora.session.scheduler import Scheduler


def write(token: WriteToken) -> Persist:
    return Persist(token, None, HardState(token), (), 0)


def send(after: WriteToken | None, to: int = 2) -> Send:
    return Send(to, VoteAccepted(1, None), after)


def tokens(group: list[Persist]) -> list[WriteToken]:
    return [persist.token for persist in group]


def test_what_arrives_during_a_write_rides_in_the_next_one() -> None:
    """One write is under way, three more are asked for: they make one group."""
    scheduler = Scheduler()
    assert scheduler.idle
    scheduler.queued.append(write(1))
    assert not scheduler.idle, "it waits to be written"
    assert tokens(scheduler.next_group()) == [1]
    for token in (2, 3, 4):
        scheduler.queued.append(write(token))
        assert scheduler.next_group() == [], "one group is under way at a time"
    assert scheduler.written() == (1, [])
    assert tokens(scheduler.next_group()) == [2, 3, 4]
    assert scheduler.next_group() == []
    assert scheduler.written() == (4, [])
    assert scheduler.idle
    assert scheduler.next_group() == [], "there is nothing to write"


def test_no_message_leaves_before_its_write() -> None:
    """Each message is released by the group that holds its write, and by no earlier one."""
    scheduler = Scheduler()
    scheduler.queued.append(write(1))
    scheduler.queued.append(write(2))
    scheduler.next_group()
    scheduler.queued.append(write(3))
    held = [send(1), send(2), send(2), send(3)]
    assert not any(scheduler.may_leave(message) for message in held)
    token, released = scheduler.written()
    assert token == 2
    assert released == held[:3], "in their order"
    assert scheduler.next_group()
    assert scheduler.written() == (3, [held[3]])
    assert scheduler.may_leave(send(3)), "what is durable stays so"
    assert not scheduler.may_leave(send(4)), "a write that is not even asked for yet"


def test_10_2_1_what_rests_on_no_write_leaves_at_once() -> None:
    """A leader's AppendEntries does not wait for its own disk, nor for what waits."""
    scheduler = Scheduler()
    scheduler.queued.append(write(1))
    scheduler.next_group()
    assert not scheduler.may_leave(send(1))
    assert scheduler.may_leave(send(None))


@given(st.lists(st.sampled_from(["persist", "send", "send now", "write", "written"]), max_size=60))
def test_every_write_is_written_once_in_order_and_every_message_leaves_after_its_own(
    steps: list[str],
) -> None:
    scheduler = Scheduler()
    token = durable = 0
    writing: list[WriteToken] = []
    written: list[WriteToken] = []
    left: list[WriteToken] = []
    sent: list[WriteToken] = []
    for step in [*steps, "written", "write", "written"]:
        if step == "persist":
            token += 1
            scheduler.queued.append(write(token))
        elif step == "send" and token:
            sent.append(token)
            if scheduler.may_leave(send(token)):
                assert token <= durable, "no message leaves before its write"
                left.append(token)
        elif step == "send now":
            assert scheduler.may_leave(send(None))
        elif step == "write":
            writing += tokens(scheduler.next_group())
        elif step == "written" and writing:
            durable, released = scheduler.written()
            written += writing
            assert durable == writing[-1]
            writing = []
            assert all((message.after or 0) <= durable for message in released)
            left += [message.after or 0 for message in released]
    assert written == list(range(1, token + 1))
    assert left == sent
    assert scheduler.idle
