"""What the options of several commands mean: a URL, a token, a reader, and the selected assets."""

from __future__ import annotations

import argparse
import os
import sys
from urllib.parse import urlsplit

from stac_gitlab.auth import TOKEN_VARIABLES, URL_VARIABLE, Origin
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
    if Origin.of(url) is None or urlsplit(url).path.strip("/"):
        return url
    return api_url(url)


def reader(
    arguments: argparse.Namespace, url: str | None, *, is_target: bool = False
) -> GitLabStacIO:
    """Return a reader whose token belongs to the server of `url`.

    A token of the environment belongs to the server that the environment names, if it names one.

    Args:
        arguments: The arguments of the command.
        url: The URL or path that the command names.
        is_target: Whether the command changes the server, which it then names on purpose.

    Raises:
        ConfigurationError: If the token cannot be read.
    """
    token = token_of(arguments)
    origin = None if url is None or is_local(url) else Origin.of(url)
    is_public = origin is not None and origin.is_public_metadata
    owner = Origin.of(os.environ.get(URL_VARIABLE) or "")
    is_of_environment = token is None and has_token_in_environment() and not is_target
    is_elsewhere = is_of_environment and owner is not None and owner != origin
    return GitLabStacIO(
        token,
        base_url=None if origin is None or is_public or is_elsewhere else url,
        hosts=arguments.hosts,
        header=arguments.header or "auto",
        cache=getattr(arguments, "cache", None),
        offline=getattr(arguments, "offline", False) or None,
    )


def has_token_in_environment() -> bool:
    """Return whether an environment variable holds a token."""
    return any(map(os.environ.get, TOKEN_VARIABLES))


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
