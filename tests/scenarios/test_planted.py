"""Each scenario turns red when a bug is planted that breaks its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from tests.planted import planted

from . import test_scenarios as scenarios

# A run that a bug ends in the middle may leave coroutines behind.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

BREAKS: Final[dict[str, Callable[[], None]]] = {
    "vote_not_persisted": scenarios.test_crash_before_vote_persisted,
    "vote_leaves_before_it_is_durable": scenarios.test_crash_before_vote_persisted,
    "vote_lost_in_a_new_segment": scenarios.test_restart_all,
    "every_append_truncates": scenarios.test_duplicate_append,
    "committed_beyond_what_was_verified": scenarios.test_follower_commit_bound,
    "write_not_synced": scenarios.test_single_node_ack,
    "unsynced_tail_believed": scenarios.test_lost_unsynced_writes_of_a_killed_process,
    "segment_renamed_without_a_directory_sync": scenarios.test_lost_unsynced_writes,
    "failed_sync_tried_again": scenarios.test_fsync_eio,
    "damage_cut_as_a_torn_tail": scenarios.test_midlog_corruption,
    "checksum_of_a_record_not_checked": scenarios.test_midlog_corruption,
    "another_disk_under_the_same_id": scenarios.test_wiped_node_returns,
    "retry_appended_again": scenarios.test_retry_across_leaders,
    "retry_in_a_new_session": scenarios.test_retry_across_leaders,
    "sessions_lost_at_a_restart": scenarios.test_retry_across_leaders,
}


@pytest.mark.parametrize("bug", BREAKS)
def test_a_bug_breaks_its_scenario(bug: str) -> None:
    with planted(bug), pytest.raises((Exception, pytest.fail.Exception)):
        BREAKS[bug]()
