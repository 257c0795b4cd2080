"""Campaigns: the same account over any executor, in any order, through any number of interruptions."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.levels import by_level
from tests.planted.example import BREAKS, BROKEN, planted
from tests.processes.waiting import eventually_in_thread
from totora.sim import campaign as campaigns
from totora.sim.campaign import Campaign, Result, Run, Summary, play
from totora.sim.ledger import Failed, Ledger, Played, plan_key, read_ledger, source_hash
from totora.sim.simulation import Plan, broken_property, simulate
from totora.sim.workers import WorkerDied, Workers

ROOT = Path(__file__).parents[2]
SHORT = Plan(seed=0, seconds=5)
SEEDS = range(by_level(quick=6, ci=30))


class Here(Executor):
    """Does it at once, in this thread; knows what it did."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.plans += args
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Backwards(Executor):
    """Keeps what it is given until it has so many, and does the last first."""

    def __init__(self, held: int) -> None:
        self.most = 0
        self._held = held
        self._tasks: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self._lock = threading.Lock()
        self._given = threading.Condition(self._lock)
        self._over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._given:
            self._tasks.append((future, fn, args))
            self.most = max(self.most, len(self._tasks))
            self._given.notify()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._given:
            self._over = True
            self._given.notify()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            with self._given:
                # Who waits for the last ones gives no more.
                self._given.wait_for(lambda: self._over or len(self._tasks) >= self._held, timeout=0.5)
                tasks, self._tasks = self._tasks[::-1], []
                if self._over and not tasks:
                    return
            for future, fn, args in tasks:
                future.set_result(fn(*args))


@contextmanager
def workers(count: int) -> Generator[Workers]:
    made = Workers(count)
    try:
        yield made
    finally:
        made.kill()


def played(executor: Executor, **options: Any) -> Summary:
    campaign = Campaign(SHORT, SEEDS, executor=executor, **options)
    results = list(campaign.run())
    assert len(results) == campaign.summary.played - campaign.summary.resumed
    return account(campaign.summary)


def account(summary: Summary) -> Summary:
    """Without what differs from run to run."""
    return replace(summary, took_ms=0, resumed=0)


@pytest.fixture(scope="module")
def expected() -> Summary:
    summary = Summary()
    for seed in SEEDS:
        plan = Plan(seed=seed, seconds=SHORT.seconds)
        summary.add(plan, Played.of(plan_key(SHORT, source_hash()), simulate(plan), 0))
    return summary


# -- executors


def test_the_account_is_the_same_over_threads(expected: Summary) -> None:
    with ThreadPoolExecutor(2) as executor:
        assert played(executor) == expected
    assert expected.ok
    assert expected.played == len(SEEDS)
    assert expected.simulated_hours > len(SEEDS) * SHORT.seconds / 3_600
    assert sum(expected.operations.values()) > 0 < sum(expected.injected.values())


def test_the_account_is_the_same_over_processes(expected: Summary) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        assert played(executor) == expected
    with workers(2) as executor:
        assert played(executor) == expected


def test_the_account_does_not_depend_on_the_order(expected: Summary) -> None:
    """And an executor never has more than it may."""
    with Backwards(4) as executor:
        assert played(executor, in_flight=4) == expected
        assert 1 < executor.most <= 4


def test_each_seed_is_played_with_each_plan() -> None:
    executor = Here()
    plans = [SHORT, Plan(seed=0, seconds=2, transport="udp")]
    results = list(Campaign(plans, range(3, 5), executor=executor).run())
    assert [(plan.seed, plan.seconds, plan.transport) for plan in executor.plans] == [
        (3, 5, None),
        (3, 2, "udp"),
        (4, 5, None),
        (4, 2, "udp"),
    ]
    assert [result.plan for result in results] == executor.plans


def test_it_ends_after_so_many_simulated_hours() -> None:
    """No run begins once those that were begun reach them."""
    executor = Here()
    campaign = Campaign(SHORT, range(1_000), executor=executor, hours=20 / 3_600, in_flight=2)
    list(campaign.run())
    assert 20 / 3_600 <= campaign.summary.simulated_hours < 60 / 3_600
    assert len(executor.plans) <= 4


def test_an_unknown_kind_of_fault_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no such kind of fault: boredom; there are power, kill"):
        Campaign(Plan(seed=0, faults=("kill", "boredom")), range(1), executor=Here())


def test_it_can_be_stopped(tmp_path: Path) -> None:
    """What was played is in the ledger, the rest is not played."""
    with Ledger(tmp_path / "ledger") as ledger, ThreadPoolExecutor(1) as executor:
        campaign = Campaign(SHORT, range(1_000), executor=executor, ledger=ledger, in_flight=2)
        for number, _ in enumerate(campaign.run()):
            if number == 2:
                campaign.stop()
        assert 3 <= campaign.summary.played <= 5
        assert len(list(ledger.played(campaign.plans))) == campaign.summary.played


