"""A log as it should be, to compare the write-ahead log with: the simplest thing that can hold batches."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from totora.core.batch import Batch, Kind, join_payloads
from totora.core.effects import HardState, Persist
from totora.core.log import Recovered
from totora.core.quorum import Configuration, Member
from totora.core.summary import LogSummary
from totora.sim.disk import MemoryDisk
from totora.storage.wal import WriteAheadLog

STORE_ID = b"s" * 16
CONFIGURATION = Configuration((Member(1, "127.0.0.1", 1), Member(2, "127.0.0.1", 2)), frozenset((1, 2)))


def open_log(
    disk: MemoryDisk, seed: int = 1, segment_bytes: int = 16 << 10
) -> tuple[WriteAheadLog, Recovered]:
    log = WriteAheadLog(
        disk,
        random.Random(seed),
        store_id=STORE_ID,
        configuration=CONFIGURATION,
        segment_bytes=segment_bytes,
        may_create=True,
    )
    return log, log.recover()


def batch(
    first_index: int, term: int = 1, count: int = 1, size: int = 16, *, session: int = 0, sequence: int = 0
) -> Batch:
    payloads = [b"%d.%d." % (first_index + n, term) + b"x" * size for n in range(count)]
    return Batch.build(
        Kind.ENTRIES, term, first_index, count, join_payloads(payloads), session=session, sequence=sequence
    )


@dataclass
class Model:
    """What a correct log holds after some writes."""

    batches: list[Batch] = field(default_factory=list)
    hard_state: HardState = field(default_factory=HardState)

    def stages(self, write: Persist) -> list[Model]:
        """The states that a write goes through, in order: each of its parts is a record of its own."""
        stages = []
        batches, hard_state = self.batches, self.hard_state
        if write.truncate_after is not None:
            batches = [kept for kept in batches if kept.last_index <= write.truncate_after]
            stages.append(Model(batches, hard_state))
        hard_state = write.hard_state or hard_state
        ends = range(len(write.batches) + 1)
        return stages + [Model([*batches, *write.batches[:end]], hard_state) for end in ends]

    @property
    def last_index(self) -> int:
        return self.batches[-1].last_index if self.batches else 0

    @property
    def last_term(self) -> int:
        return self.batches[-1].term if self.batches else 0


def contents(log: WriteAheadLog, recovered: Recovered) -> Model:
    """Everything that a reopened log holds, read from the disk."""
    batches: list[Batch] = []
    while (batches[-1].last_index if batches else 0) < recovered.last_index:
        next_index = batches[-1].last_index + 1 if batches else 1
        batches += log.read(next_index, recovered.last_index, 4_096)
    return Model(batches, recovered.hard_state)


def check_summary(recovered: Recovered, model: Model) -> None:
    """What the footers and the fold say is what a fold from the beginning says."""
    fresh = LogSummary(CONFIGURATION)
    for one in model.batches:
        fresh.append(one)
    found = recovered.summary
    assert (found.last_user_index, found.last_user_term) == (fresh.last_user_index, fresh.last_user_term)
    assert found.encode() == fresh.encode()
    runs: list[tuple[int, int]] = []
    for one in model.batches:
        if not runs or runs[-1][1] != one.term:
            runs.append((one.first_index, one.term))
    assert recovered.runs == runs
    if recovered.tail:
        assert recovered.tail == model.batches[-len(recovered.tail) :]
