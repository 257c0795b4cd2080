"""What a log amounts to beyond its entries: its configurations, its last user's entry, its sessions.

A fold over batches, in order, that can be taken back while a batch is not known to be committed: the core folds what it
appends, the write-ahead log folds what it writes (and keeps the result in its footers), both with this one class.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from ..types import LogIndex, Term
from .batch import Batch, Kind
from .quorum import Configuration

__all__ = [
    "EPOCHS_MAX",
    "HOLDER_BITS",
    "RUNS_MAX",
    "SESSIONS_MAX",
    "LogSummary",
    "Session",
    "SessionTable",
    "holder_of",
    "session_number",
]

SESSIONS_MAX: Final = 4_096
"""Sessions remembered; beyond that the one that appended least recently is forgotten."""

RUNS_MAX: Final = 64
"""Appends remembered of each session: a holder of a session has no more than this many unanswered."""

Run: TypeAlias = tuple[int, LogIndex, int, Term]
"""(sequence, first_index, count, term) of one batch."""


HOLDER_BITS: Final = 51
HOLDER_MASK: Final = (1 << HOLDER_BITS) - 1
EPOCHS_MAX: Final = 1 << 63 - HOLDER_BITS
"""A session's number is that of its holder, and above it how many the holder had before."""


def session_number(holder: int, epoch: int) -> int:
    """The number of a holder's session, `epoch` counted from 0."""
    return epoch << HOLDER_BITS | holder


def holder_of(session: int) -> int:
    return session & HOLDER_MASK


@dataclass(slots=True)
class Session:
    """What one session appended, lately. `runs` ascend, dense in sequence numbers, the last one is the newest."""

    number: int
    runs: deque[Run]

    @property
    def next_sequence(self) -> int:
        sequence, _, count, _ = self.runs[-1]
        return sequence + count

    def copy(self) -> Session:
        return Session(self.number, deque(self.runs))

    def find(self, sequence: int, count: int) -> Run | None:
        """The batch that holds these very sequence numbers; None if it is no longer remembered."""
        for run in reversed(self.runs):
            if run[0] <= sequence:
                return run if sequence + count <= run[0] + run[2] else None
        return None


class SessionTable:
    """Which appends of which session stand in the log (thesis 6.3), the uncommitted ones too: of each holder the latest session.

    horizon: no session of which less than this was known when it was opened may be opened (again): it could be one that
        was forgotten, and its request one that was carried out.
    """

    def __init__(self, sessions: dict[int, Session] | None = None, horizon: LogIndex = 0) -> None:
        # By holder, in the order of the last append.
        self._sessions = {} if sessions is None else sessions
        self.horizon = horizon

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session: int) -> Session | None:
        known = self._sessions.get(holder_of(session))
        return known if known is not None and known.number == session else None

    def is_over(self, session: int) -> bool:
        """Its holder has appended in a later one: what comes of this one comes too late."""
        known = self._sessions.get(holder_of(session))
        return known is not None and known.number > session

    def append(self, batch: Batch) -> Run | Session | None:
        """Fold a batch of entries; returns what is remembered no longer: a run of its session, or its holder's last session."""
        if not batch.session:
            return None
        run = (batch.sequence, batch.first_index, batch.count, batch.term)
        holder = batch.session & HOLDER_MASK
        known = self._sessions.pop(holder, None)
        if known is None or known.number != batch.session:
            self._sessions[holder] = Session(batch.session, deque((run,)))
            if len(self._sessions) > SESSIONS_MAX:
                forgotten = self._sessions.pop(next(iter(self._sessions)))
                _, first_index, count, _ = forgotten.runs[-1]
                self.horizon = max(self.horizon, first_index + count - 1)
            return known
        self._sessions[holder] = known  # at the end
        runs = known.runs
        runs.append(run)
        return runs.popleft() if len(runs) > RUNS_MAX else None

    def take_back(self, session: int, dropped: Run | Session | None) -> None:
        """Forget the last append of `session`, because its batch was truncated, and remember again what it pushed out.

        So a session of which something older stands in the log is never taken for a new one.
        """
        known = self.get(session)
        if known is None:
            return
        known.runs.pop()
        if isinstance(dropped, Session):
            self._sessions[holder_of(session)] = dropped.copy()
        elif dropped is not None:
            known.runs.appendleft(dropped)
        elif not known.runs:
            del self._sessions[holder_of(session)]

    def copy(self) -> SessionTable:
        return SessionTable({holder: s.copy() for holder, s in self._sessions.items()}, self.horizon)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())


