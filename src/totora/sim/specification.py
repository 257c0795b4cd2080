"""Raft as an executable specification: Ongaro's abstract algorithm, against which every step of every node is checked.

It follows the actions of the TLA+ module in appendix B of the thesis and shares no code with the core. A node that runs says
what it did (`trace.Step`): what happened to it, what it wrote and sent, and the state that it is in now. Each step must be
explained by actions that are allowed in the state before:

    Restart  Timeout  RequestVote  BecomeLeader  ClientRequest  AppendEntries  AdvanceCommitIndex  UpdateTerm
    HandleRequestVoteRequest  HandleRequestVoteResponse  HandleAppendEntriesRequest  HandleAppendEntriesResponse

Where it deviates from the module:

1. *Durable state.* The module keeps the term, the vote and the log over a Restart. Here writes complete later: a Restart falls
   back to what is durable, or to some of the writes that were under way, in their order. A node counts its own vote and its own
   entries only once they are durable, and a message that promises something can be received only if that became durable before
   a crash.
2. *Batches.* The log is a sequence of batches, not of entries; nothing is ever cut within one.
3. *Pre-vote* (thesis 9.6) and giving up an office for want of answers (6.2) change no term, vote or log: they stutter.
4. *The no-op* of a new leader and configurations that record directories are ClientRequests.
5. *nextIndex* is no part of the state: a leader may send any piece of its log that is whole and in place.
6. *ReadIndex* (6.4) is added: an index that is given out is no less than what anyone had committed when it was asked for, and a
   majority has answered a heartbeat that was sent after that.
7. *The network* loses, doubles and reorders messages, and never invents one: what is received was sent.
8. *Leadership transfer* (3.10) is a Timeout that the leader asks for: of a server that has acknowledged the end of its log. Only
   such a candidate says that it has the leader's consent.
9. *A lost disk*: a server may start with nothing. An acknowledgement that it gave before counts, as no leader can know of the
   loss: it is as if the disk had been lost just after the commit. It may not vote or acknowledge again for what it lost, which
   Election Safety and Leader Completeness would show.

The five properties of Figure 3 are checked beside: they follow from the rules, and a rule that is wrong here shows in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias, assert_never

from .trace import BatchRef, Crashed, Header, Record, Started, Step, Wrote, key_of

__all__ = ["RULES", "ServerState", "Specification", "Violation"]

Message: TypeAlias = dict[str, Any]


RULES: Final = {
    "Restart": "a node starts with what was durable, or with the first of the writes that were under way; it does nothing before",
    "Network": "what is received was sent to this node",
    "Durability": "what a message promises is durable before it is received; what is committed is durable on a majority, or was "
    "on a disk that was lost since",
    "Terms": "a term never falls",
    "UpdateTerm": "a node enters the next term as a candidate with its own vote, or the term of a message that it received",
    "Election Safety": "a node gives one vote in a term, and a term has one leader",
    "HandleRequestVoteRequest": "the vote of a term, if it is still free, goes to whoever asks for it in this term "
    "with a log that is at least as up to date",
    "Timeout": "a node becomes a candidate by entering the next term with its own vote",
    "BecomeLeader": "a candidate leads with the votes of a majority; its own counts once it is durable",
    "Leader Completeness": "a leader holds all that leaders of earlier terms had committed",
    "Leader Append-Only": "a leader removes nothing from its log",
    "HandleAppendEntriesRequest": "a follower appends what an AppendEntries of this step brings, behind what it has; it removes "
    "what conflicts with that and is not committed; it commits what its leader has committed and this call verified",
    "ClientRequest": "a leader appends entries of its own term",
    "Persist": "what a node asks to be written is the state that it is in",
    "Log Matching": "two logs that hold a batch of one term at one index are the same up to there",
    "AdvanceCommitIndex": "a leader commits what a majority has acknowledged, itself included once it is durable, up to an entry "
    "of its own term; a commit index never falls",
    "State Machine Safety": "what is committed at an index is the same everywhere",
    "ReadIndex": "each question is answered once, with no less than what anyone had committed when it was asked, and after a "
    "majority has followed since",
    "RequestVote": "a candidate asks in its own name, with the last index and term of its log, in its own term; with "
    "the leader's consent only if the leader of the term before told it to stand",
    "RequestPreVote": "a node asks in its own name, with the last index and term of its log",
    "VoteAccepted": "a node tells of its vote whom it gave it to, in its own term",
    "AppendEntries": "a leader sends a whole piece of its log and what stands before it, in its own term, with no more than "
    "its own commit index",
    "TimeoutNow": "a leader hands over, in its own name and term, to a node that has acknowledged its whole log",
    "AppendAccepted": "a node acknowledges what the AppendEntries of this step verified, in its own term",
}
"""What is allowed, by the name of the action or of the property."""

ANY_MESSAGE: Final = "a node speaks of its own term"


class Violation(AssertionError):
    """A node did what the specification does not allow.

    rule: what was broken, of RULES or a kind of message. allowed: what would have been right.
    """

    def __init__(self, rule: str, node: int, why: str) -> None:
        super().__init__(f"{rule}: node {node} {why}")
        self.rule = rule
        self.node = node
        self.why = why
        self.allowed = RULES.get(rule, ANY_MESSAGE)


# -- logs


class _Log:
    """A log, as the last of its batches and the log before that one. Logs that begin alike share what they have in common."""

    __slots__ = ("before", "depth", "jump", "last_index", "ref", "term")

    def __init__(self, before: _Log | None, ref: BatchRef | None) -> None:
        self.before = before
        self.ref = ref
        self.last_index: int = ref.last_index if ref else 0
        self.term: int = ref.term if ref else 0
        self.depth: int = before.depth + 1 if before else 0
        # A second way back, so that any place is found in few steps (Myers 1983).
        self.jump: _Log = self
        if before is not None:
            far = before.jump
            self.jump = far.jump if before.depth - far.depth == far.depth - far.jump.depth else before

    def upto(self, index: int) -> _Log | None:
        """The beginning of this log that ends at `index`; None if no batch ends there."""
        log = self
        while log.last_index > index:
            log = log.jump if log.jump.last_index >= index and log.jump is not log else log.before or log
        return log if log.last_index == index else None

    def begins_with(self, other: _Log) -> bool:
        return self.upto(other.last_index) is other

    def term_at(self, index: int) -> int | None:
        """None: it is shorter."""
        log = self
        while log.before is not None and log.before.last_index >= index:
            log = log.jump if log.jump.last_index >= index else log.before
        return log.term if 1 <= index <= log.last_index else None


class _Logs:
    """All logs that ever were. Two batches of one term that end at one index are the same, and so is all before them."""

    def __init__(self) -> None:
        self.empty: Final = _Log(None, None)
        self._by_end: dict[tuple[int, int], _Log] = {}

    def extended(self, log: _Log, ref: BatchRef, node: int) -> _Log:
        """`log` and a batch behind it."""
        known = self._by_end.get((ref.last_index, ref.term))
        if known is None:
            known = self._by_end[ref.last_index, ref.term] = _Log(log, ref)
        if known.before is not log or known.ref != ref:
            raise Violation("Log Matching", node, f"holds {ref} after other entries than another node does")
        return known


# -- servers


@dataclass(slots=True)
class _Stable:
    """What a restart would find."""

    term: int
    voted_for: int | None
    log: _Log


@dataclass(slots=True)
class _Promise:
    """What a message says that must be durable before anyone may hear it. kept: it was, before a crash."""

    term: int
    voted_for: int | None
    log: _Log | None
    kept: bool = False

    def holds(self, stable: _Stable) -> bool:
        if stable.term < self.term:
            return False
        if self.voted_for is not None and stable.term == self.term and stable.voted_for != self.voted_for:
            return False
        return self.log is None or stable.log.begins_with(self.log)


class _Asked(NamedTuple):
    """When a read was asked for: what was committed then, and the last round of heartbeats that had been sent, in which term."""

    committed_index: int
    term: int
    round: int


@dataclass(slots=True)
class _Server:
    """One server's variables, those of the module under its names."""

    stable: _Stable
    current_term: int
    voted_for: int | None
    log: _Log
    commit_index: int
    state: str = "follower"
    votes_granted: set[int] = field(default_factory=set)
    match_index: dict[int, int] = field(default_factory=dict)
    writes: deque[tuple[int, list[_Stable]]] = field(default_factory=deque)
    promises: list[_Promise] = field(default_factory=list)
    reads: dict[str, deque[_Asked]] = field(default_factory=dict)
    round: int = -1
    rounds: dict[int, int] = field(default_factory=dict)
    told_in: int = -1
    handed_over: tuple[int, int] = (0, 0)
    up: bool = True
    lost: tuple[_Log, ...] = ()

    def held(self, log: _Log) -> bool:
        """This log is on its disk, or was on one that it lost."""
        return any(mine.begins_with(log) for mine in (self.stable.log, *self.lost))


