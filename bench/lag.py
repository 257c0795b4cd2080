"""A follower that stands still (SIGSTOP) under full load and then goes on: what that costs the others, and its way back.

    python -m bench.lag [--seconds 5] [--payload 256] [--in-flight 1024]

Three nodes, one closed loop in the leader's process from beginning to end; the third node's commit index, asked twenty times
a second, says how fast it goes. One JSON line; exit code 1 if anyone was elected, a request failed, or the follower had not
caught up at the end. Behind is counted in entries; memory is the peak of each process until then, MiB.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.cluster import Worker, running
from bench.folders import scratch
from bench.options import options_of
from bench.processor import forget_peaks, peak_mib

__all__ = ["main"]

BEFORE_S: Final = 3.0
EVERY_S: Final = 0.05
NEAR_S: Final = 1.0
"""Who has committed what the others had so long ago has caught up."""


@dataclass(frozen=True)
class Sample:
    """at_s: monotonic. other, follower: commit indexes."""

    at_s: float
    other: int
    follower: int


class Watch:
    """Samples of both followers while the leader is busy."""

    def __init__(self, other: Worker, follower: Worker) -> None:
        self._other = other
        self._follower = follower
        self.stopped = False
        self.samples: list[Sample] = []
        self.take()

    def take(self) -> Sample:
        """Of a follower that stands still the last index that it told is kept."""
        other = int(self._other.ask("status")["commit_index"])
        at_s = time.monotonic()
        index = self.last.follower if self.stopped else int(self._follower.ask("status")["commit_index"])
        self.samples.append(Sample(at_s, other, index))
        return self.last

    @property
    def last(self) -> Sample:
        return self.samples[-1]

    def until(self, end_s: float, done: Callable[[], bool] = lambda: False) -> Sample:
        while not done() and self.last.at_s < end_s:
            time.sleep(EVERY_S)
            self.take()
        return self.last

    def near(self) -> bool:
        then = self.last.at_s - NEAR_S
        return self.last.follower >= max(each.other for each in self.samples if each.at_s <= then)


def rate(begin: Sample, end: Sample) -> int | None:
    """Entries a second that the cluster committed in between."""
    seconds = end.at_s - begin.at_s
    return round((end.other - begin.other) / seconds) if seconds else None


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    with running(3, folder) as cluster:
        leader = cluster.leader()
        other, follower = (worker for worker in cluster.workers.values() if worker is not leader)
        load = {"payload_bytes": options.payload, "in_flight": options.in_flight}
        leader.ask("load", seconds=0.5, **load)  # warm
        term = leader.ask("status")["term"]
        ids = {"leader": leader.process.pid, "other": other.process.pid, "follower": follower.process.pid}
        forget_peaks(ids.values())
        watch = Watch(other, follower)
        began = watch.last
        seconds = BEFORE_S + options.seconds + options.then
        leader.tell("load", seconds=seconds, **load)
        stopped = watch.until(began.at_s + BEFORE_S)
        before_mib = {name: peak_mib([id]) for name, id in ids.items()}
        follower.process.send_signal(signal.SIGSTOP)
        watch.stopped = True
        try:
            went_on = watch.until(stopped.at_s + options.seconds)
        finally:
            follower.process.send_signal(signal.SIGCONT)
        stopped_mib = {name: peak_mib([id]) for name, id in ids.items()}
        watch.stopped = False
        end_s = began.at_s + seconds
        near = watch.until(end_s, watch.near)
        caught_up = watch.near()
        end = watch.until(end_s)
        answer = leader.answer()
        peaks = {name: peak_mib([id]) for name, id in ids.items()}
        elections = max(worker.ask("status")["term"] for worker in cluster.workers.values()) - term
    return {
        "bench": "lag",
        **load,
        "stopped_s": options.seconds,
        "per_s_before": rate(began, stopped),
        "per_s_stopped": rate(stopped, went_on),
        "per_s_catching_up": rate(went_on, near),
        "per_s_after": rate(near, end),
        "behind": went_on.other - went_on.follower,
        "caught_up_s": round(near.at_s - went_on.at_s, 2) if caught_up else None,
        "behind_at_end": end.other - end.follower,
        "failures": answer["failures"],
        "elections": elections,
        "mib_before": before_mib,
        "mib_stopped": stopped_mib,
        "mib": peaks,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = options_of(__doc__, folder=True)
    parser.add_argument("--seconds", type=float, default=5.0, help="that the follower stands still")
    parser.add_argument("--then", type=float, default=5.0, help="seconds of load after that")
    parser.add_argument("--payload", type=int, default=256, help="bytes of an entry")
    parser.add_argument("--in-flight", type=int, default=1024)
    options = parser.parse_args(arguments)
    if min(options.seconds, options.then) <= NEAR_S:
        parser.error(f"--seconds, --then: more than {NEAR_S:g}, within which nobody has fallen behind")
    with scratch(options.folder) as folder:
        figure = measure(options, folder)
    print(json.dumps(figure), flush=True)
    fine = figure["caught_up_s"] is not None and not figure["elections"] and not figure["failures"]
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
