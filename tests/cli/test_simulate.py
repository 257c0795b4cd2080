"""`totora simulate` and `totora check-trace`: what is found is told and can be seen again; whatever ends them, nothing stays."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.shell import Ended, started, totora
from tests.cli.test_terminal import terminal
from tests.cli.test_usage import invoke
from tests.planted.example import BREAKS, BROKEN, planted_everywhere
from tests.processes.waiting import HANG_S, eventually_in_thread
from totora.cli import simulate_options
from totora.cli.simulate_view import replay_words
from totora.sim.faults import FAULTS
from totora.sim.history import load_history
from totora.sim.linearizability import check_history
from totora.sim.simulation import Plan

SHORT = ("--seconds", "5", "--jobs", "2", "--workload", "log")
AGAIN = ("--seconds", f"{BREAKS.seconds:g}", "--workload", "log")
SEED = str(BREAKS.seed)


def summary(ended: Ended) -> dict[str, Any]:
    last = ended.objects[-1]
    assert last["event"] == "summary"
    return last


# -- a campaign


def test_a_campaign_tells_what_it_amounted_to() -> None:
    ended = totora("simulate", "--seeds", "0:4", *SHORT)
    assert (ended.code, ended.err) == (0, "")
    first, *rest = ended.lines
    assert re.fullmatch(r"4 runs played: 0\.0\d h simulated, [\d,]+ times real time", first)
    assert rest[0].startswith("faults      ")
    assert any(re.match(r"operations  [\d,]+ checked: ok [\d,]+", line) for line in rest)
    assert rest[-1] == "violations  none"


def test_a_program_gets_the_same_as_an_object() -> None:
    ended = totora("simulate", "--seeds", "0:2", *SHORT, "--faults", "kill, cut", "--json")
    assert (ended.code, ended.err) == (0, "")
    (told,) = ended.objects
    assert told["ok"]
    assert (told["played"], told["resumed"], told["violations"], told["failed"]) == (2, 0, [], [])
    assert set(told["faults"]) <= {"kill", "cut"}
    assert told["operations"]["ok"] > 0
    assert told["simulated_s"] > 10


def test_no_faults_is_a_choice() -> None:
    ended = totora("simulate", "--seeds", "3", *SHORT, "--faults", "none", "--json")
    assert summary(ended)["faults"] == {}
    assert summary(ended)["played"] == 1


def test_a_ledger_is_resumed(tmp_path: Path) -> None:
    """What it holds is not played again, and is part of the account."""
    ledger = tmp_path / "ledger"
    once = totora("simulate", "--seeds", "0:2", *SHORT, "--ledger", ledger, "--json")
    more = totora("simulate", "--seeds", "0:3", *SHORT, "--ledger", ledger, "--json")
    assert (summary(once)["played"], summary(once)["resumed"]) == (2, 0)
    assert (summary(more)["played"], summary(more)["resumed"]) == (3, 2)
    again = totora("simulate", "--seeds", "0:3", *SHORT, "--ledger", ledger)
    assert again.lines[0].startswith("3 runs played, 3 of them before: ")


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("a diary\n")
    ended = totora("simulate", "--seeds", "0:2", *SHORT, "--ledger", tmp_path / "ledger")
    assert ended.failed().startswith(f"totora simulate: {tmp_path / 'ledger'}: line 1: ")


def test_hours_need_no_seeds() -> None:
    ended = totora("simulate", "--hours", "0.01", *SHORT, "--json")
    assert ended.code == 0
    assert 36 <= summary(ended)["simulated_s"] < 120


def test_minutes_are_of_real_time() -> None:
    """Runs begin until they are over, and what was begun is played to its end."""
    ended = totora("simulate", "--seeds", "7:", "--minutes", "0.02", *SHORT, "--json")
    assert ended.code == 0
    assert summary(ended)["played"] >= 1


# -- what breaks


def test_what_breaks_is_told_shrunk_and_seen_again(tmp_path: Path) -> None:
    """The commands that it names show the same violation."""
    variables = planted_everywhere(tmp_path)
    ended = totora("simulate", "--seeds", SEED, *AGAIN, "--cases", tmp_path, **variables)
    assert ended.code == 1
    assert ended.err == "totora simulate: 1 run broke 1 property\n"
    assert re.search(rf"^seed {SEED}.*: broken: {BROKEN}, \d+\.\d+ s into the run$", ended.out, re.MULTILINE)
    assert re.search(
        r"^ +\d+\.\d{6} s  node \d  receives RequestVote\(.*VoteAccepted", ended.out, re.MULTILINE
    )
    assert re.search(rf"^violations  1: {BROKEN} \(1 run, seed {SEED}\)$", ended.out, re.MULTILINE)
    commands = re.findall(r"^  again: totora (simulate --replay .+)$", ended.out, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        again = totora(*shlex.split(command), **variables)
        assert again.code == 1
        assert again.err == f"totora simulate: seed {SEED} breaks {BROKEN}\n"
        assert f"broken: {BROKEN}, " in again.out
    mended = totora(*shlex.split(commands[1]))
    assert mended.code == 0
    assert mended.out.endswith("no property broke\n")


@pytest.mark.ci
def test_a_program_is_told_what_breaks(tmp_path: Path) -> None:
    """All is in objects: the violation, the shrunk run, the account."""
    variables = planted_everywhere(tmp_path)
    ended = totora("simulate", "--seeds", SEED, *AGAIN, "--cases", tmp_path, "--json", **variables)
    assert ended.code == 1
    violation, shrunk, account = ended.objects
    assert (violation["event"], violation["seed"], violation["broken"]) == ("violation", BREAKS.seed, BROKEN)
    assert violation["last"][-1]["type"] == "step"
    assert violation["replay"].startswith(f"totora simulate --replay {SEED}")
    assert (shrunk["event"], shrunk["broken"]) == ("shrunk", BROKEN)
    case = json.loads(Path(shrunk["file"]).read_text())
    assert len(case["faults"]) == shrunk["faults"]
    assert [found["seed"] for found in account["violations"]] == [BREAKS.seed]
    assert not account["ok"]
    whole = totora("simulate", "--seeds", SEED, *AGAIN, "--no-shrink", "--json", **variables)
    assert [told["event"] for told in whole.objects] == ["violation", "summary"]


# -- one run


def test_a_replay_writes_its_trace_and_the_trace_is_allowed(tmp_path: Path) -> None:
    """The same bytes each time."""
    files = tmp_path / "one", tmp_path / "other"
    for file in files:
        ended = totora("simulate", "--replay", "7", "--seconds", "5", "--trace", file)
        assert (ended.code, ended.err) == (0, "")
        assert re.match(
            r"seed 7.*: \d+\.\d s of a cluster's life, [\d,]+ steps, \d+ operations, \d+ faults?\n", ended.out
        )
    assert files[0].read_bytes() == files[1].read_bytes()
    checked = totora("check-trace", files[0])
    assert (checked.code, checked.err) == (0, "")
    assert re.fullmatch(
        r"allowed: [\d,]+ steps and \d+ starts? of \d nodes?, terms up to \d+, committed up to \d+\n",
        checked.out,
    )
    piped = totora("check-trace", stdin=files[0].read_bytes())
    assert piped == checked
    assert totora("check-trace", files[0], "--json").objects[0]["ok"]


def test_a_history_is_one_that_the_checker_knows(tmp_path: Path) -> None:
    """All that clients of kv did: as many operations as are told."""
    file = tmp_path / "history"
    ended = totora(
        "simulate", "--replay", "7", "--seconds", "5", "--workload", "kv", "--history", file, "--json"
    )
    assert (ended.code, ended.err) == (0, "")
    history = list(load_history(file.read_bytes().splitlines()))
    assert len(history) == sum(ended.objects[0]["operations"].values()) > 5
    assert check_history(history).ok


def test_what_is_no_case_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "case.json"
    assert (
        totora("simulate", "--replay", file).failed() == f"totora simulate: {file}: No such file or directory"
    )
    file.write_text("{}")
    assert (
        totora("simulate", "--replay", file).failed().startswith(f"totora simulate: {file}: Object missing")
    )


# -- usage


def test_the_kinds_of_faults_are_listed() -> None:
    listed = invoke("simulate", "--list-faults")
    assert listed.exit_code == 0
    names = [line.split()[0] for line in listed.stdout.splitlines() if not line.startswith(" ")]
    assert names == list(FAULTS)
    assert max(map(len, listed.stdout.splitlines())) <= 100
    objects = [json.loads(line) for line in invoke("simulate", "--list-faults", "--json").stdout.splitlines()]
    assert [told["kind"] for told in objects] == list(FAULTS)
    assert all(told["about"] for told in objects)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--faults boredom,kill", "there is no 'boredom'; kinds are power, kill, "),
        ("--faults kill,", "there is no ''; kinds are"),
        ("--seeds x", "'x' is not A:B, A: or a number"),
        ("--seeds 7:7", "'7:7' holds no seed"),
        (f"--seeds {'9' * 19}:", "holds no seed"),
        ("--seeds 7:", "seeds without an end: give --hours or --minutes"),
        ("--seconds 0", "Invalid value for '--seconds'"),
        ("--jobs 0", "Invalid value for '--jobs'"),
        ("--size 10", "Invalid value for '--size'"),
        ("--workload sql", "Invalid value for '--workload'"),
        ("--hours 0", "Invalid value for '--hours'"),
        ("--trace x", "--trace belongs to --replay"),
        ("--history x", "--history belongs to --replay"),
        ("--replay 7 --seeds 0:3", "--seeds does not belong to --replay, which plays one run"),
        ("--replay 7 --workload all", "--replay plays one run: --workload log or --workload kv"),
        ("--replay 7 --history x", "--history is of --workload kv"),
        (
            "--replay file --seconds 3",
            "--seconds does not belong to --replay FILE, which says all of the run",
        ),
        ("--cases nowhere/at/all", "Invalid value for '--cases'"),
    ],
)
def test_bad_usage_ends_with_2_and_says_what_is_wrong(words: str, says: str) -> None:
    refused = invoke("simulate", *words.split())
    assert refused.exit_code == 2, refused.output
    assert says in refused.stderr.replace("\n", " ")
    assert not refused.stdout


@pytest.mark.parametrize(
    "plan",
    [
        Plan(seed=7),
        Plan(seed=0, seconds=2.5, faults=("kill", "cut"), rate_per_s=0.5, size=5, transport="udp"),
        Plan(seed=9, seconds=3_600, faults=(), transport="tcp"),
        Plan(seed=7, workload="kv"),
    ],
    ids=str,
)
def test_the_command_that_plays_a_run_again_says_all_of_it(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[Plan] = []
    monkeypatch.setattr(simulate_options, "replay", lambda plan, case, **_: played.append(plan))
    assert invoke(*shlex.split(replay_words(plan))[1:]).exit_code == 0
    (again,) = played
    assert again == msgspec.structs.replace(plan, faults=again.faults)
    assert set(again.faults) == set(plan.faults)


# -- its end


def workers_of(pid: int) -> list[int]:
    """The processes that this one has started and that run Python's spawned main."""
    children = [
        id for task in Path(f"/proc/{pid}/task").glob("*/children") for id in task.read_text().split()
    ]
    return [int(id) for id in children if b"spawn_main" in Path(f"/proc/{id}/cmdline").read_bytes()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


LONG = ("--seeds", "0:100000", "--jobs", "2", "--seconds", "5", "--workload", "log", "--faults", "none")


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_a_signal_ends_it_and_its_workers_with_an_account(
    number: signal.Signals, words: str, tmp_path: Path
) -> None:
    """The ledger is kept: the same command goes on."""
    ledger = tmp_path / "ledger"
    with started("simulate", *LONG, "--ledger", ledger) as process:
        eventually_in_thread(
            "two seeds are played", lambda: ledger.exists() and ledger.read_text().count("played") > 2
        )
        workers = workers_of(process.pid)
        process.send_signal(number)
        out, err = (data.decode() for data in process.communicate(timeout=HANG_S))
    assert process.returncode == 128 + number
    told = re.fullmatch(rf"totora simulate: {words}; (\d+) runs played, the ledger has them\n", err)
    assert told, err
    played = int(told[1])
    assert out.startswith(f"{played} runs played: ")
    assert out.endswith("violations  none\n")
    assert len(workers) == 2
    eventually_in_thread("no worker is left", lambda: not any(map(is_running, workers)))
    again = totora("simulate", "--seeds", f"0:{played + 4}", *LONG[2:], "--ledger", ledger, "--json")
    assert (summary(again)["resumed"], summary(again)["played"]) == (played, played + 4)


def test_kill_9_leaves_no_worker_and_a_ledger_that_goes_on(tmp_path: Path) -> None:
    """As long runs as those may be, whoever plays them ends with the command."""
    ledger = tmp_path / "ledger"
    with started("simulate", *LONG, "--ledger", ledger) as process:
        eventually_in_thread(
            "two seeds are played", lambda: ledger.exists() and ledger.read_text().count("played") > 2
        )
        workers = workers_of(process.pid)
        assert len(workers) == 2
        process.kill()
    eventually_in_thread("no worker is left", lambda: not any(map(is_running, workers)))
    played = ledger.read_text().count('"played"')
    again = totora("simulate", "--seeds", f"0:{played + 4}", *LONG[2:], "--ledger", ledger, "--json")
    assert again.code == 0
    assert (summary(again)["resumed"], summary(again)["played"]) == (played, played + 4)


def test_a_worker_that_is_killed_is_told_and_fails_the_command() -> None:
    long = ("--seeds", "0:1", "--jobs", "1", "--seconds", "3000", "--workload", "log")
    with started("simulate", *long) as process:
        (pid,) = eventually_in_thread("it has a worker", lambda: workers_of(process.pid))
        os.kill(pid, signal.SIGKILL)
        out, err = (data.decode() for data in process.communicate(timeout=HANG_S))
    assert process.returncode == 1
    assert err == "totora simulate: 1 run could not be played\n"
    assert re.match(r"seed 0.*: not played: its process died of SIGKILL\n", out)
    assert re.search(r"^not played  1: seed 0", out, re.MULTILINE)


def test_ctrl_c_on_a_terminal_clears_the_line_that_moves() -> None:
    with terminal("simulate", *LONG, width=60) as shell:
        shell.wait_for(r"\r[1-9][\d,]* of 100,000 runs  [\d.]+ h simulated")
        lines = re.split(r"[\r\n]+", shell.shown)
        shell.keys("\x03")
        assert shell.end() == 130
    assert max(len(line.replace("\x1b[K", "")) for line in lines) < 60
    assert re.search(r"\r\x1b\[K\d+ runs? played: ", shell.shown)
    assert re.search(r"totora simulate: interrupted; \d+ runs? played\r\n$", shell.shown)
    assert "Traceback" not in shell.shown


def test_a_reader_that_went_away_ends_it(tmp_path: Path) -> None:
    """With what breaks first; no worker stays, and nothing is said."""
    variables = planted_everywhere(tmp_path)
    with started("simulate", "--seeds", f"{SEED}:100000", *AGAIN, "--json", **variables) as process:
        assert process.stdout is not None
        process.stdout.close()
        workers = eventually_in_thread("it has workers", lambda: workers_of(process.pid))
        _, err = process.communicate(timeout=HANG_S)
    assert (process.returncode, err) == (1, b"")
    eventually_in_thread("no worker is left", lambda: not any(map(is_running, workers)))


# -- traces that are refused

STARTS = [
    '{"type":"header","voters":[1,2,3]}',
    *(
        f'{{"type":"started","t_ns":0,"node":{node},"term":0,"voted_for":null,"commit_index":0,"log":[]}}'
        for node in (1, 2, 3)
    ),
]


def step(node: int, event: str, role: str, term: int, voted_for: int | None, **more: object) -> str:
    told = {
        "type": "step",
        "t_ns": 1,
        "node": node,
        "event": event,
        "role": role,
        "term": term,
        "voted_for": voted_for,
    }
    return json.dumps(told | {"commit_index": 0, "last_index": 0, "last_term": 0} | more)


def test_the_first_step_that_is_not_allowed_is_told(tmp_path: Path) -> None:
    """Where, what the node was and did, what would have been right."""
    wrote = {"token": 1, "hard_state": [1, 1]}
    stands = step(1, "tick", "candidate", 1, 1, wrote=wrote)
    file = tmp_path / "trace"
    file.write_text("\n".join([*STARTS, "", stands, step(1, "tick", "leader", 1, 1), stands]) + "\n")
    ended = totora("check-trace", file)
    assert ended.failed() == (
        f"totora check-trace: {file}: line 7: BecomeLeader: node 1 leads term 1 with the votes of []"
    )
    assert ended.lines == [
        "refused, after 1 step: line 7, BecomeLeader",
        "  was      candidate, term 1, vote for 1, no log, commit 0",
        "  did      0.000000 s  node 1  its time has come  ->  leader, term 1, vote for 1, no log, commit 0",
        "  but      node 1 leads term 1 with the votes of []",
        "  allowed  a candidate leads with the votes of a majority; its own counts once it is durable",
    ]
    told = totora("check-trace", "--json", file).objects[0]
    assert (told["ok"], told["line"], told["rule"], told["node"]) == (False, 7, "BecomeLeader", 1)
    assert told["before"]["role"] == "candidate"
    assert told["record"]["role"] == "leader"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "line 1: a trace begins with its header, and this one is empty"),
        (["{"], "line 1: Input data was truncated"),
        ([*STARTS, "", '{"type":"stop"}'], "line 6: Invalid value 'stop'"),
        ([*STARTS, step(7, "tick", "follower", 0, None)], "line 5: node 7 is none of the voters"),
        (
            [*STARTS, step(1, "tock", "follower", 0, None)],
            "line 5: no such event: 'tock'; there are entries_read",
        ),
        ([*STARTS, step(1, "tick", "king", 0, None)], "line 5: no such role: 'king'"),
        (
            [*STARTS, step(1, "received", "follower", 0, None)],
            "line 5: received needs a sender and a message",
        ),
        (
            [
                *STARTS,
                step(
                    1, "received", "follower", 0, None, sender=2, message={"type": "RequestVote", "term": 1}
                ),
            ],
            "line 5: Object missing required field `candidate_id`",
        ),
    ],
)
def test_what_is_no_trace_says_where_and_why(lines: list[str], why: str) -> None:
    ended = totora("check-trace", stdin="\n".join(lines))
    assert ended.failed().startswith(f"totora check-trace: the standard input: {why}"), ended.err
    assert ended.out == ""


def test_a_trace_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert (
        totora("check-trace", missing).failed() == f"totora check-trace: {missing}: No such file or directory"
    )
