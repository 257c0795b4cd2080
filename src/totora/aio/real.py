"""The real forms of all ports for one node, put together."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from os import PathLike, fspath
from typing import Any, Final

from ..ports import Ports
from .clock import LoopClock
from .disk import RealDisk
from .network import AsyncioNetwork
from .worker import ThreadWorker

__all__ = ["real_ports"]

_LOGGER: Final = logging.getLogger("totora")
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def _log(level: str, event: str, fields: dict[str, Any]) -> None:
    number = _LEVELS[level]
    if _LOGGER.isEnabledFor(number):
        _LOGGER.log(number, event, extra={"fields": fields})


def real_ports(
    data_dir: str | PathLike[str] | None, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None
) -> Ports:
    """Ports on the running event loop. Logs go to the logger `totora`: events as messages, fields in `record.fields`."""
    loop = asyncio.get_running_loop()
    return Ports(
        network=AsyncioNetwork(tls),
        clock=LoopClock(loop),
        random=random.SystemRandom(),
        disk=None if data_dir is None else RealDisk(fspath(data_dir)),
        writer=ThreadWorker(loop, "totora-writer"),
        reader=ThreadWorker(loop, "totora-reader"),
        log=_log,
    )
