"""What a log amounts to beyond its entries: its configurations, its last user's entry, its sessions.

A fold over batches, in order, that can be taken back while a batch is not known to be committed: the core folds what it
appends, the write-ahead log folds what it writes (and keeps the result in its footers), both with this one class.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

import msgspec

from ..types import LogIndex, Term
from .batch import Batch, Kind
from .quorum import Configuration

__all__ = ["RUNS_MAX", "SESSIONS_MAX", "LogSummary", "Session", "SessionTable"]

SESSIONS_MAX: Final = 4_096
"""Sessions remembered; beyond that the one that appended least recently is forgotten."""

RUNS_MAX: Final = 64
"""Appends remembered of each session: a holder of a session has no more than this many unanswered."""

Run: TypeAlias = tuple[int, LogIndex, int, Term]
"""(sequence, first_index, count, term) of one batch."""


class Session(msgspec.Struct, array_like=True):
    """What one session appended, lately. `runs` ascend, dense in sequence numbers, the last one is the newest."""

    runs: deque[Run]

    @property
    def next_sequence(self) -> int:
        sequence, _, count, _ = self.runs[-1]
        return sequence + count

    def find(self, sequence: int, count: int) -> Run | None:
        """The batch that holds these very sequence numbers; None if it is no longer remembered."""
        for run in reversed(self.runs):
            if run[0] <= sequence:
                return run if sequence + count <= run[0] + run[2] else None
        return None


class SessionTable:
    """Which appends of which session stand in the log (thesis 6.3), the uncommitted ones too.

    horizon: no session of which less than this was known when it was opened may be opened (again): it could be one that
        was forgotten, and its request one that was carried out.
    """

    def __init__(self, sessions: dict[int, Session] | None = None, horizon: LogIndex = 0) -> None:
        self._sessions = sessions if sessions is not None else {}
        self.horizon = horizon

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session: int) -> Session | None:
        return self._sessions.get(session)

    def append(self, batch: Batch) -> Run | None:
        """Fold a batch of entries; returns the session's run that is remembered no longer, if there is one."""
        if not batch.session:
            return None
        run = (batch.sequence, batch.first_index, batch.count, batch.term)
        known = self._sessions.pop(batch.session, None)
        if known is None:
            self._sessions[batch.session] = Session(deque((run,)))
            if len(self._sessions) > SESSIONS_MAX:
                forgotten = self._sessions.pop(next(iter(self._sessions)))
                _, first_index, count, _ = forgotten.runs[-1]
                self.horizon = max(self.horizon, first_index + count - 1)
            return None
        self._sessions[batch.session] = known  # at the end: the dict's order is that of the last append
        known.runs.append(run)
        return known.runs.popleft() if len(known.runs) > RUNS_MAX else None

    def take_back(self, session: int, dropped: Run | None) -> None:
        """Forget the last append of `session`, because its batch was truncated, and remember again what it pushed out.

        So a session of which something older stands in the log is never taken for a new one.
        """
        known = self._sessions.get(session)
        if known is not None:
            known.runs.pop()
            if dropped is not None:
                known.runs.appendleft(dropped)
            if not known.runs:
                del self._sessions[session]

    def copy(self) -> SessionTable:
        return SessionTable({id: Session(deque(s.runs)) for id, s in self._sessions.items()}, self.horizon)


class _Undo(msgspec.Struct, array_like=True):
    first_index: LogIndex
    kind: int
    session: int
    last_user_index: LogIndex
    last_user_term: Term
    dropped: Run | None = None


class _Encoded(msgspec.Struct, array_like=True):
    configurations: list[tuple[LogIndex, Configuration]]
    last_user_index: LogIndex
    last_user_term: Term
    horizon: LogIndex
    sessions: list[tuple[int, list[Run]]]


class LogSummary:
    """The fold. `settle` says up to where nothing will be taken back any more.

    last_user_index, last_user_term: the last entry that a user appended; (0, 0): there is none.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configurations: list[tuple[LogIndex, Configuration]] = [(0, configuration)]
        self.last_user_index: LogIndex = 0
        self.last_user_term: Term = 0
        self.sessions = SessionTable()
        self._undo: deque[_Undo] = deque()

    @property
    def configuration(self) -> Configuration:
        """The one in force: the latest in the log, committed or not (section 6)."""
        return self.configurations[-1][1]

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
            self.configurations.append((batch.first_index, Configuration.decode(batch.payloads()[0])))

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
                [(id, list(session.runs)) for id, session in self.sessions._sessions.items()],
            )
        )

    @classmethod
    def decode(cls, data: bytes | memoryview) -> LogSummary:
        encoded = _DECODER.decode(data)
        summary = cls(encoded.configurations[-1][1])
        summary.configurations = encoded.configurations
        summary.last_user_index, summary.last_user_term = encoded.last_user_index, encoded.last_user_term
        summary.sessions = SessionTable(
            {id: Session(deque(runs)) for id, runs in encoded.sessions}, encoded.horizon
        )
        return summary


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(_Encoded)
