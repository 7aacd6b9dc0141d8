"""The ``stac-gitlab`` command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from stac_gitlab.cli.parser import parse

__all__ = ["main"]

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _stop)
    try:
        # Here: its imports take longer than all that --help and the shell's completion need.
        from stac_gitlab.cli.command import run  # noqa: PLC0415

        return run(arguments)
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("stac-gitlab: stopped.", file=sys.stderr)
        return _INTERRUPTED


def _stop(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