@dataclass(slots=True)
class _Undo:
    first_index: LogIndex
    kind: int
    session: int
    last_user_index: LogIndex
    last_user_term: Term
    dropped: Run | Session | None = None


class _Encoded(msgspec.Struct, array_like=True):
    configurations: list[tuple[LogIndex, Configuration]]
    last_user_index: LogIndex
    last_user_term: Term
    horizon: LogIndex
    sessions: list[tuple[int, list[Run]]]


class LogSummary:
    """The fold. `settle` says up to where nothing will be taken back any more.

    configuration: the one in force: the latest in the log, committed or not (section 6).
    last_user_index, last_user_term: the last entry that a user appended; (0, 0): there is none.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configurations: list[tuple[LogIndex, Configuration]] = [(0, configuration)]
        self.configuration = configuration
        self.last_user_index: LogIndex = 0
        self.last_user_term: Term = 0
        self.sessions = SessionTable()
        self._undo: deque[_Undo] = deque()

    @property
    def cluster_id(self) -> bytes | None:
        """The founded cluster's, once it is settled: two leaders may each have minted one, and only one of them stays."""
        return self.configurations[0][1].cluster_id

    def append(self, batch: Batch) -> None:
        undo = _Undo(batch.first_index, batch.kind, batch.session, self.last_user_index, self.last_user_term)
        self._undo.append(undo)
        if batch.kind == Kind.ENTRIES:
            self.last_user_index, self.last_user_term = batch.last_index, batch.term
            undo.dropped = self.sessions.append(batch)
        elif batch.kind == Kind.CONFIGURATION:
            self.configuration = Configuration.decode(batch.payloads()[0])
            self.configurations.append((batch.first_index, self.configuration))

    def truncate_after(self, index: LogIndex) -> None:
        """Take back every batch above `index`; none of them may be settled."""
        while self._undo and self._undo[-1].first_index > index:
            undo = self._undo.pop()
            self.last_user_index, self.last_user_term = undo.last_user_index, undo.last_user_term
            if undo.kind == Kind.ENTRIES:
                if undo.session:
                    self.sessions.take_back(undo.session, undo.dropped)
            elif undo.kind == Kind.CONFIGURATION:
                self.configurations.pop()
                self.configuration = self.configurations[-1][1]

    def settle(self, commit_index: LogIndex) -> None:
        """Everything up to `commit_index` is committed: it will not be taken back."""
        while self._undo and self._undo[0].first_index <= commit_index:
            self._undo.popleft()
        while len(self.configurations) > 1 and self.configurations[1][0] <= commit_index:
            self.configurations.pop(0)

    def copy(self) -> LogSummary:
        """An independent fold in the same state."""
        twin = LogSummary(self.configuration)
        twin.configurations = list(self.configurations)
        twin.last_user_index, twin.last_user_term = self.last_user_index, self.last_user_term
        twin.sessions = self.sessions.copy()
        twin._undo = deque(self._undo)
        return twin

    def encode(self) -> bytes:
        """The state, for a footer; what could be taken back is not kept apart."""
        return _ENCODER.encode(
            _Encoded(
                self.configurations,
                self.last_user_index,
                self.last_user_term,
                self.sessions.horizon,
                [(session.number, list(session.runs)) for session in self.sessions],
            )
        )

    @classmethod
    def decode(cls, data: bytes | memoryview) -> LogSummary:
        encoded = _DECODER.decode(data)
        summary = cls(encoded.configurations[-1][1])
        summary.configurations = encoded.configurations
        summary.last_user_index, summary.last_user_term = encoded.last_user_index, encoded.last_user_term
        summary.sessions = SessionTable(
            {holder_of(number): Session(number, deque(runs)) for number, runs in encoded.sessions},
            encoded.horizon,
        )
        return summary


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(_Encoded)
