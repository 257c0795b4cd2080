"""Whether the log holds what a load was told that it does."""

from __future__ import annotations

import time
from typing import Final

from bench.cluster import Answer, Cluster

__all__ = ["require_all"]

ALL_S: Final = 10.0
"""How long the slowest node may take to commit what the leader has."""


def require_all(cluster: Cluster, before: Answer, answer: Answer) -> None:
    """Raise RuntimeError unless each request had success and left one entry in the log, and every node has committed them.

    before: the leader's status before the load, with nothing uncommitted. answer: what the load said.
    The first entry of a new term is its leader's own.
    """
    after = cluster.leader().ask("status")
    entries = after["last_index"] - before["last_index"]
    terms = after["term"] - before["term"]
    commits, failures = answer["commits"], answer["failures"]
    if failures or not commits <= entries <= commits + terms:
        raise RuntimeError(
            f"{commits} requests had success and {failures} had not; the log grew by {entries} entries in {terms} new terms"
        )
    deadline = time.monotonic() + ALL_S
    for id, worker in cluster.workers.items():
        while (status := worker.ask("status"))["commit_index"] < after["last_index"]:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"node {id} has committed up to {status['commit_index']} of {after['last_index']} after {ALL_S:.0f} s"
                )
            time.sleep(0.02)
