"""``auth``: which token is used for a server, and tokens that are stored."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from stac_gitlab.auth import TOKEN_VARIABLES
from stac_gitlab.auth.token_store import forget_token, stored_servers
from stac_gitlab.cli.options import Commands, add_command, reader, token_of, url_of
from stac_gitlab.cli.output import Output
from stac_gitlab.dialects import api_url
from stac_gitlab.errors import STACGitLabError
from stac_gitlab.http.responses import Document
from stac_gitlab.integrations.login import ask_for_token, check_token, log_in, server_of
from stac_gitlab.reading.documents import parse_json
from stac_gitlab.reading.stac_io import GitLabStacIO


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    auth = commands.add_parser("auth", help="show, store and forget tokens")
    actions = auth.add_subparsers(dest="action", required=True, metavar="action")
    for name, run, text in (
        ("status", _status, "show which token a server gets, and what it says of it"),
        ("login", _login, "store a token for a server"),
        ("logout", _logout, "forget the stored token of a server"),
    ):
        parser = add_command(actions, name, run, text)
        parser.add_argument("url", nargs="?", metavar="URL", help="default: STAC_GITLAB_URL")


def _login(arguments: argparse.Namespace, output: Output) -> int:
    url = url_of(arguments)
    server = server_of(url)
    token = token_of(arguments)
    if token is None:
        token = ask_for_token(server)
    place, problem = log_in(url, token)
    if problem is not None:
        print(f"stac-gitlab: the token could not be checked: {problem}", file=sys.stderr)
    output.say(f"The token for {server} is stored in {place}.")
    return 0


def _logout(arguments: argparse.Namespace, output: Output) -> int:
    server = server_of(url_of(arguments))
    found = forget_token(server)
    output.say(f"The token for {server} is {'removed' if found else 'not stored'}.")
    return 0


def _status(arguments: argparse.Namespace, output: Output) -> int:
    server = server_of(url_of(arguments))
    with reader(arguments, server) as io:
        url = api_url(server)
        headers = io.credentials.headers_for(url, io.session.dialect_of(url).token_header)
        found: dict[str, Any] = {
            "server": server,
            "token from": _source_of(arguments, server),
            "header": ", ".join(headers) or None,
        }
        try:
            check_token(io, url_of(arguments))
            found["answer"] = "accepted"
        except STACGitLabError as error:
            found["answer"] = str(error)
        found.update(_scopes(io, server))
    output.table(found)
    return 0 if found["answer"] == "accepted" else 3


def _source_of(arguments: argparse.Namespace, server: str) -> str:
    if arguments.token is not None or arguments.token_file is not None:
        return "the command line"
    variable = next((name for name in TOKEN_VARIABLES if os.environ.get(name)), None)
    if variable is not None:
        return variable
    return "auth login" if server in stored_servers() else "nowhere: requests are anonymous"


def _scopes(io: GitLabStacIO, server: str) -> dict[str, Any]:
    """Return what GitLab says of the token, if the server is a GitLab."""

    def parse(response: Document) -> dict[str, Any]:
        return parse_json(response.body, url=response.url, limits=io.session.limits)

    once = io.session.retry.replace(max_attempts=1)
    url = f"{server}/api/v4/personal_access_tokens/self"
    try:
        described = io.session.fetch(url, parse, max_bytes=io.max_document_bytes, retry=once)
    except STACGitLabError:
        return {}
    scopes = described.get("scopes")
    named = ", ".join(map(str, scopes)) if isinstance(scopes, list) else None
    return {"name": described.get("name"), "scopes": named, "expires": described.get("expires_at")}
