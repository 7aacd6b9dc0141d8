"""Tokens that a person types, checked and stored."""

from __future__ import annotations

import getpass
import os
import sys
from urllib.parse import urlsplit

from stac_gitlab.api.stac_api import STACAPI
from stac_gitlab.auth import TOKEN_VARIABLES, URL_VARIABLE, Origin
from stac_gitlab.auth.token_store import store_token
from stac_gitlab.dialects import api_url
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    NotFoundError,
    STACGitLabError,
)
from stac_gitlab.notebook import is_notebook
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import Secret, quoted, redact


def login(url: str | None = None) -> None:
    """Ask for the token of a server, check it, and store it for all later sessions.

    In a notebook, the token is typed into a field below the cell. It gets into no cell, no output
    and no history. It is stored where ``stac-gitlab auth login`` stores it: in the keyring of the
    system if there is one, or else in a file that only its owner can read. Readers use it if
    neither an argument nor the environment has a token.

    Args:
        url: The server, such as ``https://hub.example.org``; by default ``STAC_GITLAB_URL``.

    Raises:
        AuthenticationError: If the server refuses the token, which is then not stored.
        ConfigurationError: If no server is named, no token is typed or nobody can be asked, or the
            token cannot be stored.
    """
    url = url or os.environ.get(URL_VARIABLE)
    if not url:
        raise ConfigurationError(f"login: give the URL of the server, or set {URL_VARIABLE}.")
    server = server_of(url)
    place, problem = log_in(url, ask_for_token(server))
    print(f"The token for {server} is stored in {place}.")
    if problem is not None:
        print(f"It could not be checked: {problem}")
    for variable in TOKEN_VARIABLES:
        if os.environ.get(variable):
            print(f"{variable} is set in the environment, and is used instead.")


def ask_for_token(server: str) -> str:
    """Return the token that a person types, without showing it.

    Raises:
        ConfigurationError: If nobody can be asked, or nothing is typed.
    """
    nobody = ConfigurationError(
        "There is no terminal to ask for the token. Set STAC_GITLAB_TOKEN, or run 'stac-gitlab "
        "auth login' with --token-file FILE, or '-' for standard input."
    )
    # Without a terminal, getpass shows what is typed.
    if not is_notebook() and (sys.stdin is None or not sys.stdin.isatty()):
        raise nobody
    try:
        token = Secret(getpass.getpass(f"Token for {server}: ").strip())
    except NotImplementedError:
        # A notebook that a program executes.
        raise nobody from None
    except EOFError:
        token = Secret("")
    if not token:
        raise ConfigurationError("No token was typed. Nothing is stored.")
    return token


def log_in(url: str, token: str, *, header: str = "auto") -> tuple[str, STACGitLabError | None]:
    """Check and store a token; return where it is, and why it could not be checked.

    Raises:
        AuthenticationError: If the server refuses the token, which is then not stored.
        ConfigurationError: If it cannot be stored.
    """
    token = Secret(token.strip())
    server, problem = server_of(url), None
    with GitLabStacIO(token, base_url=server, header=header) as io:
        try:
            check_token(io, url)
        except AuthenticationError:
            raise
        except STACGitLabError as error:
            problem = error
    return store_token(server, token), problem


def server_of(url: str) -> str:
    """Return the origin of a URL, which may be the name of a host only.

    Raises:
        ConfigurationError: If it has none.
    """
    origin = Origin.of(_with_scheme(url))
    if origin is None:
        raise ConfigurationError(f"{quoted(redact(url))} is not the URL of a server.")
    return str(origin)


def check_token(io: GitLabStacIO, url: str) -> None:
    """Raise an error unless the server of `url` accepts the token of a reader.

    A SharingHub lists collections for everybody, but items only with a valid token.
    """
    url = _with_scheme(url)
    if urlsplit(url).path.strip("/"):
        io.read_json(url)
        return
    try:
        api = STACAPI(api_url(url), stac_io=io)
        for collection in api.collections():
            next(iter(api.items(collection, limit=1, max_items=1)), None)
            break
    except NotFoundError:
        # It is no SharingHub.
        io.read_json(f"{url.rstrip('/')}/api/v4/user")


def _with_scheme(url: str) -> str:
    return url if "://" in url else f"https://{url}"
