"""A test that cannot fail is a defect: each rule of safety is broken once, and a named scenario turns red.

A planted bug is a replacement of text in one function of the core. Those that random runs find are marked: a few hundred of
them must turn red as well, without knowing what they look for.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pytest

from totora.core import (
    election,
    heartbeat,
    progress,
    proposals,
    quorum,
    reads,
    replication,
    roles,
    state,
    summary,
    transitions,
)

from . import (
    test_5_1_terms,
    test_5_2_election,
    test_5_3_replication,
    test_5_4_safety,
    test_6_4_reads,
    test_9_6_prevote,
    test_pipeline,
    test_sessions,
    test_time,
)
from .runs import Run

RUNS = {"soon": 20, "late": 400}


@dataclass
class Bug:
    """`old` in `function` becomes `new`; `scenarios` turn red, and so do random runs, sooner or later or never."""

    name: str
    function: Callable[..., object]
    old: str
    new: str
    scenarios: tuple[Callable[[], None], ...]
    found: Literal["soon", "late", "never"] = "soon"


BUGS = [
    Bug(
        "a replica count commits older terms",
        replication.advance_commit,
        "and state.log.term_at(index) == state.current_term",
        "",
        (
            test_5_4_safety.test_5_4_2_replica_count_never_commits_an_older_term,
            test_5_4_safety.test_older_term_majority,
        ),
        found="never",  # takes more coincidences than a few hundred runs hold
    ),
    Bug(
        "a vote is not persisted, and given again after a restart",
        state.State.promise,
        "staged.hard_state = self.hard_state",
        "staged.hard_state = HardState(term, None)",
        (test_5_2_election.test_crash_before_vote_persisted,),
    ),
    Bug(
        "a vote is given to everyone who asks",
        election.on_request_vote,
        "and state.hard_state.voted_for in (None, call.candidate_id)",
        "",
        (
            test_5_2_election.test_5_2_receiver_2_one_vote_per_term,
            test_5_2_election.test_5_2_at_most_one_leader_per_term,
        ),
    ),
    Bug(
        "no check whether the candidate is up to date",
        election._is_up_to_date,
        "return (last_log_term, last_log_index) >= (state.log.last_term, state.log.last_index)",
        "return True",
        (test_5_4_safety.test_5_4_1_only_a_server_that_holds_all_committed_entries_is_elected,),
    ),
    Bug(
        "the length of a log is compared before its term",
        election._is_up_to_date,
        "return (last_log_term, last_log_index) >= (state.log.last_term, state.log.last_index)",
        "return (last_log_index, last_log_term) >= (state.log.last_index, state.log.last_term)",
        (
            lambda: test_5_4_safety.test_5_4_1_a_vote_goes_only_to_a_log_at_least_as_up_to_date((1, 5), True),
            lambda: test_5_4_safety.test_5_4_1_a_vote_goes_only_to_a_log_at_least_as_up_to_date(
                (9, 3), False
            ),
        ),
        found="late",
    ),
    Bug(
        "every append truncates",
        replication._take,
        "log.term_at(batch.last_index) == batch.term",
        "False",
        (test_5_3_replication.test_duplicate_append,),
    ),
    Bug(
        "a follower commits what stands in its log, verified or not",
        replication.on_append_entries,
        "min(call.leader_commit, verified)",
        "min(call.leader_commit, state.log.last_index)",
        (test_5_3_replication.test_follower_commit_bound,),
        found="late",
    ),
    Bug(
        "the previous entry is not compared",
        replication._matches,
        "state.log.term_at(call.prev_log_index) == call.prev_log_term",
        "call.prev_log_index <= state.log.last_index",
        (test_5_3_replication.test_5_3_receiver_2_a_log_with_another_term_at_the_previous_entry_refuses,),
        found="late",
    ),
    Bug(
        "a leader counts itself up to what is not durable",
        replication.advance_commit,
        "state.log.durable_index",
        "state.log.last_index",
        (
            test_5_3_replication.test_single_node_ack,
            test_5_3_replication.test_5_3_a_leader_counts_itself_only_up_to_what_is_durable,
        ),
    ),
    Bug(
        "a new leader reads before its no-op is committed",
        reads.advance_reads,
        "and state.commit_index >= leader.first_index",
        "",
        (test_6_4_reads.test_read_before_noop,),
        found="never",  # takes more coincidences than a few hundred runs hold
    ),
    Bug(
        "any answer confirms a read",
        reads._is_confirmed,
        ">= asked_round",
        ">= 0",
        (test_6_4_reads.test_6_4_answers_to_earlier_heartbeats_do_not_confirm,),
        found="late",
    ),
    Bug(
        "a leader's own word confirms a read",
        reads._is_confirmed,
        "voter == state.id or _acked_round(leader, voter) >= asked_round",
        "True",
        (test_6_4_reads.test_6_4_a_leader_that_was_cut_off_answers_no_read,),
        found="late",
    ),
    Bug(
        "a duplicated vote counts twice",
        election.on_vote_accepted,
        "role.votes.granted.add(sender)",
        "role.votes.granted.add(min(state.configuration.voters - role.votes.granted))",
        (test_5_2_election.test_duplicate_vote_response,),
        found="never",  # takes more coincidences than a few hundred runs hold
    ),
    Bug(
        "votes of an earlier term count",
        election.on_vote_accepted,
        "and response.term == state.current_term",
        "",
        (lambda: test_5_1_terms.test_5_1_an_answer_of_a_stale_term_changes_nothing("candidate"),),
        found="never",  # takes more coincidences than a few hundred runs hold
    ),
    Bug(
        "acknowledgements of an earlier term count",
        replication.on_append_accepted,
        "or response.term != state.current_term",
        "",
        (test_5_3_replication.test_stale_ack,),
        found="never",  # most of them prove something that holds all the same
    ),
    Bug(
        "an answer leaves before the sync that it rests on",
        state.State.answer,
        "self.unpersisted",
        "None",
        (
            test_5_2_election.test_crash_before_vote_persisted,
            test_5_1_terms.test_5_1_a_term_that_grew_is_on_disk_before_it_is_answered,
        ),
    ),
    Bug(
        "a heartbeat of a term that is not durable is answered",
        replication.on_append_entries,
        "and state.hard_state_durable",
        "",
        (test_5_3_replication.test_5_3_a_heartbeat_of_a_new_term_is_answered_once_the_term_is_durable,),
    ),
    Bug(
        "half of an even cluster is a majority",
        quorum._majority,
        "len(voters) // 2 + 1",
        "(len(voters) + 1) // 2",
        (test_5_2_election.test_5_2_an_even_cluster_needs_more_than_half,),
    ),
    Bug(
        "match_index is not reset at an election",
        roles.Candidate.lead,
        "Progress(next_index=first_index, contact_ns=now)",
        "Progress(next_index=first_index, match_index=first_index - 1, contact_ns=now)",
        (test_5_2_election.test_5_2_a_new_leaders_index_of_what_to_send_starts_after_its_own_last_entry,),
    ),
    Bug(
        "a new leader appends no no-op",
        replication.lead,
        '_append_own(state, leader, Kind.NOOP, b"")',
        "pass",
        (test_5_4_safety.test_5_4_2_a_new_leader_appends_an_entry_of_its_term_at_once,),
    ),
    Bug(
        "being asked for a pre-vote counts as hearing a leader",
        election.on_request_pre_vote,
        "_check_sender(sender, call)",
        "state.role.heard_ns = state.now",
        (test_9_6_prevote.test_prevote_deadlock,),
    ),
    Bug(
        "being asked for a pre-vote restarts the patience",
        election.on_request_pre_vote,
        "_check_sender(sender, call)",
        "state.role.deadline_ns = state.election_deadline()",
        (test_9_6_prevote.test_9_6_being_asked_is_no_sign_of_a_leader,),
        found="never",
    ),
    Bug(
        "a refused pre-vote's higher term is ignored",
        election.on_pre_vote_rejected,
        "response.term > state.current_term",
        "False",
        (test_9_6_prevote.test_prevote_deadlock,),
        found="never",  # takes more coincidences than a few hundred runs hold
    ),
    Bug(
        "votes are given while a leader is heard",
        election.hears_leader,
        "state.now - heard_ns < state.settings.election_min_ns",
        "False",
        (test_5_2_election.test_5_2_no_vote_is_given_while_a_leader_is_heard,),
        found="never",  # a matter of liveness
    ),
    Bug(
        "a write proves entries that were written anew since",
        state.State.truncate_after,
        "write.last_index = min(write.last_index, index)",
        "pass",
        (test_5_3_replication.test_append_aba,),
        found="never",  # needs the same place rewritten while its write is under way: rarer than these runs are many
    ),
    Bug(
        "a candidate counts its vote before it is durable",
        election._campaign,
        "for peer in state.peers:",
        "state.role.votes.granted.add(state.id)\n    for peer in state.peers:",
        (test_5_2_election.test_5_2_a_candidates_own_vote_counts_once_durable,),
        found="never",  # nobody grants what was not asked, and asking waits for the disk
    ),
    Bug(
        "a heartbeat acknowledges the whole log",
        replication.on_append_entries,
        "call.batches[-1].last_index if call.batches else call.prev_log_index",
        "state.log.last_index",
        (test_5_3_replication.test_5_3_an_empty_append_acknowledges_what_it_verified_not_what_the_log_holds,),
        found="late",
    ),
    Bug(
        "a higher term in an answer is ignored",
        transitions.follow,
        "if term > state.current_term:",
        "if term > state.current_term + 100:",
        (lambda: test_5_1_terms.test_5_1_a_server_that_hears_of_a_higher_term_in_a_call_follows("leader"),),
        found="late",
    ),
    Bug(
        "a stale leader's entries are taken",
        replication.on_append_entries,
        "if call.term < state.current_term:",
        "if False:",
        (test_5_3_replication.test_5_3_receiver_1_a_stale_term_is_refused,),
        found="late",
    ),
    Bug(
        "a leader that nobody answers stays",
        replication.check_quorum,
        "if not has_quorum(state.configuration, answered):",
        "if False:",
        (test_time.test_a_leader_that_no_majority_answers_gives_way,),
        found="never",  # a matter of liveness
    ),
    Bug(
        "match_index falls",
        progress.Progress.matched,
        "if match_index > self.match_index:",
        "if True:",
        (test_pipeline.test_match_index_never_falls_and_next_index_stays_above_it,),
        found="never",  # a matter of liveness
    ),
    Bug(
        "a heartbeat rests on entries that are under way",
        heartbeat.send_heartbeat,
        "leader.progress[peer].match_index",
        "leader.progress[peer].next_index - 1",
        (test_6_4_reads.test_6_4_a_heartbeat_carries_what_the_follower_is_known_to_hold,),
        found="never",  # a matter of speed
    ),
    Bug(
        "a retry is appended again",
        proposals._is_next,
        "if event.sequence == next_sequence:",
        "if event.sequence <= next_sequence:",
        (test_sessions.test_a_duplicate_is_answered_at_its_place_and_not_appended_again,),
    ),
    Bug(
        "a gap is not noticed",
        proposals._is_next,
        "if event.sequence == next_sequence:",
        "if event.sequence >= next_sequence:",
        (test_sessions.test_a_gap_is_refused_with_the_number_that_is_expected,),
        found="never",  # takes more coincidences than a few hundred runs hold
    ),
    Bug(
        "the session table is not rolled back",
        summary.SessionTable.take_back,
        "known.runs.pop()",
        "return",
        (test_sessions.test_the_table_is_rolled_back_with_the_log,),
        found="never",  # takes more coincidences than a few hundred runs hold
    ),
    Bug(
        "a mismatch is told without confirmation",
        reads.refuse_condition,
        "read_requested(state, condition)",
        "leader.conditions.append(condition)\n    _answer_conditions(state, leader)",
        (test_sessions.test_a_mismatch_with_a_committed_entry_still_waits_for_leadership,),
        found="never",  # takes more coincidences than a few hundred runs hold
    ),
    Bug(
        "a mismatch with what is not committed is told",
        reads._answer_conditions,
        "condition.last_index <= state.commit_index",
        "True",
        (test_sessions.test_a_mismatch_is_told_only_once_it_is_certain,),
        found="never",  # the runs do not look at what a mismatch names
    ),
]


def plant(monkeypatch: pytest.MonkeyPatch, bug: Bug) -> None:
    """Compile the function with the bug in it, and put it wherever the core knows the sound one."""
    source = textwrap.dedent(inspect.getsource(bug.function))
    assert source.count(bug.old) == 1, (
        f"{bug.function.__qualname__} says {bug.old!r} {source.count(bug.old)} times"
    )
    module = sys.modules[bug.function.__module__]
    namespace: dict[str, object] = {}
    code = compile(
        "from __future__ import annotations\n" + source.replace(bug.old, bug.new), bug.name, "exec"
    )
    exec(code, module.__dict__, namespace)  # noqa: S102  # this is how a bug is planted
    broken = namespace[bug.function.__name__]
    class_name, _, name = bug.function.__qualname__.rpartition(".")
    if class_name:
        monkeypatch.setattr(getattr(module, class_name), name, broken)
        return
    for user in [m for name, m in sys.modules.items() if name.startswith("totora.core")]:
        if getattr(user, name, None) is bug.function:
            monkeypatch.setattr(user, name, broken)


def turns_red(scenario: Callable[[], object]) -> bool:
    try:
        scenario()
    except Exception:  # whichever: a test would be red
        return True
    except pytest.fail.Exception:
        return True
    return False


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_turns_its_scenarios_red(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without the bug they are green."""
    for scenario in bug.scenarios:
        scenario()
    plant(monkeypatch, bug)
    for scenario in bug.scenarios:
        assert turns_red(scenario), "the scenario stays green"


def go(seed: int) -> None:
    Run(seed).go(300)


def check_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, bug)
    assert any(turns_red(partial(go, seed)) for seed in range(RUNS[bug.found])), "all runs stay green"


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.found == "soon"], ids=lambda bug: bug.name)
def test_random_runs_find_a_planted_bug(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the first few."""
    check_found(bug, monkeypatch)


@pytest.mark.ci
@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.found == "late"], ids=lambda bug: bug.name)
def test_many_random_runs_find_a_planted_bug(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a few hundred."""
    check_found(bug, monkeypatch)