class ServerState(NamedTuple):
    """One server at one moment."""

    role: str
    term: int
    voted_for: int | None
    last_index: int
    last_term: int
    commit_index: int


class Specification:
    """The state of all servers, moved forward by what they say they did. Raises Violation.

    voters: the members; the configuration does not change.
    """

    def __init__(self, voters: Iterable[int]) -> None:
        self._voters = frozenset(voters)
        self._logs = _Logs()
        self._servers: dict[int, _Server] = {}
        self._sent: dict[tuple[int, int], dict[bytes, _Promise | None]] = {}
        self._leaders: dict[int, int] = {}
        self._committed = self._logs.empty
        self._committed_in: dict[int, _Log] = {}
        self.steps = 0

    @property
    def committed_index(self) -> int:
        """The highest index that any server has committed."""
        return self._committed.last_index

    def check(self, record: Record) -> None:
        """Explain one record of a trace, whatever it is."""
        match record:
            case Step():
                self.step(record)
            case Started():
                self.started(record)
            case Crashed():
                self.crashed(record)
            case Header():
                pass
            case _:
                assert_never(record)

    def is_committed(self, index: int, term: int) -> bool:
        """Some leader committed this entry."""
        return self._committed.term_at(index) == term

    def state_of(self, node: int) -> ServerState | None:
        """What the specification believes a server to be; None: it was never started."""
        server = self._servers.get(node)
        if server is None:
            return None
        return ServerState(
            server.state if server.up else "down",
            server.current_term,
            server.voted_for,
            server.log.last_index,
            server.log.term,
            server.commit_index,
        )

    # -- Restart

    def started(self, record: Started) -> None:
        """A server begins with what its disk holds (Restart)."""
        node = record.node
        log = self._logs.empty
        for ref in record.log:
            log = self._logs.extended(log, ref, node)
        found = _Stable(record.term, record.voted_for, log)
        server = self._servers.get(node)
        if server is not None and not record.wiped:
            possible = [server.stable, *(stage for _, stages in server.writes for stage in stages)]
            if found not in possible:
                held = server.stable
                raise Violation(
                    "Restart",
                    node,
                    f"starts in term {found.term} with a vote for {found.voted_for} and a log up to {log.last_index}; its disk "
                    f"held term {held.term}, a vote for {held.voted_for} and a log up to {held.log.last_index}",
                )
        if record.commit_index > self._committed.last_index:
            raise Violation(
                "Restart", node, f"believes {record.commit_index} to be committed, which nobody did"
            )
        known = _Server(found, found.term, found.voted_for, log, record.commit_index)
        if server is not None:
            known.lost = (*server.lost, server.stable.log) if record.wiped else server.lost
        self._servers[node] = known

    def crashed(self, record: Crashed) -> None:
        """What it promised and did not keep can be heard by nobody any more."""
        server = self._servers.get(record.node)
        if server is not None:
            server.up = False
            server.promises.clear()

    # -- a step

    def step(self, record: Step) -> None:
        """Explain one step of one server."""
        self.steps += 1
        node = record.node
        server = self._servers.get(node)
        if server is None or not server.up:
            raise Violation("Restart", node, "does something before it was started")
        # A leader may speak and then give way for want of answers, all in one step.
        led = server.state == "leader" and record.term == server.current_term
        if record.event == "received":
            self._receive(node, record)
        elif record.event == "persisted":
            self._persisted(server, record)
        elif record.event == "read_requested":
            # A doubled question may be answered twice.
            asked = _Asked(self._committed.last_index, server.current_term, server.round)
            server.reads.setdefault(record.key or "", deque()).append(asked)
        self._terms_and_votes(node, server, record)
        self._roles(node, server, record)
        if record.wrote is not None:
            self._log(node, server, record, record.wrote)
        if (server.log.last_index, server.log.term) != (record.last_index, record.last_term):
            raise Violation(
                "Persist",
                node,
                f"has a log up to {(record.last_index, record.last_term)} and asked to write one up to "
                f"{(server.log.last_index, server.log.term)}",
            )
        self._commit(node, server, record)
        for key, read_index in record.reads:
            self._read(node, server, key, read_index)
        for to, message in record.sent:
            self._send(node, server, record, to, message, led or server.state == "leader")

    def _receive(self, node: int, record: Step) -> None:
        """What arrives was sent, and what it promises was kept."""
        assert record.sender is not None, "a message has a sender"
        assert record.message is not None, "a message was received"
        key = key_of(record.message)
        sent = self._sent.get((record.sender, node), {})
        if key not in sent:
            raise Violation(
                "Network", node, f"received from {record.sender} what was never sent: {record.message}"
            )
        promise = sent[key]
        if record.message["type"] == "TimeoutNow":
            self._servers[node].told_in = record.message["term"]
        if promise is not None and not promise.kept:
            raise Violation("Durability", record.sender, f"promised before it was durable: {record.message}")

    def _persisted(self, server: _Server, record: Step) -> None:
        """Writes up to this token are durable."""
        while server.writes and server.writes[0][0] <= (record.token or 0):
            _, stages = server.writes.popleft()
            for stage in stages:
                # One sync may settle an entry's acknowledgement and the end of that entry: to others it is as if they had
                # happened one after the other, and the acknowledgement had been long on its way.
                server.stable = stage
                _keep(server)
        _keep(server)

    def _terms_and_votes(self, node: int, server: _Server, record: Step) -> None:
        """Timeout, UpdateTerm, HandleRequestVoteRequest."""
        message: Message = record.message or {}
        if record.term < server.current_term:
            raise Violation("Terms", node, f"falls from term {server.current_term} to {record.term}")
        if record.term > server.current_term:
            if record.term == server.current_term + 1 and record.voted_for == node and _stands(record):
                server.votes_granted = set()
            elif message.get("term") == record.term and message.get("type") not in _ASKING_ONLY:
                server.state = "follower"
                server.voted_for = None
            else:
                raise Violation("UpdateTerm", node, f"enters term {record.term}, of which it heard nothing")
            server.current_term = record.term
            if record.voted_for == node and _stands(record):
                server.voted_for, server.state = node, "candidate"
        if record.voted_for != server.voted_for:
            if server.voted_for is not None:
                raise Violation("Election Safety", node, f"changes its vote in term {record.term}")
            if not (
                message.get("type") == "RequestVote"
                and message["term"] == record.term
                and message["candidate_id"] == record.voted_for
                and self._up_to_date(server, message)
            ):
                raise Violation(
                    "HandleRequestVoteRequest",
                    node,
                    f"votes for {record.voted_for} without being asked rightly",
                )
            server.voted_for = record.voted_for
        if (
            message.get("type") == "VoteAccepted"
            and message["term"] == server.current_term
            and server.state == "candidate"
            and record.sender is not None
        ):
            server.votes_granted.add(record.sender)

    def _up_to_date(self, server: _Server, call: Message) -> bool:
        """logOk of HandleRequestVoteRequest (section 5.4.1)."""
        mine = server.log
        theirs: tuple[int, int] = call["last_log_term"], call["last_log_index"]
        return theirs >= (mine.term, mine.last_index)

    def _roles(self, node: int, server: _Server, record: Step) -> None:
        """BecomeLeader, and giving way."""
        role = "follower" if record.role == "pre-candidate" else record.role
        if role == server.state:
            return
        if role == "leader":
            self._become_leader(node, server)
        elif role == "candidate":
            raise Violation("Timeout", node, "is a candidate without having begun an election")
        server.state = role

    def _become_leader(self, node: int, server: _Server) -> None:
        if server.state != "candidate":
            raise Violation("BecomeLeader", node, f"leads, and was {server.state}")
        votes = set(server.votes_granted)
        if (server.stable.term, server.stable.voted_for) == (server.current_term, node):
            votes.add(node)
        if not self._is_quorum(votes):
            raise Violation(
                "BecomeLeader", node, f"leads term {server.current_term} with the votes of {sorted(votes)}"
            )
        known = self._leaders.setdefault(server.current_term, node)
        if known != node:
            raise Violation("Election Safety", node, f"and node {known} both lead term {server.current_term}")
        # A vote may be long on its way: what later leaders have committed since is nothing that this one must hold.
        earlier = [log for term, log in self._committed_in.items() if term < server.current_term]
        for committed in earlier:
            if not server.log.begins_with(committed):
                raise Violation(
                    "Leader Completeness",
                    node,
                    f"leads term {server.current_term} without what was committed up to {committed.last_index} before",
                )
        server.match_index, server.round, server.rounds = {}, -1, {}

    def _log(self, node: int, server: _Server, record: Step, wrote: Wrote) -> None:
        """ClientRequest at a leader, HandleAppendEntriesRequest at a follower; and the write that makes it durable."""
        log, stages = server.log, []
        term, voted_for = self._last_write(server)
        if wrote.truncate_after is not None:
            cut = log.upto(wrote.truncate_after)
            if server.state == "leader":
                raise Violation("Leader Append-Only", node, f"removes what is after {wrote.truncate_after}")
            if cut is None or wrote.truncate_after < server.commit_index:
                raise Violation(
                    "HandleAppendEntriesRequest", node, f"removes what is after {wrote.truncate_after}"
                )
            self._conflicts(node, record, log, cut)
            log = cut
            stages.append(_Stable(term, voted_for, log))
        if wrote.hard_state is not None:
            term, voted_for = wrote.hard_state
            stages.append(_Stable(term, voted_for, log))
        arrived = () if record.message is None else record.message.get("batches", ())
        if arrived and wrote.batches and server.state != "leader":
            self._matches(node, server, record)
        for ref in wrote.batches:
            if server.state == "leader":
                if ref.term != server.current_term:
                    raise Violation(
                        "ClientRequest", node, f"appends {ref} as leader of term {server.current_term}"
                    )
            elif ref not in arrived:
                raise Violation("HandleAppendEntriesRequest", node, f"appends {ref}, which nobody sent")
            if ref.first_index != log.last_index + 1:
                raise Violation("HandleAppendEntriesRequest", node, f"appends {ref} after {log.last_index}")
            log = self._logs.extended(log, ref, node)
            stages.append(_Stable(term, voted_for, log))
        if (term, voted_for) != (server.current_term, server.voted_for):
            raise Violation("Persist", node, f"writes {_told(term, voted_for)}, and is in another state")
        if stages:
            server.writes.append((wrote.token, stages))
        server.log = log

    def _matches(self, node: int, server: _Server, record: Step) -> None:
        """What a follower takes is of this term, and follows an entry that it holds (Figure 2, AppendEntries, 1 and 2)."""
        call: Message = record.message or {}
        before = server.log.upto(call["prev_log_index"])
        if call["term"] != server.current_term or before is None or before.term != call["prev_log_term"]:
            raise Violation(
                "HandleAppendEntriesRequest",
                node,
                f"heeds in term {server.current_term} what a leader of term {call['term']} says to come after "
                f"{call['prev_log_index']} of term {call['prev_log_term']}",
            )

    def _last_write(self, server: _Server) -> tuple[int, int | None]:
        """The term and vote that the disk will hold once all writes so far are done."""
        last = server.writes[-1][1][-1] if server.writes else server.stable
        return last.term, last.voted_for

    def _conflicts(self, node: int, record: Step, log: _Log, cut: _Log) -> None:
        """Only an entry that conflicts with one that was sent removes anything (Figure 2, AppendEntries, 3)."""
        for ref in (record.message or {}).get("batches", ()):
            if ref.first_index == cut.last_index + 1:
                mine = log
                while mine.before is not None and mine.before is not cut:
                    mine = mine.before
                if mine.ref is not None and mine.ref.term == ref.term:
                    break
                return
        raise Violation(
            "HandleAppendEntriesRequest", node, f"removes what is after {cut.last_index} without a conflict"
        )

    # -- AdvanceCommitIndex

    def _commit(self, node: int, server: _Server, record: Step) -> None:
        message: Message = record.message or {}
        acknowledged = message.get("type") == "AppendAccepted" and message["term"] == server.current_term
        if acknowledged and server.state == "leader" and record.sender is not None:
            known = server.match_index.get(record.sender, 0)
            server.match_index[record.sender] = max(known, message["match_index"])
            known = server.rounds.get(record.sender, -1)
            server.rounds[record.sender] = max(known, message["round"])
        if record.commit_index == server.commit_index:
            return
        if record.commit_index < server.commit_index:
            raise Violation(
                "AdvanceCommitIndex", node, f"falls from {server.commit_index} to {record.commit_index}"
            )
        committed = server.log.upto(record.commit_index)
        if committed is None:
            raise Violation(
                "AdvanceCommitIndex", node, f"commits {record.commit_index}, where no batch of its log ends"
            )
        if server.state == "leader":
            self._may_commit(node, server, committed)
            self._committed_in[server.current_term] = committed
        elif message.get("type") != "AppendEntries" or message["leader_commit"] < record.commit_index:
            raise Violation(
                "HandleAppendEntriesRequest",
                node,
                f"commits {record.commit_index}, of which it heard nothing",
            )
        elif record.commit_index > _verified(message):
            raise Violation(
                "HandleAppendEntriesRequest",
                node,
                f"commits {record.commit_index}, verified is {_verified(message)}",
            )
        else:
            self._matches(node, server, record)
        server.commit_index = record.commit_index
        if not (committed.begins_with(self._committed) or self._committed.begins_with(committed)):
            raise Violation(
                "State Machine Safety",
                node,
                f"commits other entries up to {record.commit_index} than another did",
            )
        if committed.last_index > self._committed.last_index:
            self._committed = committed

    def _may_commit(self, node: int, server: _Server, committed: _Log) -> None:
        """A leader commits what a majority holds, if it is of its own term (section 5.4.2)."""
        index = committed.last_index
        agreeing = {peer for peer, match in server.match_index.items() if match >= index}
        if server.stable.log.begins_with(committed):
            agreeing.add(node)
        if not self._is_quorum(agreeing):
            raise Violation("AdvanceCommitIndex", node, f"commits {index}, which {sorted(agreeing)} hold")
        if committed.term != server.current_term:
            raise Violation(
                "AdvanceCommitIndex", node, f"commits {index} of term {committed.term} by counting"
            )
        holding = {id for id, other in self._servers.items() if other.held(committed)}
        if not self._is_quorum(holding):
            raise Violation(
                "Durability", node, f"commits {index}, which is on the disks of {sorted(holding)} alone"
            )

    def _is_quorum(self, servers: set[int]) -> bool:
        return 2 * len(servers & self._voters) > len(self._voters)

    # -- ReadIndex

    def _read(self, node: int, server: _Server, key: str, read_index: int) -> None:
        asked = server.reads.get(key)
        if not asked:
            raise Violation("ReadIndex", node, f"answers a read that nobody asked for ({key})")
        floor, term, round_ = asked.popleft()
        if not asked:
            del server.reads[key]
        if read_index < floor:
            raise Violation(
                "ReadIndex", node, f"gives out {read_index}, and {floor} was committed when it was asked"
            )
        if term != server.current_term:
            round_ = -1
        confirming = {node, *(peer for peer, heard in server.rounds.items() if heard > round_)}
        if not self._is_quorum(confirming):
            raise Violation(
                "ReadIndex",
                node,
                f"gives out {read_index}, and only {sorted(confirming)} are known to have followed since",
            )

    # -- sending

    def _send(self, node: int, server: _Server, record: Step, to: int, message: Message, leads: bool) -> None:
        promise: _Promise | None = None
        term, kind = message["term"], message["type"]
        if kind not in ("RequestPreVote", "PreVoteAccepted") and term != server.current_term:
            raise Violation(kind, node, f"speaks of term {term} in term {server.current_term}")
        match kind:
            case "RequestVote" | "RequestPreVote":
                last = message["last_log_index"], message["last_log_term"]
                if message["candidate_id"] != node or last != (server.log.last_index, server.log.term):
                    raise Violation(kind, node, f"says what is not so: {message}")
                if kind == "RequestVote" and server.state != "candidate":
                    raise Violation(kind, node, f"asks for votes as {server.state}")
                if message.get("transfer") and server.told_in != term - 1:
                    raise Violation(kind, node, f"says that the leader of term {term - 1} told it to stand")
            case "TimeoutNow":
                self._time_out_now(node, server, to, message, leads)
            case "VoteAccepted":
                if server.voted_for != to:
                    raise Violation(
                        kind, node, f"tells {to} that it voted for it, and did for {server.voted_for}"
                    )
                promise = _Promise(term, to, None)
            case "AppendEntries":
                if not leads:
                    raise Violation("AppendEntries", node, f"sends entries as {server.state}")
                self._append_entries(node, server, message)
                server.round = max(server.round, message["round"])
            case "AppendAccepted":
                call: Message = record.message or {}
                held = server.log.upto(message["match_index"])
                if (
                    call.get("type") != "AppendEntries"
                    or message["match_index"] > _verified(call)
                    or held is None
                ):
                    raise Violation(
                        kind, node, f"acknowledges {message['match_index']}, which nobody verified"
                    )
                self._matches(node, server, record)
                batches: Sequence[BatchRef] = call["batches"]
                if batches and batches[-1].last_index == held.last_index and batches[-1] != held.ref:
                    raise Violation(kind, node, f"acknowledges {batches[-1]}, and holds {held.ref}")
                promise = _Promise(term, None, held)
            case _:
                pass
        if promise is not None and not promise.holds(server.stable):
            server.promises.append(promise)
        elif promise is not None:
            promise.kept = True
        sent = self._sent.setdefault((node, to), {})
        key = key_of(message)
        # The same words may have been said before, by an earlier incarnation that kept them.
        if key not in sent or (promise is not None and not (sent[key] or promise).kept):
            sent[key] = promise

    def _time_out_now(self, node: int, server: _Server, to: int, message: Message, leads: bool) -> None:
        if not leads or message["leader_id"] != node:
            raise Violation("TimeoutNow", node, f"hands over as {server.state}: {message}")
        handed_over = to, server.current_term
        if server.handed_over != handed_over:
            if server.match_index.get(to, 0) != server.log.last_index:
                raise Violation(
                    "TimeoutNow",
                    node,
                    f"hands over to {to}, which has acknowledged {server.match_index.get(to, 0)} of {server.log.last_index}",
                )
            server.handed_over = handed_over

    def _append_entries(self, node: int, server: _Server, message: Message) -> None:
        if message["leader_commit"] > server.commit_index:
            raise Violation("AppendEntries", node, f"says that {message['leader_commit']} is committed")
        before = server.log.upto(message["prev_log_index"])
        if before is None or before.term != message["prev_log_term"]:
            raise Violation(
                "AppendEntries", node, f"names {message['prev_log_index']} of term {message['prev_log_term']}"
            )
        refs: Sequence[BatchRef] = message["batches"]
        if refs:
            last = server.log.upto(refs[-1].last_index)
            for ref in reversed(refs):
                if last is None or last.ref != ref:
                    raise Violation("AppendEntries", node, f"sends {ref}, which is not in its log")
                last = last.before
            if last is not before:
                raise Violation(
                    "AppendEntries", node, "sends entries that do not follow the one that it names"
                )


_ASKING_ONLY: Final = ("RequestPreVote", "PreVoteAccepted")
"""Messages whose term is one that was only asked about."""


def _keep(server: _Server) -> None:
    """What is on stable storage now keeps some promises."""
    for promise in server.promises:
        promise.kept = promise.holds(server.stable)
    server.promises = [promise for promise in server.promises if not promise.kept]


def _stands(record: Step) -> bool:
    return record.role in ("candidate", "leader")


def _verified(call: Message) -> int:
    """The last entry that the receiver of this call shares with its leader."""
    batches: Sequence[BatchRef] = call["batches"]
    return batches[-1].last_index if batches else int(call["prev_log_index"])


def _told(term: int, voted_for: int | None) -> str:
    return f"term {term}, vote {voted_for}"
