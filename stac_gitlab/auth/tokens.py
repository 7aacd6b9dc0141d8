"""A token, and the arguments that may hold one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stac_gitlab.errors import ConfigurationError
from stac_gitlab.redaction import CREDENTIAL_HEADERS, REDACTED, Secret, remember_secrets

TokenSource = str | Callable[[], str | None] | None
"""A token, a function that returns one (called again after a 401), or None: the environment."""

JOB_TOKEN_VARIABLE = "CI_JOB_TOKEN"  # noqa: S105  # a name


class Token:
    """A token."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        problem = _problem_of(value)
        self.value = Secret("" if problem else value.strip())
        del value
        if problem:
            raise ConfigurationError(problem)
        remember_secrets([self.value])

    @property
    def is_job_token(self) -> bool:
        """Whether it is the token of the CI job that this process runs in."""
        return self.value == os.environ.get(JOB_TOKEN_VARIABLE, "").strip()

    def __repr__(self) -> str:
        return f"Token({REDACTED})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)


def _problem_of(token: object) -> str:
    """Return what is wrong with a token, or an empty text."""
    if not isinstance(token, str):
        return (
            f"A token has to be a string, not {type(token).__name__}. Pass the token, a function "
            "that returns it, or None for the one in the environment."
        )
    token = token.strip()
    if not token:
        return (
            "The token is empty. Pass None to use the one in the environment, or to stay anonymous "
            "where there is none."
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        return (
            "The token holds spaces, line breaks or letters that no HTTP header can carry. Was a "
            "whole file pasted in?"
        )
    return ""


def hide_token(token: TokenSource | Token) -> Token | Callable[[], str | None] | None:
    """Return a token whose repr does not show it; a function or None unchanged.

    A function that takes a token deletes its own variable after this. Otherwise a traceback with
    locals shows the token in an error about another argument.

    Raises:
        ConfigurationError: If it is not a token.
    """
    try:
        if token is None or isinstance(token, Token) or callable(token):
            return token
        return Token(token)
    finally:
        del token


def hide_tokens(hosts: Iterable[str] | None) -> Iterable[str] | None:
    """Return ``hosts=`` with the tokens in it, if it is a mapping, as :func:`hide_token` does.

    A text is a header if it has a colon, begins with ``x-`` or is a header for credentials.

    Raises:
        ConfigurationError: If a value is neither a header nor a token.
    """
    if not isinstance(hosts, Mapping):
        return list(hosts) if isinstance(hosts, Iterator) else hosts
    hidden: dict[str, Any] = {}
    # No variable may hold a token: a traceback with locals would show it.
    for host in hosts:
        if isinstance(hosts[host], tuple) and len(hosts[host]) == 2:
            hidden[host] = hosts[host][0], hide_token(hosts[host][1])
        elif hosts[host] is None or _is_header(hosts[host]):
            hidden[host] = hosts[host]
        else:
            hidden[host] = "auto", hide_token(hosts[host])
    return hidden


def _is_header(value: object) -> bool:
    return isinstance(value, str) and (
        ":" in value or value.lower().startswith("x-") or value.lower() in CREDENTIAL_HEADERS
    )
