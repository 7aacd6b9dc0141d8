"""``auth``: which token is used for a server, and tokens that are stored."""

from __future__ import annotations

import argparse
import os
import warnings
from typing import Any

from stac_gitlab.auth import TOKEN_VARIABLES, URL_VARIABLE
from stac_gitlab.auth.token_store import forget_token, stored_servers
from stac_gitlab.cli.options import reader, token_of, url_of
from stac_gitlab.cli.output import Output
from stac_gitlab.dialects import api_url
from stac_gitlab.errors import (
    AuthenticationError,
    PermissionDeniedError,
    STACGitLabError,
    STACGitLabWarning,
)
from stac_gitlab.http.responses import Document
from stac_gitlab.integrations.login import ask_for_token, check_token, log_in, server_of
from stac_gitlab.reading.documents import parse_json
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import redact_document

_NOWHERE = "nowhere: requests are anonymous"


def login(arguments: argparse.Namespace, output: Output) -> int:
    """Store a token for a server, unless the server rejects it."""
    url = url_of(arguments)
    server = server_of(url)
    token = token_of(arguments)
    if token is None:
        token = ask_for_token(server)
    place, problem = log_in(url, token, header=arguments.header or "auto")
    if problem is not None:
        warnings.warn(f"The token could not be checked: {problem}", STACGitLabWarning, stacklevel=1)
    if output.json:
        output.data({"server": server, "stored in": place})
    output.say(f"The token for {server} is stored in {place}.")
    variable = _variable_with_token()
    if variable is not None:
        output.say(f"{variable} is set, and is used before it.")
    return 0


def logout(arguments: argparse.Namespace, output: Output) -> int:
    """Forget the stored token of a server."""
    server = server_of(url_of(arguments))
    found = forget_token(server)
    if output.json:
        output.data({"server": server, "removed": found})
    output.say(f"The token for {server} is {'removed' if found else 'not stored'}.")
    return 0


def status(arguments: argparse.Namespace, output: Output) -> int:
    """Print which token a server gets, and what the server says of it."""
    if arguments.url or os.environ.get(URL_VARIABLE) or not stored_servers():
        urls = [url_of(arguments)]
    else:
        urls = stored_servers()
    codes = []
    for number, url in enumerate(urls):
        if number:
            output.say()
        codes.append(_show_status(arguments, url, output))
    return max(codes)


def _show_status(arguments: argparse.Namespace, url: str, output: Output) -> int:
    server = server_of(url)
    with reader(arguments, server) as io:
        asked = api_url(server)
        headers = io.credentials.headers_for(asked, io.session.dialect_of(asked).token_header)
        found: dict[str, Any] = {
            "server": server,
            "token from": _source_of(arguments, server) if headers else _NOWHERE,
            "header": ", ".join(headers) or None,
        }
        code = 0
        try:
            check_token(io, url)
            found["answer"] = "accepted"
        except STACGitLabError as error:
            found["answer"] = str(error)
            is_refusal = isinstance(error, (AuthenticationError, PermissionDeniedError))
            code = 3 if is_refusal else 1
        found.update(_scopes(io, server) if headers else {})
    output.table(found)
    return code


def _source_of(arguments: argparse.Namespace, server: str) -> str:
    if arguments.token is not None or arguments.token_file is not None:
        return "the command line"
    variable = _variable_with_token()
    if variable is not None:
        return variable
    return "auth login" if server in stored_servers() else _NOWHERE


def _variable_with_token() -> str | None:
    return next((name for name in TOKEN_VARIABLES if os.environ.get(name)), None)


def _scopes(io: GitLabStacIO, server: str) -> dict[str, Any]:
    """Return what GitLab says of the token, if the server is a GitLab."""

    def parse(response: Document) -> dict[str, Any]:
        found = parse_json(response.body, url=response.url, limits=io.session.limits)
        return redact_document(found, response.body, url=response.url)

    once = io.session.retry.replace(max_attempts=1)
    url = f"{server}/api/v4/personal_access_tokens/self"
    try:
        described = io.session.fetch(url, parse, max_bytes=io.max_document_bytes, retry=once)
    except STACGitLabError:
        return {}
    scopes = described.get("scopes")
    named = ", ".join(map(str, scopes)) if isinstance(scopes, list) else None
    return {"name": described.get("name"), "scopes": named, "expires": described.get("expires_at")}
