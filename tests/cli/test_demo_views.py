"""What the demo shows: on terminals of any size, in a pipe, to a program."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from totora import NodeStatus
from totora.cli.demo_live import LiveView
from totora.cli.demo_views import Event, JsonView, Mark, PlainView, Scene
from totora.types import RoleName

KILLED = Event(5.27, "killed", "kill -9: node 3, the leader, is dead", "kill", {"node": 3})
TOOK_OVER = Event(5.31, "took_over", "node 2 took over in term 2", "good", {"node": 2, "failover_ms": 40.2})


def status(id: int, role: RoleName, commit_index: int) -> NodeStatus:
    return NodeStatus(
        id=id,
        role=role,
        term=2,
        leader=2,
        last_index=commit_index + 7,
        commit_index=commit_index,
        applied_index=commit_index,
        durable_index=commit_index,
        cluster_id="c",
        store_id="s",
        incarnation=1,
        volatile=False,
        peers=(),
    )


def scene(**marks: Mark) -> Scene:
    """In the middle: node 3 led and was killed, node 2 leads."""
    scene = Scene("totora demo: 3 nodes replicate 300,000 lines of a text", 300_000, {})
    scene.nodes = {
        1: status(1, "follower", 200_000),
        2: status(2, "leader", 210_000),
        3: status(3, "leader", 150_000),
    }
    scene.marks = {3: "killed", **{int(name[1:]): mark for name, mark in marks.items()}}
    scene.acknowledged, scene.rate = 210_123, 54_321.4
    scene.story = [Event(0.58, "started", "3 processes run"), KILLED, TOOK_OVER]
    return scene


def picture(scene: Scene, width: int = 80, height: int = 24, **options: Any) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, **options)
    with console.capture() as captured:
        console.print(LiveView(scene, console).picture())
    return captured.get().splitlines()


def bars(lines: list[str]) -> list[int]:
    return [line.count("━") for line in lines if "━" in line]


# -- on a terminal


def test_the_picture_holds_what_must_be_seen() -> None:
    lines = picture(scene(), color_system=None)
    assert lines[0].rstrip() == "totora demo: 3 nodes replicate 300,000 lines of a text"
    rows = [line.split() for line in lines]
    assert ["node", "state", "term", "committed"] in rows
    (one,) = [row for row in rows if row[:3] == ["1", "●", "follower"]]
    (two,) = [row for row in rows if row[:3] == ["2", "★", "leader"]]
    (three,) = [row for row in rows if row[:3] == ["3", "✗", "killed"]]
    assert (one[3:5], two[3:5], three[3:5]) == (["2", "200,000"], ["2", "210,000"], ["2", "150,000"])
    assert any("70%  210,123 acknowledged  54,321/s" in line for line in lines)
    assert [line.rstrip() for line in lines[-3:]] == [
        "0.58 s  ·  3 processes run",
        "5.27 s  ✗  kill -9: node 3, the leader, is dead",
        "5.31 s  ✓  node 2 took over in term 2",
    ]


def test_bars_grow_with_what_is_committed() -> None:
    """Without colours a bar is as long as what it shows."""
    one, two, three, all_of_it = bars(picture(scene(), color_system=None))
    assert 0 < three < one <= two
    assert all_of_it > 0


def test_the_dead_and_the_leader_differ_at_a_glance() -> None:
    lines = picture(scene(), color_system="standard")
    (leader,) = [line for line in lines if "leader" in line and "kill" not in line]
    (killed,) = [line for line in lines if "killed" in line]
    assert "\x1b[1;32m" in leader
    assert "\x1b[1;31m" in killed


@pytest.mark.parametrize(
    "mark", ["starting", "killed", "catching up", "stopped", "reading", "verified", "damaged"]
)
def test_a_mark_is_shown_instead_of_the_role(mark: Mark) -> None:
    lines = picture(scene(n1=mark), color_system=None)
    (row,) = [line for line in lines if line.startswith("1 ")]
    assert f" {mark} " in row
    assert "follower" not in row


def test_before_anything_is_known() -> None:
    lines = picture(Scene("title", 10, {1: None, 2: None}), color_system=None)
    assert [line.split() for line in lines if "starting" in line] == [
        ["1", "…", "starting"],
        ["2", "…", "starting"],
    ]


@pytest.mark.parametrize("width", [40, 56, 64, 80, 200])
def test_it_fits_and_cuts_nothing_off(width: int) -> None:
    lines = picture(scene(), width, color_system=None)
    assert max(map(len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    for wanted in (
        "300,000 lines of a text",
        "200,000",
        "210,123 acknowledged",
        "54,321/s",
        "is dead",
        "in term 2",
    ):
        assert wanted in words, wanted
    assert "…" not in words
    assert (len(bars(lines)) == 4) == (width >= 60)


def test_in_a_low_window_the_newest_of_the_story_is_seen() -> None:
    """While it moves: what does not fit a window cannot be redrawn in place. At the end all of it is left."""
    story = [Event(float(n), "e", f"event {n}") for n in range(20)]
    low = scene()
    low.story = story
    lines = picture(low, height=16, color_system=None)
    assert len(lines) <= 16
    assert "event 19" in lines[-1]
    out = io.StringIO()
    with LiveView(low, Console(file=out, force_terminal=True, width=80, height=16)):
        pass
    assert all(f"event {n}" in out.getvalue() for n in range(20))


def test_a_text_from_outside_is_not_obeyed() -> None:
    evil = scene()
    evil.title = "of \x1b[2J.txt [bold]"
    evil.story = [Event(1.0, "finding", "found '\x07' [red]", "bad")]
    lines = picture(evil, color_system=None)
    assert "of \\x1b[2J.txt [bold]" in lines[0]
    assert "found '\\x07' [red]" in lines[-1]
    told: list[str] = []
    with PlainView(evil, told.append) as view:
        view.happened(evil.story[0])
    assert told == ["of \\x1b[2J.txt [bold]", "  1.00 s  ✗ found '\\x07' [red]"]


def test_it_is_drawn_and_left_on_the_screen() -> None:
    out = io.StringIO()
    drawn = scene()
    with LiveView(drawn, Console(file=out, force_terminal=True, width=80, height=24)) as view:
        drawn.nodes[1] = status(1, "follower", 222_222)
        view.moved()
        assert "222,222" in out.getvalue()
        drawn.acknowledged = 300_000
        view.happened(TOOK_OVER)
        assert "100%" in out.getvalue()
        drawn.marks = {1: "verified", 2: "verified", 3: "verified"}
    assert out.getvalue().rpartition("totora demo")[2].count("verified") == 3


# -- in a pipe


def test_plain_lines_tell_the_story_and_every_tenth() -> None:
    told: list[str] = []
    moving = scene()
    moving.acknowledged = 0
    with PlainView(moving, told.append) as view:
        view.moved()
        moving.acknowledged = 29_999
        view.moved()
        assert told == [moving.title]
        for acknowledged in (30_000, 59_999, 180_000):
            moving.acknowledged = acknowledged
            view.moved()
        view.happened(KILLED)
    _, tenth, six_tenths, killed = told
    assert "10%  30,000 acknowledged, 54,321/s; " in tenth
    assert tenth.endswith("committed: node 1 to 200,000, node 2 to 210,000, node 3 killed")
    assert "60%  180,000 acknowledged" in six_tenths
    assert killed == "  5.27 s  ✗ kill -9: node 3, the leader, is dead"


# -- for programs


def test_json_lines_hold_the_events_and_the_numbers() -> None:
    told: list[str] = []
    with JsonView(scene(), told.append) as view:
        view.happened(TOOK_OVER)
        view.moved()
        view.moved()
    event, progress = map(json.loads, told)
    assert event == {"event": "took_over", "at_s": 5.31, "node": 2, "failover_ms": 40.2}
    assert progress.pop("at_s") >= 0
    assert progress == {
        "event": "progress",
        "acknowledged": 210_123,
        "total": 300_000,
        "lines_per_s": 54_321,
        "nodes": [
            {"id": 1, "state": "follower", "term": 2, "last_index": 200_007, "commit_index": 200_000},
            {"id": 2, "state": "leader", "term": 2, "last_index": 210_007, "commit_index": 210_000},
            {"id": 3, "state": "killed", "term": 2, "last_index": 150_007, "commit_index": 150_000},
        ],
    }
