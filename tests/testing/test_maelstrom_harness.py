"""The harness passes what is right, turns red for what is wrong, and says so of what is neither."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.levels import by_level
from tests.processes.waiting import HANG_S
from totora.sim.history import Operation, load_history
from totora.sim.linearizability import check_history
from totora.testing.maelstrom_clients import _understood
from totora.testing.maelstrom_cluster import Broken, Weather, halves, isolated, ring

HERE: Final = Path(__file__).parent


def harness(*words: object) -> tuple[int, str, str]:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "totora.testing.maelstrom_harness", *map(str, words)],
        capture_output=True,
        timeout=2 * HANG_S,
        check=False,
    )
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


# -- whole runs


@pytest.mark.parametrize("seed", range(1, by_level(quick=2, ci=6)))
def test_our_node_is_linearizable_under_everything_at_once(seed: int, tmp_path: Path) -> None:
    """Cuts, kill -9 of any number of nodes, loss, doubles, delays that reorder."""
    out = tmp_path / "out"
    faults = ("--partition-every", "1", "--kill-every", "1", "--loss", "0.05", "--duplicate", "0.1")
    code, told, complaints = harness(
        *("--nodes", 3, "--seconds", by_level(quick=3, ci=15), "--rate", 100, "--latency-ms", 5),
        *("--latency-dist", "exponential", "--seed", seed, "--out", out, "--json", *faults),
    )
    assert (code, complaints) == (0, ""), told
    report = json.loads(told)
    assert report["linearizable"] is True
    assert report["succeeded"] > 0
    assert report["kills"] > 0
    with (out / "history.jsonl").open("rb") as lines:
        history = list(load_history(lines))
    assert len(history) > report["operations"], "the last reads are in the history too"
    assert check_history(history).ok
    assert {path.name for path in out.iterdir()} == {"data", "history.jsonl", "n1.log", "n2.log", "n3.log"}


@pytest.mark.parametrize("program", ["wrong_reads.py", "wrong_primary.py"])
def test_a_planted_fault_turns_it_red(program: str, tmp_path: Path) -> None:
    """Reads that ask no leader, of our own node and of one that has none. No fault of the network is needed."""
    out = tmp_path / "out"
    code, told, _ = harness(
        *("--nodes", 3, "--seconds", 3, "--rate", 200, "--latency-ms", 20, "--out", out),
        *("--", sys.executable, HERE / program),
    )
    assert code == 1, told
    assert "NOT linearizable: keys " in told
    assert f"totora check-history {out / 'history.jsonl'}" in told


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import sys; sys.exit(7)", "ended by itself, with exit code 7"),
        ("print('hello', flush=True); input()", "sent what is no message"),
        ('print(\'{"src":"n9","dest":"c1","body":{}}\', flush=True); input()', "its src is 'n9'"),
        ("print('x' * 3_000_000, flush=True); input()", "sent a line that is too long"),
    ],
)
def test_a_program_that_breaks_the_contract_is_named(program: str, says: str, tmp_path: Path) -> None:
    code, told, complaints = harness(
        "--nodes", 1, "--seconds", 1, "--out", tmp_path / "out", "--", sys.executable, "-c", program
    )
    assert (code, told) == (2, "")
    (line,) = complaints.splitlines()
    assert line.startswith("the program broke the contract: n1 ")
    assert says in line
    assert line.endswith(f"what it told is in {tmp_path / 'out'}")


def test_bad_usage_is_refused(tmp_path: Path) -> None:
    assert harness("--nodes", "0")[0] == 2
    assert harness("--out", tmp_path)[0] == 2, "what is there is not overwritten"
    code, _, complaints = harness("--out", tmp_path / "out", "--", tmp_path / "none")
    assert code == 2
    assert "cannot run" in complaints


# -- its parts


@pytest.mark.parametrize("size", range(4, 12))
def test_on_a_ring_each_sees_a_majority_and_no_two_the_same(size: int) -> None:
    names = [f"n{n}" for n in range(size)]
    cuts = ring(names, random.Random(size))
    seen = {name: frozenset(n for n in names if frozenset((n, name)) not in cuts) for name in names}
    assert all(len(each) > size // 2 for each in seen.values())
    assert len(set(seen.values())) == size


def test_a_cut_into_halves_leaves_each_half_whole() -> None:
    names = [f"n{n}" for n in range(5)]
    for size, cuts in ((2, halves(names, 2, random.Random(1))), (1, isolated(names, random.Random(1)))):
        cut_off = Counter(name for pair in cuts for name in pair)
        assert sorted(cut_off.values()) == sorted([5 - size] * size + [size] * (5 - size))


@pytest.mark.parametrize("distribution", ["constant", "uniform", "exponential"])
def test_latency_has_its_mean(distribution: Any) -> None:
    chance = random.Random(1)
    delays = [Weather(0.01, distribution).delay_s(chance) for _ in range(20_000)]
    assert sum(delays) / len(delays) == pytest.approx(0.01, rel=0.05)
    assert min(delays) >= 0


READ: Final = {"type": "read", "key": 1}
WRITE: Final = {"type": "write", "key": 1, "value": 3}
CAS: Final = {"type": "cas", "key": 1, "from": 3, "to": 4}


def error(code: object) -> dict[str, Any]:
    return {"type": "error", "code": code}


@pytest.mark.parametrize(
    ("body", "reply", "what", "status"),
    [
        (READ, {"type": "read_ok", "value": 7}, "succeeded", "ok"),
        (READ, error(20), "refused", "ok"),
        (READ, error(11), "unavailable", "fail"),
        (READ, error(0), "unknown", "unknown"),
        (WRITE, {"type": "write_ok"}, "succeeded", "ok"),
        (WRITE, error(11), "unavailable", "fail"),
        (WRITE, error(13), "unknown", "unknown"),
        (WRITE, error(1_000), "unknown", "unknown"),
        (CAS, {"type": "cas_ok"}, "succeeded", "ok"),
        (CAS, error(20), "refused", "fail"),
        (CAS, error(22), "refused", "fail"),
        (CAS, error(30), "unavailable", "fail"),
        (CAS, error(0), "unknown", "unknown"),
    ],
)
def test_what_an_answer_means(body: dict[str, Any], reply: dict[str, Any], what: str, status: str) -> None:
    """A definite error is a failure, a comparison that failed an observation, all else unknown."""
    said, fields = _understood("n1", body, reply)
    assert (said, fields["status"]) == (what, status)
    operation = Operation(client=0, key="1", call_ns=1, return_ns=2, **fields)
    assert operation.mismatch == (body is CAS and what == "refused")
    if body is READ:
        assert operation.value == reply.get("value")


@pytest.mark.parametrize("reply", [{"type": "write_ok"}, {"type": "error"}, error("11"), error(True)])
def test_an_answer_that_is_none_is_the_programs_fault(reply: dict[str, Any]) -> None:
    with pytest.raises(Broken, match="n1 answered read"):
        _understood("n1", READ, reply)
