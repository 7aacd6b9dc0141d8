"""The ``stac-gitlab`` command: its parser, its exit codes, and how it ends.

It uses argparse: the package needs no other parser, and completion is generated from it.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence

import pystac

from stac_gitlab.__about__ import __version__
from stac_gitlab.cli import auth, browse, completion, demo, download, environment, share
from stac_gitlab.cli.output import Output
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    DownloadError,
    PermissionDeniedError,
    STACGitLabError,
    STACGitLabWarning,
)
from stac_gitlab.redaction import redacting_logger

logger = redacting_logger(__name__)
FAILED, USAGE, UNAUTHORIZED, INTERRUPTED = 1, 2, 3, 130
_COMMANDS = (browse, download, share, auth, environment, demo, completion)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    made = argparse.ArgumentParser(
        prog="stac-gitlab", description="Authenticated STAC from the command line."
    )
    made.add_argument("--version", action="version", version=f"stac-gitlab {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="command")
    for module in _COMMANDS:
        module.add_parser(commands)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    arguments = parser().parse_args(argv)
    # completion and demo have fewer options.
    options = {"json": False, "quiet": False, "verbose": False} | vars(arguments)
    verbose = options["verbose"]
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", STACGitLabWarning)
    signal.signal(signal.SIGTERM, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The terminal may not be able to show every name.
            stream.reconfigure(errors="replace")
    try:
        code: int = arguments.run(arguments, Output(json=options["json"], quiet=options["quiet"]))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output, such as head, has ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (STACGitLabError, pystac.STACError, OSError) as error:
        code = _explain(error, verbose=verbose)
        # The demo either shows all or fails.
        return FAILED if arguments.command == "demo" else code
    except KeyboardInterrupt:
        print("stac-gitlab: stopped.", file=sys.stderr)
        return INTERRUPTED
    return code


def _explain(error: Exception, *, verbose: bool) -> int:
    """Print an error, and return the exit code for it."""
    # pystac wraps the errors of links that it follows; the cause says what is wrong.
    cause = error.__cause__ if isinstance(error, pystac.STACError) and error.__cause__ else error
    if verbose:
        logger.info("The command failed", exc_info=error)
    print(f"stac-gitlab: {cause}", file=sys.stderr)
    causes: list[BaseException] = [cause]
    if isinstance(cause, DownloadError) and cause.errors:
        causes = list(cause.errors.values())
    refusals = (AuthenticationError, PermissionDeniedError)
    if all(isinstance(each, refusals) for each in causes):
        return UNAUTHORIZED
    return USAGE if isinstance(cause, ConfigurationError) else FAILED


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"stac-gitlab: {message}", file=sys.stderr)


def _stop(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
