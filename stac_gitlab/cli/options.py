"""Options that several commands share, and the reader that they describe."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from stac_gitlab.auth import TOKEN_VARIABLES, URL_VARIABLE
from stac_gitlab.cli.output import Output
from stac_gitlab.dialects import api_url
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.files.paths import is_local
from stac_gitlab.reading.stac_io import GitLabStacIO

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace, Output], int]


def add_command(commands: Commands, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """Return the parser of a new command, with the options that every command has."""
    parser = commands.add_parser(name, help=text)
    parser.set_defaults(run=run)
    group = parser.add_argument_group("general options")
    group.add_argument("--json", action="store_true", help="print JSON for programs")
    group.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    group.add_argument("-v", "--verbose", action="store_true", help="show attempts and waits")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="read the token from a file ('-': stdin)"
    )
    group.add_argument("--token", help=argparse.SUPPRESS)
    return parser


def url_of(arguments: argparse.Namespace) -> str:
    """Return the URL of a command, by default that in the environment.

    Raises:
        ConfigurationError: If there is none.
    """
    url = arguments.url or os.environ.get(URL_VARIABLE)
    if not url:
        raise ConfigurationError(f"Give a URL, or set {URL_VARIABLE}.")
    return str(url)


def stac_url(url: str) -> str:
    """Return a URL, or that of the STAC API if it is the address of a SharingHub only."""
    if is_local(url) or urlsplit(url).path.strip("/"):
        return url
    return api_url(url)


def reader(arguments: argparse.Namespace, url: str | None) -> GitLabStacIO:
    """Return a reader whose token belongs to the server of `url`.

    Raises:
        ConfigurationError: If the token cannot be read.
    """
    is_remote = url is not None and not is_local(url)
    return GitLabStacIO(
        token_of(arguments),
        base_url=url if is_remote else None,
        cache=getattr(arguments, "cache", None),
        offline=getattr(arguments, "offline", False) or None,
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where documents are kept, and whether to read only those."""
    parser.add_argument("--cache", metavar="FOLDER", help="keep documents in a folder")
    parser.add_argument("--offline", action="store_true", help="read the cache, request nothing")


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that select items and assets."""
    parser.add_argument(
        "-r", "--roles", nargs="+", metavar="ROLE", help="default: data; 'any' for all assets"
    )
    parser.add_argument("-i", "--include", nargs="+", metavar="KEY", help="keys or patterns")
    parser.add_argument("-n", "--max-items", type=int, metavar="N")


def roles_of(arguments: argparse.Namespace) -> list[str] | None:
    """Return the roles of the assets to download; None for all."""
    return None if arguments.roles == ["any"] else arguments.roles or ["data"]


def token_of(arguments: argparse.Namespace) -> str | None:
    """Return the token that the options name, or None.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    if arguments.token is not None:
        print(
            "stac-gitlab: a token on the command line is visible to other users of this machine, "
            f"and stays in the history of the shell. Use --token-file or {TOKEN_VARIABLES[0]}.",
            file=sys.stderr,
        )
        return str(arguments.token)
    path = arguments.token_file
    if path is None:
        return None
    if str(path) == "-":
        return sys.stdin.readline().strip()
    try:
        return str(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--token-file {str(path)!r} cannot be read: {error}.") from None
