"""Bugs in what is written, synced, and believed when it is read again."""

from __future__ import annotations

from typing import Final

from totora.core.batch import Batch
from totora.storage import identity, record, recovery
from totora.storage.reserve import Reserve
from totora.storage.wal import WriteAheadLog
from totora.wire import handshake

from .bug import Bug

__all__ = ["BUGS"]

BUGS: Final = (
    Bug(
        "write_not_synced",
        "what is written is synced before anybody is told",
        "etcd#14370",
        [(WriteAheadLog._flush, ", sync=True)", ")")],
    ),
    Bug(
        "failed_sync_tried_again",
        "a sync that failed is the end: a second one may succeed without having written anything",
        "fsyncgate",
        [
            (
                WriteAheadLog._flush,
                "file.pwrite(self._parts, active.end, sync=True)",
                (
                    "try:\n"
                    "                file.pwrite(self._parts, active.end, sync=True)\n"
                    "            except OSError:\n"
                    "                file.sync()"
                ),
            )
        ],
    ),
    Bug(
        "segment_renamed_without_a_directory_sync",
        "a name is durable once its directory is synced",
        "etcd#6368",
        [(WriteAheadLog._begin_segment, "self._disk.sync_dir()", "pass")],
    ),
    Bug(
        "identity_renamed_without_a_directory_sync",
        "a name is durable once its directory is synced",
        "etcd#6368",
        [(identity._write, "disk.sync_dir()", "pass")],
        unlikely="the first segment is made just after it, and its own sync covers this one",
        by="test_a_disk_that_fails_in_the_first_start_is_said_so",
    ),
    Bug(
        "recycled_under_a_name_that_may_come_back",
        "a file that is used again has lost its old name for good",
        "etcd#6368",
        [(Reserve.recycle, "self._disk.sync_dir()", "pass")],
        unlikely="a file must be used again, and the power go before the directory is synced for another reason",
        by="test_a_crash_before_any_operation_loses_nothing",
    ),
    Bug(
        "truncation_not_written",
        "what was cut from the log stays cut after a restart",
        "paper 5.3",
        [(WriteAheadLog._truncate_after, "self._put(RecordType.TRUNCATION, encode_index(index))", "pass")],
    ),
    Bug(
        "vote_lost_in_a_new_segment",
        "the segments before the newest are not read for term and vote",
        "PySyncObj#84",
        [
            (
                WriteAheadLog._begin_segment,
                "self._hard_state,",
                "HardState(self._hard_state.current_term),",
            )
        ],
    ),
    Bug(
        "term_written_after_the_entries",
        "term and vote reach the disk before the entries that rest on them",
        "openraft io_ordering",
        [
            (
                WriteAheadLog._write,
                (
                    "if write.hard_state is not None:\n"
                    "        self._hard_state = write.hard_state\n"
                    "        self._put(RecordType.HARD_STATE, encode_hard_state(write.hard_state))\n"
                    "    for batch in write.batches:\n"
                    "        offset = self._put(RecordType.BATCH, batch.data)\n"
                    "        self._noted.append((batch, offset))\n"
                    "        self._summary.append(batch)"
                ),
                (
                    "for batch in write.batches:\n"
                    "        offset = self._put(RecordType.BATCH, batch.data)\n"
                    "        self._noted.append((batch, offset))\n"
                    "        self._summary.append(batch)\n"
                    "    if write.hard_state is not None:\n"
                    "        self._hard_state = write.hard_state\n"
                    "        self._put(RecordType.HARD_STATE, encode_hard_state(write.hard_state))"
                ),
            )
        ],
        unlikely="one write must hold both, and be torn between the two",
        by="test_any_flip_after_a_crash_is_harmless_or_found_but_in_the_last_group",
    ),
    Bug(
        "unsynced_tail_believed",
        "what a killed process wrote and did not sync is not durable because it can be read",
        "etcd#14140",
        [
            (
                WriteAheadLog._settle,
                "self._writable.pwrite([tail.data, bytes(tail.torn_bytes)], tail.start)\n    self._writable.sync()",
                "pass",
            )
        ],
    ),
    Bug(
        "tail_of_a_failed_sync_not_written_again",
        "what a failed sync left behind is taken for clean by the kernel, and is not on the disk",
        "fsyncgate",
        [
            (
                WriteAheadLog._settle,
                "self._writable.pwrite([tail.data, bytes(tail.torn_bytes)], tail.start)",
                "pass",
            )
        ],
    ),
    Bug(
        "torn_tail_not_erased",
        "what was torn must not come back behind what is written next",
        "etcd#14140",
        [
            (
                WriteAheadLog._settle,
                "self._writable.pwrite([tail.data, bytes(tail.torn_bytes)], tail.start)",
                "self._writable.pwrite([tail.data], tail.start)",
            )
        ],
        unlikely="it takes two crashes, and in between a record that ends just where the torn one did",
        by="test_a_torn_tail_is_erased_before_anything_is_written_behind_it",
    ),
    Bug(
        "damage_cut_as_a_torn_tail",
        "damage before what was synced is no torn tail",
        "Protocol-Aware Recovery, FAST '18",
        [(recovery._scan_newest, "if behind.synced > end:", "if False:")],
    ),
    Bug(
        "damaged_segment_read_as_far_as_it_goes",
        "a segment that was complete is read whole or not at all",
        "Protocol-Aware Recovery, FAST '18",
        [(recovery._scan_older, "if end < successor.predecessor_end:", "if False:")],
        unlikely="only what may still be cut is read so, and the damage must be just there",
        by="test_a_flip_in_a_sealed_segment_that_may_still_change_is_found_when_the_log_is_opened",
    ),
    Bug(
        "checksum_of_a_batch_not_checked",
        "what is read is what was written",
        "Protocol-Aware Recovery, FAST '18",
        [(Batch.parse, "if zlib.crc32(memoryview(data)[4:]) != checksum:", "if False:")],
    ),
    Bug(
        "checksum_of_a_record_not_checked",
        "what is read is what was written",
        "Protocol-Aware Recovery, FAST '18",
        [
            (
                record.read_record,
                "if zlib.crc32(protected, seed) != checksum:",
                "if False:",
            )
        ],
    ),
    Bug(
        "record_of_an_earlier_use_of_the_file",
        "what a recycled file held is not taken for new",
        "etcd#6368",
        [
            (WriteAheadLog._begin_segment, "self._random.getrandbits(32) | 1", "1"),
            (record.encode_record, ".pack(segment, offset, length,", ".pack(0, offset, length,"),
            (record.read_record, "_PLACE.pack(segment, offset)", "_PLACE.pack(0, offset)"),
        ],
    ),
    Bug(
        "recovered_commit_index_beyond_the_log",
        "what was known to be committed may lie beyond what survived here",
        "etcd 3.5 post-mortem",
        [
            (
                recovery._fold,
                "commit_index = min(commit_index, extents[-1].last_index)",
                "pass",
            )
        ],
    ),
    Bug(
        "another_disk_under_the_same_id",
        "a node that lost its disk is refused",
        "etcd#3504, hashicorp#643",
        [
            (
                handshake._judge_peer,
                "if member.store_id is not None and member.store_id != hello.store_id:",
                "if False:",
            ),
            (
                handshake.judge_welcome,
                "if member is not None and member.store_id is not None and member.store_id != welcome.store_id:",
                "if False:",
            ),
        ],
    ),
)
