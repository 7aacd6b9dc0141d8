"""What the options of several commands mean: a URL, a token, a reader, and the selected assets."""

from __future__ import annotations

import argparse
import os
import sys
from urllib.parse import urlsplit

from stac_gitlab.auth import TOKEN_VARIABLES, URL_VARIABLE
from stac_gitlab.dialects import api_url
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.files.paths import is_local
from stac_gitlab.reading.stac_io import GitLabStacIO


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
        hosts=arguments.hosts,
        header=arguments.header or "auto",
        cache=getattr(arguments, "cache", None),
        offline=getattr(arguments, "offline", False) or None,
    )


def roles_of(arguments: argparse.Namespace) -> list[str] | None:
    """Return the roles of the assets to download; None for all, or if assets are named."""
    if arguments.roles is None:
        return None if arguments.include else ["data"]
    return None if "any" in arguments.roles else list(arguments.roles)


def token_of(arguments: argparse.Namespace) -> str | None:
    """Return the token that the options name, or None.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    if arguments.token is not None:
        if sys.stderr is not None:
            print(
                "stac-gitlab: a token on the command line is visible to other users of this "
                "machine, and stays in the history of the shell. Use --token-file or "
                f"{TOKEN_VARIABLES[0]}.",
                file=sys.stderr,
            )
        return str(arguments.token)
    path = arguments.token_file
    if path is None:
        return None
    if str(path) == "-":
        token = "" if sys.stdin is None else sys.stdin.readline().strip()
    else:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"--token-file {str(path)!r} cannot be read: {reason}."
            ) from None
    if not token:
        raise ConfigurationError(f"--token-file {str(path)!r} holds no token.")
    return str(token)
