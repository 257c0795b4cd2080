"""What holds for all tests: their level, and that they leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.levels import by_level, level

__all__ = ["by_level", "level"]

MARK: Final = "TOTORA_TEST_RUN"
"""A variable that every child inherits, so that orphans are found too."""

GRACE_S: Final = 5.0
"""How long a process or a thread that is about to end may still take."""

NOT_OURS: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Helpers of the standard library that live as long as the process that started them."""


def pytest_configure(config: pytest.Config) -> None:
    try:
        level()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`@pytest.mark.ci` tests are left out at LEVEL=quick: not skipped, so that a skip always means a gap."""
    if level() == "ci":
        return
    late = [item for item in items if item.get_closest_marker("ci")]
    if late:
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if item not in late]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = len(terminalreporter.getreports("skipped"))
    if level() == "ci" and skipped:
        terminalreporter.write_line(f"LEVEL=ci skips nothing, but {skipped} skipped", red=True, bold=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter: pytest.TerminalReporter | None = session.config.pluginmanager.get_plugin("terminalreporter")
    if level() == "ci" and exitstatus == pytest.ExitCode.OK and reporter and reporter.getreports("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# -- nothing is left behind ------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The last test's teardown fails if the run leaves a process, a thread or a temporary file behind."""
    run = uuid.uuid4().hex
    scratch = tmp_path_factory.mktemp("tmp")
    threads_before = set(threading.enumerate())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, run)
        patch.setenv("TMPDIR", str(scratch))
        patch.setattr(tempfile, "tempdir", str(scratch))
        yield
    left = _threads(threads_before) + _processes(run) + [f"file {path}" for path in scratch.rglob("*")]
    if left:
        pytest.fail("the tests left behind: " + "; ".join(left), pytrace=False)


def _threads(before: set[threading.Thread]) -> list[str]:
    deadline = time.monotonic() + GRACE_S
    left: list[str] = []
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("pytest_timeout") or thread is threading.current_thread():
            continue
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            left.append(f"thread {thread.name}")
    return left


def _processes(run: str) -> list[str]:
    """Those with this run's mark, ended children that nobody waited for included; they are killed."""
    if sys.platform != "linux":
        return []
    deadline = time.monotonic() + GRACE_S
    while (found := _marked(run)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"process {pid} ({words})" for pid, words in found.items()]


def _marked(run: str) -> dict[int, str]:
    mark = f"{MARK}={run}".encode()
    found: dict[int, str] = {}
    for proc in Path("/proc").iterdir():
        if not proc.name.isdigit() or int(proc.name) == os.getpid():
            continue
        try:
            words = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            state, parent = (proc / "stat").read_text().rpartition(")")[2].split()[:2]
            unwaited = state == "Z" and int(parent) == os.getpid()
            ours = unwaited or mark in (proc / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if ours and not any(name in words for name in NOT_OURS):
            found[int(proc.name)] = "ended, but nobody waited for it" if unwaited else words
    return found
