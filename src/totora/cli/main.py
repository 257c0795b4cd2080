"""The command `totora`; says so where its extra is not installed."""

from __future__ import annotations

import os
import sys
from typing import Final

__all__ = ["main"]

EXTRA: Final = ("click", "rich")
INTERRUPTED: Final = 130


def main() -> None:
    """Run the command line and exit, as `ending` says."""
    _complete_streams()
    try:
        from .commands import totora

        totora.main(prog_name="totora")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        print("totora: the command line is an extra: pip install 'totora[cli]'", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # before the command began
        print("totora: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _complete_streams() -> None:
    """Something stands at 0, 1 and 2, or a socket would get the number and be written to; what cannot be spelled is escaped."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    # A script that was started without them reads nothing and writes nowhere.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
