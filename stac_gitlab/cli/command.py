"""How a command runs and ends: its output streams, its errors and its exit code."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import warnings
from importlib import import_module

import pystac

from stac_gitlab.auth import Origin
from stac_gitlab.cli.output import Output
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    DownloadError,
    ImplicitTokenWarning,
    PermissionDeniedError,
    STACGitLabError,
    STACGitLabWarning,
)
from stac_gitlab.redaction import redacting_logger

logger = redacting_logger(__name__)
FAILED, USAGE, UNAUTHORIZED = 1, 2, 3
_EXPECTED = (STACGitLabError, pystac.STACError, pystac.STACTypeError, OSError, UnicodeError)
# Errors name the arguments of functions.
_OPTION_OF = {
    "pass create_project=True": "use --create-project",
    "overwrite=": "--overwrite",
    "name that server in hosts=": "name that server with --hosts",
    "Pass one to GitLabStacIO, or set": "Set",
    "Pass None to use the one in the environment": "Leave it out to use the one in the environment",
}


def run(arguments: argparse.Namespace) -> int:
    """Run a command, and return its exit code."""
    if arguments.verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    warnings.showwarning = _show_warning
    warnings.simplefilter("ignore" if arguments.quiet else "always", STACGitLabWarning)
    # Nobody is to miss where a token goes.
    warnings.simplefilter("always", ImplicitTokenWarning)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The terminal may not be able to show every name.
            stream.reconfigure(errors="replace")
    module, _, name = arguments.run.partition(".")
    command = getattr(import_module(f"stac_gitlab.cli.{module}"), name)
    try:
        code: int = command(arguments, Output(json=arguments.json, quiet=arguments.quiet))
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output, such as head, has ended.
        _discard_output()
        return FAILED
    except _EXPECTED as error:
        _discard_output()
        code = _explain(error, verbosity=arguments.verbose)
        # The demo either shows all or fails.
        return FAILED if arguments.command == "demo" else code
    return code


def _discard_output() -> None:
    """Write what has been printed, or drop it, so that the interpreter does not fail at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: Exception, *, verbosity: int) -> int:
    """Print an error, and return the exit code for it."""
    # pystac wraps the errors of links that it follows; the cause says what is wrong.
    cause = error.__cause__ if isinstance(error, pystac.STACError) and error.__cause__ else error
    if verbosity > 1:
        logger.info("The command failed", exc_info=error)
    text = _text_of(cause)
    causes: list[BaseException] = [cause]
    if isinstance(cause, DownloadError) and cause.errors:
        causes = list(cause.errors.values())
    refusals = (AuthenticationError, PermissionDeniedError)
    if all(isinstance(each, refusals) for each in causes):
        server = Origin.of(getattr(causes[0], "url", None) or "")
        if isinstance(causes[0], AuthenticationError) and server is not None:
            text += (
                f"\nCheck the token: stac-gitlab auth status {server}. "
                f"Store another: stac-gitlab auth login {server}."
            )
        code = UNAUTHORIZED
    else:
        code = USAGE if isinstance(cause, ConfigurationError) else FAILED
    _print_error(text)
    return code


def _text_of(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, STACGitLabError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, UnicodeError) and not isinstance(error, STACGitLabError):
        return f"The locale has no such characters ({error}). Set LANG=C.UTF-8."
    text = str(error)
    for argument, option in _OPTION_OF.items():
        text = text.replace(argument, option)
    return text


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _print_error(str(message))


def _print_error(text: str) -> None:
    # With a closed standard error, print would write to standard output.
    if sys.stderr is not None:
        print(f"stac-gitlab: {text}", file=sys.stderr)