def test_the_example_plays_over_any_executor(tmp_path: Path, expected: Summary) -> None:
    """What it does over a Dask cluster, over threads; its ledger is resumed over processes."""
    spec = importlib.util.spec_from_file_location(
        "campaign_on_dask", ROOT / "examples" / "campaign_on_dask.py"
    )
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    ledger = tmp_path / "ledger"
    with ThreadPoolExecutor(2) as executor:
        example.play(executor, SEEDS[:-1], ledger, seconds=SHORT.seconds)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        summary = example.play(executor, SEEDS, ledger, seconds=SHORT.seconds)
    assert summary.resumed == len(SEEDS) - 1
    assert account(summary) == expected


# -- what cannot be played


def failures(results: list[Result]) -> dict[int, str]:
    return {r.plan.seed: r.outcome.why for r in results if isinstance(r.outcome, Failed)}


def test_a_worker_that_is_killed_fails_its_own_seed_and_no_other() -> None:
    """It is replaced, and the next seed is played."""
    long = Plan(seed=0, seconds=400)
    with workers(1) as executor:
        campaign = Campaign(long, range(2), executor=executor, in_flight=2)

        def kill() -> None:
            (pid,) = eventually_in_thread("a worker runs", lambda: executor.pids)
            os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        results = list(campaign.run())
        killer.join()
    assert failures(results) == {0: "its process died of SIGKILL"}
    assert campaign.summary.played == 1
    assert not campaign.summary.ok


def test_a_pool_that_breaks_ends_the_campaign() -> None:
    """It cannot say whose task killed it: all that it had count as failed, and nothing hangs."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        executor.submit(os._exit, 1)
        campaign = Campaign(SHORT, range(1_000), executor=executor, in_flight=3)
        results = list(campaign.run())
    assert 1 <= len(results) <= 4
    assert len(failures(results)) == len(results)
    assert "terminated abruptly" in failures(results)[0]


def test_what_another_version_played_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(plan: Plan) -> Run:
        return Run(report=simulate(plan), source="0123", took_s=0)

    monkeypatch.setattr(campaigns, "play", elsewhere)
    results = list(Campaign(SHORT, range(1), executor=Here()).run())
    assert "another version of the source: 0123" in failures(results)[0]


# -- workers


def test_workers_pass_results_and_errors() -> None:
    with workers(2) as executor:
        assert list(executor.map(pow, [2, 3], [5, 2])) == [32, 9]
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 1, 0).result()
        with pytest.raises(Exception, match=r"pickle|local object"):
            executor.submit(lambda: 1).result()
        with pytest.raises(RuntimeError, match="pickle"):
            executor.submit(threading.Lock).result()
        with pytest.raises(WorkerDied, match="exit code 3"):
            executor.submit(os._exit, 3).result()
        assert executor.submit(len, "abc").result() == 3


def is_deaf() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_workers_do_not_hear_a_terminals_interrupt() -> None:
    """From their first instruction on, the first of them too; whoever started them does."""
    with workers(2) as executor:
        assert all(future.result() for future in [executor.submit(is_deaf) for _ in range(4)])
    assert not is_deaf()


def test_workers_end_when_they_are_shut_down() -> None:
    """Those that are killed wait for nothing; what waits is cancelled."""
    executor = Workers(1)
    forever = executor.submit(signal.pause)
    waiting = executor.submit(len, "")
    eventually_in_thread("it runs", lambda: executor.pids)
    executor.kill()
    assert isinstance(forever.exception(), WorkerDied)
    assert waiting.cancelled()
    assert executor.pids == []
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(len, "")
    with Workers(1) as executor:
        last = executor.submit(len, "ab")
    assert last.result() == 2


# -- ledgers


def test_a_ledger_resumes_where_it_was(tmp_path: Path, expected: Summary) -> None:
    """Only what it lacks is played; the account is that of a campaign that nobody interrupted."""
    path = tmp_path / "ledger"
    with Ledger(path) as ledger:
        list(Campaign(SHORT, SEEDS[:2], executor=Here(), ledger=ledger).run())
    executor = Here()
    with Ledger(path) as ledger:
        assert played(executor, ledger=ledger) == expected
    assert [plan.seed for plan in executor.plans] == list(SEEDS[2:])
    with Ledger(path) as ledger:
        again = Campaign(SHORT, SEEDS, executor=executor, ledger=ledger)
        assert list(again.run()) == []
        assert again.summary.resumed == len(SEEDS)
        assert account(again.summary) == expected


def test_a_torn_last_line_was_not_played(tmp_path: Path) -> None:
    """Cut anywhere, the ledger holds what came before, and goes on."""
    path = tmp_path / "ledger"
    with Ledger(path) as ledger:
        list(Campaign(SHORT, range(2), executor=Here(), ledger=ledger).run())
    whole = path.read_bytes()
    begins = whole[:-1].rfind(b"\n") + 1
    for end in (begins + 1, (begins + len(whole)) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        executor = Here()
        with Ledger(path) as ledger:
            list(Campaign(SHORT, range(2), executor=executor, ledger=ledger).run())
        assert [plan.seed for plan in executor.plans] == [1]
        assert [outcome.seed for outcome in read_ledger(path.read_bytes().splitlines(keepends=True))] == [
            0,
            1,
        ]


def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger(path) as ledger:
        list(Campaign(SHORT, range(1), executor=Here(), ledger=ledger).run())
    newer = path.read_bytes().replace(b'"version":1', b'"version":2')
    for content, why in (
        (b"a diary\n", "line 1: JSON is malformed"),
        (b'{"type":"played"}\n', "line 1: .*required"),
        (newer, "line 1: version 2 of the format"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"ledger: {why}"):
            Ledger(path)
        assert path.read_bytes() == content


def test_one_campaign_at_a_time_writes(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger"), pytest.raises(BlockingIOError, match="another campaign writes to it"):
        Ledger(tmp_path / "ledger")
    Ledger(tmp_path / "ledger").close()


def test_another_plan_or_version_or_seed_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which faults are named is no other plan."""
    path = tmp_path / "ledger"

    def seeds_played(plan: Plan, seeds: range) -> list[int]:
        executor = Here()
        with Ledger(path) as ledger:
            list(Campaign(plan, seeds, executor=executor, ledger=ledger).run())
        return [plan.seed for plan in executor.plans]

    plan = Plan(seed=0, seconds=2, faults=("kill", "cut"))
    assert seeds_played(plan, range(2)) == [0, 1]
    assert seeds_played(Plan(seed=9, seconds=2, faults=("cut", "kill")), range(1, 3)) == [2]
    assert seeds_played(Plan(seed=0, seconds=2, faults=("cut",)), range(1)) == [0]
    assert seeds_played(Plan(seed=0, seconds=2, faults=("kill", "cut"), size=3), range(1)) == [0]
    monkeypatch.setattr(campaigns, "source_hash", lambda: "another")
    assert seeds_played(plan, range(2)) == [0, 1]


