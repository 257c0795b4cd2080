"""Outcomes for whoever awaits them: a request's error is an outcome like any other, and nobody is told who has given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ..errors import RaftError
from ..session.requests import Ok, Result

__all__ = ["asked", "failed", "new_future", "settle"]

R = TypeVar("R")


def new_future() -> asyncio.Future[R]:
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
    return future


def failed(error: RaftError) -> asyncio.Future[Any]:
    """One that raises this."""
    future: asyncio.Future[Any] = new_future()
    future.set_exception(error)
    return future


def settle(future: asyncio.Future[R], outcome: R | RaftError) -> None:
    """Give the outcome to whoever still waits."""
    if future.done():
        return
    if isinstance(outcome, RaftError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _settle_result(future: asyncio.Future[R], result: Result[R]) -> None:
    settle(future, result.value if isinstance(result, Ok) else result.error)


def asked(ask: Callable[[Callable[[Result[R]], None]], None]) -> asyncio.Future[R]:
    """What an `ask` with a callback comes to, or the RaftError that it raises."""
    future: asyncio.Future[R] = new_future()
    try:
        ask(partial(_settle_result, future))
    except RaftError as error:
        settle(future, error)
    return future
