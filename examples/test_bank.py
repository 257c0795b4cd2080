"""The bank under every fault. One of these tests fails: `pytest examples/test_bank.py` says in which seed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from examples.bank import Balance, Bank, Command, Deposit, pay_again, pay_once
from totora import Node, RaftError
from totora.sim import Cluster


@pytest.mark.simulate(seeds=20, machine=Bank, entry_type=Command)
@pytest.mark.parametrize("pay", [pay_once, pay_again])
def test_a_payment_is_made_once(
    cluster: Cluster, pay: Callable[[Node[Command], int], Coroutine[Any, Any, None]]
) -> None:
    cluster.apply(Deposit("ann", 1_000))
    begun, paid, unknown = 0, 0, 0

    def work() -> None:
        nonlocal begun, paid, unknown
        begun += 1
        try:
            cluster.call(lambda node: pay(node, begun))
            paid += 1
        except RaftError:  # the node that was asked is gone
            unknown += 1

    cluster.chaos(seconds=30, work=work)
    assert paid <= cluster.query(Balance("bob")) <= paid + unknown