def test_a_seed_that_failed_is_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(plan: Plan) -> Run:
        raise OSError("no room")

    with Ledger(tmp_path / "ledger") as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(campaigns, "play", breaks)
            results = list(Campaign(SHORT, range(1), executor=Here(), ledger=ledger).run())
            assert failures(results) == {0: "no room"}
        campaign = Campaign(SHORT, range(1), executor=Here(), ledger=ledger)
        list(campaign.run())
    assert campaign.summary.played == 1
    assert campaign.summary.ok


def test_the_source_has_a_version_that_any_change_moves() -> None:
    assert source_hash() == source_hash()
    assert play(Plan(seed=0, seconds=1)).source == source_hash()
    assert len(source_hash()) == 16


# -- a bug is found


def test_a_planted_bug_is_found_and_remembered(tmp_path: Path) -> None:
    """A violation of the ledger is one of the campaign that resumes it, and breaks the same property again."""
    seeds = range(BREAKS.seed - 1, BREAKS.seed + 2)
    with planted(), Ledger(tmp_path / "ledger") as ledger:
        with ThreadPoolExecutor(2) as executor:
            campaign = Campaign(BREAKS, seeds, executor=executor, ledger=ledger)
            results = list(campaign.run())
        found = {r.plan.seed: r.report for r in results if r.report is not None and r.report.violation}
        report = found[BREAKS.seed]
        assert report is not None
        assert report.broken == BROKEN
        assert report.last
        again = simulate(report.plan)
        assert (again.violation, again.at_s) == (report.violation, report.at_s)
        resumed = Campaign(BREAKS, seeds, executor=Here(), ledger=ledger)
        assert not resumed.summary.ok
        assert {plan.seed for plan, _ in resumed.summary.violations} == set(found)
        assert resumed.summary.violations[0][1].broken == BROKEN


@pytest.mark.parametrize(
    ("violation", "broken"),
    [
        ("Violation: Election Safety: node 1 and node 2 both lead term 7", "Election Safety"),
        ("AssertionError: what was acknowledged is lost: 17", "what was acknowledged is lost"),
        ("AssertionError: a condition (3, 4) did not hold at 12", "a condition (N, N) did not hold at N"),
        ("AssertionError: node 2 stopped by itself: disk", "node N stopped by itself"),
        ("AssertionError: key 'x' is odd", "key '..' is odd"),
        ("AssertionError: ", "AssertionError"),
        ("KeyError: 17", "KeyError: N"),
        ("Endless", "Endless"),
    ],
)
def test_a_property_has_the_same_name_in_every_run_that_breaks_it(violation: str, broken: str) -> None:
    assert broken_property(violation) == broken
