"""A campaign over the processes of a Dask cluster: `pip install distributed`, then `python examples/campaign_on_dask.py`.

Here they are on this machine; with `Client("tcp://scheduler:8786")` instead they are wherever the cluster is. Every worker needs
this totora: a seed that another version of the source played is told as failed. What is played goes into a ledger, so whatever
ends this, the next call goes on.
"""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

from totora.sim.campaign import Campaign, Summary
from totora.sim.ledger import Ledger
from totora.sim.simulation import Plan


def play(executor: Executor, seeds: range, ledger: Path, *, seconds: float = 60) -> Summary:
    """Play these seeds over any executor, and tell what breaks as it is found."""
    with Ledger(ledger) as book:
        campaign = Campaign(Plan(seed=0, seconds=seconds), seeds, executor=executor, ledger=book)
        for result in campaign.run():
            if result.report is None:
                print(f"seed {result.plan.seed} was not played: {result.outcome}")
            elif result.report.violation is not None:
                print(f"seed {result.plan.seed}: {result.report.violation}")
    return campaign.summary


def main() -> None:
    """Two workers of one thread each: a run keeps a processor busy."""
    from distributed import Client, LocalCluster  # pyright: ignore[reportMissingImports]

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        client.get_executor() as executor,
    ):
        summary = play(executor, range(200), Path("campaign.jsonl"))
    print(
        f"{summary.played} runs, {summary.simulated_hours:.1f} simulated hours, {len(summary.violations)} violations"
    )


if __name__ == "__main__":  # workers import this module
    main()
