"""Origins, and the secrets that are sent to them."""

from stac_gitlab.auth.credentials import (
    HARMLESS_HEADERS,
    JOB_SERVER_VARIABLE,
    TOKEN_VARIABLES,
    URL_VARIABLE,
    Credentials,
    Token,
    TokenSource,
    hide_token,
    hide_tokens,
)
from stac_gitlab.auth.origins import DEFAULT_PORTS, Origin, parse_host, parse_hosts, request_url

__all__ = [
    "DEFAULT_PORTS",
    "HARMLESS_HEADERS",
    "JOB_SERVER_VARIABLE",
    "TOKEN_VARIABLES",
    "URL_VARIABLE",
    "Credentials",
    "Origin",
    "Token",
    "TokenSource",
    "hide_token",
    "hide_tokens",
    "parse_host",
    "parse_hosts",
    "request_url",
]
