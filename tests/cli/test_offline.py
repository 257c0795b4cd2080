"""`totora log --offline` and `totora verify`: a stopped node's directory, read as it is and left as it is."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.shell import Cluster, running_cluster, totora
from tests.processes.waiting import QUICK, run
from totora import Node, Settings
from totora.cli.demo_cluster import free_addresses
from totora.storage.segment import FIRST_RECORD


class Order(msgspec.Struct):
    sku: str
    n: int


def written(folder: Path, entry_type: Any, entries: Sequence[Any], settings: Settings = QUICK) -> Path:
    """The directory of a cluster of one that took these entries and was stopped."""
    data = folder / "data"

    async def scenario() -> None:
        async with Node(
            1, free_addresses(1), entry_type=entry_type, data_dir=data, settings=settings
        ) as node:
            await asyncio.gather(*(node.propose(entry) for entry in entries))

    run(scenario())
    return data


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_stopped_nodes_log_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    data = written(tmp_path, str, ["a", "b\x1b[2J", "zürich"])
    before = digest(data)
    ended = totora("log", "--data", data, "--offline")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == [
        "       2     1  a",
        "       3     1  b\\x1b[2J",
        "       4     1  zürich",
    ]
    some = totora("log", "--data", data, "--offline", "--from", "3", "--to", "3", "--json")
    assert some.objects == [{"index": 3, "term": 1, "value": "b\x1b[2J"}]
    assert totora("log", "--data", data, "--offline", "--from", "99").lines == []
    assert digest(data) == before


@pytest.mark.parametrize(
    ("entry_type", "entries", "shown"),
    [
        (bytes, [b"text", b"\xff\x00"], ["text", "\\xff\\x00"]),
        (Order, [Order("reed", 3)], ['{"sku":"reed","n":3}']),
        (int, [7], ["7"]),
    ],
)
def test_entries_that_are_not_text_are_shown_too(
    entry_type: Any, entries: Sequence[Any], shown: list[str], tmp_path: Path
) -> None:
    data = written(tmp_path, entry_type, entries)
    ended = totora("log", "--data", data, "--offline")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split("  ")[-1].strip() for line in ended.lines] == shown


def test_a_sound_directory_is_accounted_for(tmp_path: Path) -> None:
    """That of node 2 of three."""
    with running_cluster(tmp_path) as cluster:
        assert cluster("append", stdin="a\nb\nc\n").code == 0
        last = cluster("log", "--json").objects[-1]["index"]
        cluster.stop()
    ended = totora("verify", "--data", cluster.data_dir(2))
    assert (ended.code, ended.err) == (0, "")
    whose, promised, held, verdict = ended.lines
    assert whose.startswith("node 2 of cluster ")
    assert whose.endswith(", started 1 time")
    assert promised.endswith("; voters 1, 2, 3")
    assert held.startswith("entries 1 to ")
    assert held.endswith(", in 1 segment")
    assert verdict == "all records and footers are there, all checksums match"
    told = totora("verify", "--data", cluster.data_dir(2), "--json").objects[0]
    assert (told["sound"], told["damages"], told["node"], told["segments"]) == (True, [], 2, 1)
    assert told["last_index"] >= last


def test_damage_is_named_by_file_and_offset(tmp_path: Path) -> None:
    """In a full segment and in the newest."""
    data = written(tmp_path, str, ["x" * 1_000] * 200, replace(QUICK, segment_bytes=64 << 10))
    segments = sorted(data.glob("*.log"))
    assert len(segments) > 1
    spoil(segments[0], FIRST_RECORD + 40)
    ended = totora("verify", "--data", data)
    assert ended.code == 1
    (damage,) = [line for line in ended.lines if str(segments[0]) in line]
    assert "damaged" in damage
    assert "restore the file from a copy of this directory" in damage
    assert ended.err == f"totora verify: {data} is damaged: 1 place named above\n"
    told = totora("verify", "--data", data, "--json")
    assert told.code == 1
    assert (told.objects[0]["sound"], len(told.objects[0]["damages"])) == (False, 1)
    log = totora("log", "--data", data, "--offline")
    assert log.failed().startswith(f"totora log: {segments[0]}")

    spoil(segments[-1], FIRST_RECORD + 1_500)
    ended = totora("verify", "--data", data)
    assert ended.code == 1
    assert any(str(segments[-1]) in line for line in ended.lines)


def spoil(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert totora("verify", "--data", tmp_path / "none").failed() == (
        f"totora verify: {tmp_path / 'none'} is no directory"
    )
    assert totora("verify", "--data", tmp_path).failed() == (
        f"totora verify: {tmp_path} is no data directory: it has no IDENTITY"
    )
    data = written(tmp_path, str, ["a"])
    identity = (data / "IDENTITY").read_bytes()
    (data / "IDENTITY").write_bytes(identity.replace(b"store_id", b"Store_id"))
    assert "IDENTITY is damaged: restore it" in totora("verify", "--data", data).failed()


def test_a_running_nodes_directory_is_left_alone(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    try:
        cluster.start(1)
        cluster.leader()
        for words in (("verify",), ("log", "--offline")):
            ended = totora(*words, "--data", cluster.data_dir(1))
            assert ended.failed() == (
                f"totora {words[0]}: {cluster.data_dir(1)} is in use: stop the node, or ask it (totora log --nodes)"
            )
        cluster.stop()
    finally:
        cluster.abandon()


def test_bad_usage_says_what_belongs_together(tmp_path: Path) -> None:
    for words in (("--data", tmp_path), ("--offline",)):
        ended = totora("log", *words)
        assert ended.code == 2
        assert "--data and --offline belong together: stop the node, then read its directory" in ended.err
    ended = totora("log")
    assert ended.code == 2
    assert "Missing option '--nodes'" in ended.err
